"""Which waiting has a deadline, and whether it has passed. Pure: the clock is an argument.

A connection keeps one mark, the time at which it entered its phase; the door's one timer asks. So a
request sets no timer of its own. What follows from a passed deadline is the connection's business.
"""

from enum import Enum
from typing import Final

from edge.limits import HttpLimits


class Phase(Enum):
    """Where a connection stands."""

    HEAD = "head"  # the first request, or the rest of one that has begun
    IDLE = "idle"  # between requests
    REQUEST = "request"  # a request is being read, handled or answered
    LINGER = "linger"  # the last answer is out; input is discarded until the client closes
    CLOSING = "closing"  # the transport flushes what is left
    CLOSED = "closed"


#: Phases in which input means nothing any more.
ENDING: Final = frozenset({Phase.LINGER, Phase.CLOSING, Phase.CLOSED})


def overdue(phase: Phase, waited_ms: float, limits: HttpLimits) -> bool:
    """True if `phase` may not go on after `waited_ms`. A request may: its body has a floor instead."""
    match phase:
        case Phase.HEAD:
            return waited_ms >= limits.header_timeout_ms
        case Phase.IDLE:
            return waited_ms >= limits.idle_timeout_ms
        case Phase.LINGER:
            return waited_ms >= limits.linger_ms
        case Phase.CLOSING:
            return waited_ms >= limits.write_timeout_ms
        case Phase.REQUEST | Phase.CLOSED:
            return False


def too_slow(received_bytes: int, waited_ms: float, limits: HttpLimits) -> bool:
    """True if a body came with less than its floor over `waited_ms`."""
    return received_bytes < limits.body_min_bytes_per_s * waited_ms / 1000
