"""edge.weights.turns: who brings many blobs has a few turns at a time, the node has so many in all."""

import asyncio

from edge.weights.turns import FETCHES_EACH, MAX_FETCHES, Queue, Turns


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_many_blobs_of_one_call_leave_turns_to_others() -> None:
    turns, end, began = Turns(), asyncio.Event(), list[str]()

    async def fetch(name: str, queue: Queue) -> None:
        async with queue.turn(100):
            began.append(name)
            await end.wait()

    large, small = turns.queue(), turns.queue()
    async with asyncio.TaskGroup() as group:
        for _ in range(MAX_FETCHES):
            group.create_task(fetch("large", large))
        group.create_task(fetch("small", small))
        await settled()
        assert (began.count("large"), began.count("small")) == (FETCHES_EACH, 1)
        assert large.party.rest_bytes == 100 * (MAX_FETCHES - FETCHES_EACH), "what has not begun counts too"
        for _ in range(MAX_FETCHES):
            group.create_task(fetch("other", turns.queue()))
        group.create_task(fetch("late", turns.queue()))
        await settled()
        assert len(began) == MAX_FETCHES
        assert "late" not in began, "first come, first served"
        end.set()
    assert began.count("large") == MAX_FETCHES
    assert large.party.rest_bytes == small.party.rest_bytes == 0


async def test_who_is_cancelled_while_waiting_is_not_reckoned_with() -> None:
    queue = Turns().queue()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_hold(queue)) for _ in range(FETCHES_EACH + 1)]
        await settled()
        assert queue.party.rest_bytes == 100
        for task in tasks:
            task.cancel()
    assert queue.party.rest_bytes == 0


async def _hold(queue: Queue) -> None:
    async with queue.turn(100):
        await asyncio.Event().wait()
