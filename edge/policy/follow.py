"""May this node bring a blob from outside its region now, or does it follow another one that does?

Pure: no I/O, no clock. tests/spec/test_follow.py is the whole specification. One node of a region
holds the blob's lease and leads; the others follow it, with what it has by now. The lease is an
economy, never a safety: where nobody can tell whose turn it is, a node helps itself after a while.
"""

from enum import Enum, auto
from typing import Final, NamedTuple

#: Nobody follows for longer than this without a right chunk, whoever leads.
FOLLOW_MAX_MS: Final = 600_000.0


class Word(Enum):
    """What the region's index said of the lease."""

    MINE = auto()
    ANOTHERS = auto()
    #: This node's own, of a fetch of its life before: nobody else fetches for it.
    MY_FORMER = auto()
    #: It can't be asked.
    SILENT = auto()


class Case(NamedTuple):
    """One errand now. `idle_ms`: since anything came to those it follows, as they tell; `barren_ms`: since
    a right chunk came to this node; `first`: it follows nobody, and is the node that all would choose
    without an index.
    """

    word: Word
    waited_ms: float
    idle_ms: float
    barren_ms: float
    first: bool = False
    patience_ms: float = 0.0


def may_go_out(case: Case) -> bool:
    """Is it right to bring it from outside?"""
    if case.barren_ms >= FOLLOW_MAX_MS:
        return True
    match case.word:
        case Word.MINE | Word.MY_FORMER:
            return True
        case Word.ANOTHERS:
            return False
        case Word.SILENT:
            return case.first or min(case.waited_ms, case.idle_ms) >= case.patience_ms
