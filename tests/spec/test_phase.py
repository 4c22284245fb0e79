"""Where a node stands is one fact, whichever of its proxies was asked."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from edge.config import Drain
from edge.errors import EdgeError, Reason
from edge.policy.others import Others
from edge.proxy.operate import Operate, Phase
from edge.wire import calls, treecalls


class Parent:
    """The parent's part: what it was told last."""

    def __init__(self) -> None:
        self.asked: list[calls.Head] = []
        self.gone = False
        #: What the others are told of its answers.
        self.heard: list[str] = []

    async def ask(self, call: calls.Head) -> calls.Head:
        if self.gone:
            raise EdgeError(Reason.LINK_LOST, "the parent process is gone")
        self.asked.append(call)
        return treecalls.Announcement("withdrawn" if isinstance(call, treecalls.Withdraw) else "announced")

    def hear(self, announcement: str) -> None:
        self.heard.append(announcement)


def operating(parent: Parent) -> tuple[Operate, Any]:
    fleet = SimpleNamespace(draining=False, touched=lambda: None)
    front = SimpleNamespace(lame_duck=False, end_idle=lambda: None)
    operate = Operate(
        fleet=fleet,  # type: ignore[arg-type]
        front=front,  # type: ignore[arg-type]
        drain=Drain(lame_duck_ms=20),
        ask_parent=parent.ask,
        changed=lambda: None,
        on_announcement=parent.hear,
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
    assert parent.heard == ["withdrawn"], "the next beacon says so, and not the one after the next look"


async def test_a_drain_that_the_parent_never_heard_of_ends() -> None:
    parent = Parent()
    operate, fleet = operating(parent)
    parent.gone = True
    try:
        await operate.drain()
    except EdgeError:
        operate.adopt(drained=False)
    assert (operate.phase, fleet.draining) == (Phase.SERVING, False)


SOMEBODY, NOBODY, UNKNOWN = Others.SOMEBODY, Others.NOBODY, Others.UNKNOWN
LAST: list[tuple[str, list[Others], bool]] = [
    ("nothing was heard of others", [], False),
    ("somebody else announces", [SOMEBODY], False),
    ("nobody else does", [NOBODY], True),
    ("nobody, and then another one", [NOBODY, SOMEBODY], False),
    ("what is not known any more is as it was", [NOBODY, UNKNOWN], True),
    ("nor does not knowing begin it", [SOMEBODY, UNKNOWN], False),
]


@pytest.mark.parametrize("before", [False, True], ids=["heard while drained", "heard before"])
@pytest.mark.parametrize(("sentence", "words", "last"), LAST, ids=[row[0] for row in LAST])
def test_a_drained_one_is_the_last_while_nobody_else_announces(
    sentence: str, words: list[Others], last: bool, before: bool
) -> None:
    operate, _ = operating(Parent())
    operate.adopt(drained=not before)
    for others in words:
        operate.heard(others)
    assert not (before and operate.last_one), "who serves is no such one"
    operate.adopt(drained=True)
    # What was known long ago is no reason: only the newest word counts for one that is drained now.
    assert operate.last_one is (last and (not before or words[-1] is NOBODY)), sentence
    operate.adopt(drained=False)
    assert not operate.last_one
