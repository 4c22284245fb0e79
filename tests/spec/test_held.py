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


KNOWN: list[tuple[str, Acts, tuple[bool, bool]]] = [
    ("a fresh node attracts", [], (False, False)),
    ("withdrawn", [withdraw], (True, False)),
    ("drained is withdrawn too", [drain], (True, True)),
    ("drained, then withdrawn once more", [drain, withdraw], (True, True)),
    ("withdrawn, then drained", [withdraw, drain], (True, True)),
    ("taken back", [drain, Held.release], (False, False)),
    ("taken back twice", [withdraw, Held.release, Held.release], (False, False)),
    ("taken back and withdrawn: no longer drained", [drain, Held.release, withdraw], (True, False)),
]


@pytest.mark.parametrize(("sentence", "acts", "known"), KNOWN, ids=[row[0] for row in KNOWN])
def test_it_is_known_at_once_and_by_the_next(
    tmp_path: Path, sentence: str, acts: Acts, known: tuple[bool, bool]
) -> None:
    held = Held(tmp_path)
    for act in acts:
        act(held)
    assert (held.held, held.drained) == known, sentence
    again = Held(tmp_path)
    assert (again.held, again.drained) == known, sentence


def test_what_can_not_be_written_holds_while_the_parent_lives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held(tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        drain(held)
    assert (held.held, held.drained) == (True, True)
    assert "not over a restart" in caplog.text
