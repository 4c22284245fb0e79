"""The queue at the door: first come first woken, no wake-up is lost, the count is always right."""

import asyncio

import pytest

from edge.fleet.snapshot import Fleet
from edge.proxy.slots import Slots
from tests.support.facts import a_node


@pytest.fixture
def fleet():
    return Fleet(a_node(), changed=lambda: None)


async def waiting(slots, count, budget_ms=5000.0):
    tasks = [
        asyncio.get_running_loop().create_task(slots.wait(budget_ms, slots.place())) for _ in range(count)
    ]
    await asyncio.sleep(0)
    return tasks


async def turn():
    for _ in range(4):
        await asyncio.sleep(0)


async def test_one_freed_slot_wakes_the_first(fleet):
    slots = Slots(fleet)
    first, second = await waiting(slots, 2)
    assert fleet.waiting == 2
    slots.freed()
    await turn()
    assert (first.done(), second.done(), fleet.waiting) == (True, False, 1)
    slots.freed()
    assert await second is True
    assert fleet.waiting == 0


async def test_a_change_of_the_world_wakes_everybody(fleet):
    slots = Slots(fleet)
    tasks = await waiting(slots, 5)
    slots.changed()
    assert await asyncio.gather(*tasks) == [True] * 5


async def test_the_budget_runs_out(fleet):
    slots = Slots(fleet)
    assert await slots.wait(5.0, slots.place()) is False
    assert fleet.waiting == 0
    slots.freed()


async def test_who_left_is_passed_over(fleet):
    slots = Slots(fleet)
    first, second = await waiting(slots, 2)
    first.cancel()
    await turn()
    assert fleet.waiting == 1
    slots.freed()
    assert await second is True


async def test_a_wake_up_is_handed_on_by_one_who_leaves_at_that_moment(fleet):
    slots = Slots(fleet)
    first, second = await waiting(slots, 2)
    slots.freed()
    first.cancel()
    assert await asyncio.wait_for(second, 1) is True
    assert first.cancelled()
    assert fleet.waiting == 0


async def test_a_slot_that_frees_while_the_budget_runs_out_does_no_harm(fleet):
    slots = Slots(fleet)
    (only,) = await waiting(slots, 1, budget_ms=0.0)
    slots.freed()
    slots.freed()
    assert await only in (True, False)
    assert fleet.waiting == 0


async def test_who_was_woken_for_nothing_keeps_its_place(fleet):
    slots = Slots(fleet)
    place = slots.place()
    others = await waiting(slots, 2)
    early = asyncio.get_running_loop().create_task(slots.wait(5000.0, place))
    await asyncio.sleep(0)
    slots.freed()
    await turn()
    assert (early.done(), others[0].done()) == (True, False)
    slots.changed()
    await asyncio.gather(*others)


async def test_those_who_gave_up_are_not_kept(fleet):
    slots = Slots(fleet)
    (patient,) = await waiting(slots, 1)
    for _ in range(100):
        assert await slots.wait(0.0, slots.place()) is False
    assert len(slots._waiters) < 10
    slots.freed()
    assert await patient is True
