"""Where a node stands is one fact, whichever of its proxies was asked."""

import asyncio
from types import SimpleNamespace
from typing import Any

from edge.config import Drain
from edge.errors import EdgeError, Reason
from edge.proxy.operate import Operate, Phase
from edge.wire import calls, treecalls


class Parent:
    """The parent's part: what it was told last."""

    def __init__(self) -> None:
        self.asked: list[calls.Head] = []
        self.gone = False

    async def ask(self, call: calls.Head) -> calls.Head:
        if self.gone:
            raise EdgeError(Reason.LINK_LOST, "the parent process is gone")
        self.asked.append(call)
        return treecalls.Announcement("withdrawn" if isinstance(call, treecalls.Withdraw) else "announced")


def operating(parent: Parent) -> tuple[Operate, Any]:
    fleet = SimpleNamespace(draining=False, touched=lambda: None)
    front = SimpleNamespace(lame_duck=False, end_idle=lambda: None)
    operate = Operate(
        fleet=fleet,  # type: ignore[arg-type]
        front=front,  # type: ignore[arg-type]
        drain=Drain(lame_duck_ms=20),
        ask_parent=parent.ask,
        changed=lambda: None,
    )
    return operate, fleet


async def test_one_that_was_not_asked_learns_it_from_the_parent() -> None:
    operate, fleet = operating(Parent())
    operate.adopt(drained=True)
    assert (operate.phase, fleet.draining) == (Phase.DRAINED, True)
    operate.adopt(drained=False)
    assert (operate.phase, fleet.draining) == (Phase.SERVING, False)


async def test_what_is_under_way_here_is_not_undone_by_what_the_parent_does_not_know_yet() -> None:
    parent = Parent()
    operate, fleet = operating(parent)
    async with asyncio.TaskGroup() as group:
        draining = group.create_task(operate.drain())
        await asyncio.sleep(0)
        operate.adopt(drained=False)
        assert (operate.phase, fleet.draining) == (Phase.LAME_DUCK, True)
        await draining
    assert (operate.phase, parent.asked) == (Phase.DRAINED, [treecalls.Withdraw(drained=True)])


async def test_a_drain_that_the_parent_never_heard_of_ends() -> None:
    parent = Parent()
    operate, fleet = operating(parent)
    parent.gone = True
    try:
        await operate.drain()
    except EdgeError:
        operate.adopt(drained=False)
    assert (operate.phase, fleet.draining) == (Phase.SERVING, False)
