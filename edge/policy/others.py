"""Does anybody else attract clients to the address? What beacons say, and what silence does not. Pure.

Only a fresh beacon is evidence. Silence is none: a node that is cut off from a fleet that serves well
would else attract clients and refuse them, and turn good answers of others into bad ones of its own.
So a node that is heard late leaves it open until it is forgotten, and who hears nobody at all knows
nothing, whether it is the last one or only alone. tests/spec/test_others.py is the whole truth.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Others(StrEnum):
    """Whether another node attracts clients and takes what they ask."""

    SOMEBODY = "somebody"
    NOBODY = "nobody"
    UNKNOWN = "unknown"


class Seen(NamedTuple):
    """One other node as this one knows it. `ingress` and `announced` are its newest beacon's words.

    `age_ms` is that beacon's. Of a node without one (`heard` false) it is the time since it became a
    peer, or since its last sign of life.
    """

    age_ms: float
    heard: bool = True
    ingress: bool = True
    announced: bool = False


def who_announces(nodes: Iterable[Seen], *, fresh_ms: float, gone_ms: float) -> Others:
    """One fresh yes is enough; a no takes a fresh word of at least one node, and of every one that might."""
    heard = doubt = False
    for node in nodes:
        if not node.heard:
            doubt = doubt or node.age_ms < gone_ms
        elif node.age_ms > fresh_ms:
            doubt = doubt or node.ingress
        elif node.announced:
            return Others.SOMEBODY
        else:
            heard = True
    return Others.NOBODY if heard and not doubt else Others.UNKNOWN
