"""Who is to blame for a blocked loop, by its stack; and when nobody is, since nothing ran."""

import asyncio
import sys
from types import FrameType

import pytest

from edge.proxy.loopwatch import NOBODY, stack_of, stopped, where_of

DOOR = ("edge.proxy.door", "Door.answer", 7)
CODEC, USER = ("json.encoder", "JSONEncoder.encode", 9), ("edge.proxy.app", "Proxy._heartbeat", 3)

STACKS: list[tuple[str, list[tuple[str, str, int]], str]] = [
    ("the innermost of ours", [DOOR, USER], "edge.proxy.door:Door.answer"),
    ("not the library that it called", [CODEC, DOOR], "edge.proxy.door:Door.answer"),
    ("a library alone", [CODEC], "json.encoder:JSONEncoder.encode"),
    ("a name that only begins alike is not ours", [("edgeless", "f", 1)], "edgeless:f"),
    ("nothing that the loop runs", [], NOBODY),
]


@pytest.mark.parametrize(("sentence", "stack", "where"), STACKS, ids=[row[0] for row in STACKS])
def test_who_is_to_blame(sentence: str, stack: list[tuple[str, str, int]], where: str) -> None:
    assert where_of(stack) == where, sentence


def here() -> FrameType:
    return sys._getframe()


def test_a_stack_ends_where_the_loop_begins() -> None:
    async def asked() -> list[tuple[str, str, int]]:
        return stack_of(here())

    with asyncio.Runner() as runner:
        stack = runner.run(asked())
    names = [function.rpartition(".")[2] for module, function, _ in stack if module == __name__]
    assert names == ["here", "asked"]
    assert {module for module, _, _ in stack} <= {__name__, "asyncio.events"}


WAITS: list[tuple[str, float, float, bool]] = [
    ("woken in time", 0.001, 0.0, False),
    ("late, and the loop's thread slept too: stopped", 5.0, 0.0, True),
    ("what it did before the stop is no work in it", 5.0, 0.1, True),
    ("late, and the loop's thread worked: it let nobody run", 1.0, 1.1, False),
    ("it worked a little: a busy machine", 0.2, 0.03, False),
    ("a little late", 0.049, 0.0, False),
]


@pytest.mark.parametrize(
    ("sentence", "late_s", "worked_s", "is_stopped"), WAITS, ids=[row[0] for row in WAITS]
)
def test_when_nobody_ran(sentence: str, late_s: float, worked_s: float, is_stopped: bool) -> None:
    assert stopped(late_s, worked_s) is is_stopped, sentence
