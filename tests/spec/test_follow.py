"""edge.policy.follow: whose turn it is, as a table."""

import pytest

from edge.policy.follow import FOLLOW_MAX_MS, Case, Word, may_go_out

PATIENCE = 2_000.0


def case(
    word: Word, waited_ms: float = 0.0, idle_ms: float = 0.0, *, barren_ms: float = 0.0, first: bool = False
) -> Case:
    return Case(word, waited_ms, idle_ms, barren_ms, first, PATIENCE)


@pytest.mark.parametrize(
    ("sentence", "now", "goes"),
    [
        ("the lease is this node's", case(Word.MINE), True),
        ("it is this node's of its life before", case(Word.MY_FORMER), True),
        ("another one has it", case(Word.ANOTHERS), False),
        ("another one has it and nothing came for long: its lease will run out", case(Word.ANOTHERS, 60_000, 60_000), False),
        ("another one has it, and for long nothing right came of it, whatever it tells", case(Word.ANOTHERS, FOLLOW_MAX_MS, barren_ms=FOLLOW_MAX_MS), True),
        ("another one has it for hours and gets on", case(Word.ANOTHERS, 30 * FOLLOW_MAX_MS, barren_ms=FOLLOW_MAX_MS - 1), False),
        ("nobody can tell, and this node goes first", case(Word.SILENT, first=True), True),
        ("nobody can tell, and another one goes first", case(Word.SILENT), False),
        ("it was waited for", case(Word.SILENT, PATIENCE, PATIENCE), True),
        ("it was waited for, and what it brings still comes", case(Word.SILENT, 9 * PATIENCE, PATIENCE - 1), False),
        ("it brings nothing, but was not waited for yet", case(Word.SILENT, PATIENCE - 1, 9 * PATIENCE), False),
    ],
)  # fmt: skip
def test_whose_turn_it_is(sentence: str, now: Case, goes: bool) -> None:
    assert may_go_out(now) is goes, sentence
