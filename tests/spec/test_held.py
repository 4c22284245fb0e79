"""What an operator ordered is known again by the next parent in the same directory."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.parent.held import Held

Acts = list[Callable[[Held], object]]


def withdraw(held: Held) -> None:
    held.hold(drained=False)


def drain(held: Held) -> None:
    held.hold(drained=True)


def known_of(held: Held) -> tuple[bool, bool, bool]:
    return held.held, held.drained, held.withdrawn


#: (attracts nobody, is drained, was withdrawn by an order of its own)
KNOWN: list[tuple[str, Acts, tuple[bool, bool, bool]]] = [
    ("a fresh node attracts", [], (False, False, False)),
    ("withdrawn", [withdraw], (True, False, True)),
    ("drained attracts nobody", [drain], (True, True, False)),
    ("drained, then withdrawn once more", [drain, withdraw], (True, True, True)),
    ("withdrawn, then drained", [withdraw, drain], (True, True, True)),
    ("taken back", [drain, Held.release], (False, False, False)),
    ("both taken back", [drain, withdraw, Held.release], (False, False, False)),
    ("taken back twice", [withdraw, Held.release, Held.release], (False, False, False)),
    ("taken back and withdrawn: no longer drained", [drain, Held.release, withdraw], (True, False, True)),
]


@pytest.mark.parametrize(("sentence", "acts", "known"), KNOWN, ids=[row[0] for row in KNOWN])
def test_it_is_known_at_once_and_by_the_next(
    tmp_path: Path, sentence: str, acts: Acts, known: tuple[bool, bool, bool]
) -> None:
    held = Held(tmp_path)
    for act in acts:
        act(held)
    assert known_of(held) == known, sentence
    again = Held(tmp_path)
    assert known_of(again) == known, sentence


def test_what_can_not_be_written_holds_while_the_parent_lives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held(tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        drain(held)
    assert (held.held, held.drained) == (True, True)
    assert "not over a restart" in caplog.text
