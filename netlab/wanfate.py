"""What becomes of one packet on a pair with conditions: when does it leave, or why not at all?

Pure: `decide` reads the pair's wish, what the packets before it left behind and one packet's size,
and returns a time or a `Why`, and what this packet leaves behind. Chance comes in as `draw`, which
is asked once for each of loss, jitter and reorder that is wished. tests/spec/test_wanfate.py is its
specification. It refuses to know bytes, sockets and clocks.

The line is modelled in this order: the MTU, the queue before the line, the line's rate, the line's
losses (a lost packet has used the line), the distance.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

from netlab.wanconditions import HELD_MS, Conditions, serial_ns

ETHERNET_BYTES: Final = 14


class Why(StrEnum):
    """Why a packet did not arrive."""

    CUT = "cut"
    QUEUE = "queue"
    LOSS = "loss"
    MTU = "mtu"
    DOWN = "down"


class Lane(NamedTuple):
    """What the packets before left behind: until when the line is taken, and when the last one is due."""

    busy_until_ns: int = 0
    last_due_ns: int = 0


def decide(
    wish: Conditions, lane: Lane, size_bytes: int, arrived_ns: int, draw: Callable[[], float]
) -> tuple[int | Why, Lane]:
    """When a packet of `size_bytes` (Ethernet header and all) leaves in ns, or why it never does."""
    busy_until_ns, last_due_ns = lane
    if wish.mtu_bytes and size_bytes - ETHERNET_BYTES > wish.mtu_bytes:
        return Why.MTU, lane
    on_line_ns = arrived_ns
    if wish.rate_bps:
        start_ns = max(arrived_ns, busy_until_ns)
        if start_ns - arrived_ns > wish.queue_ns:
            return Why.QUEUE, lane
        busy_until_ns = on_line_ns = start_ns + serial_ns(size_bytes, wish.rate_bps)
    if wish.loss and draw() < wish.loss:
        return Why.LOSS, Lane(busy_until_ns, last_due_ns)
    due_ns = on_line_ns + round(wish.one_way_ms * 1e6)
    if wish.jitter_ms:
        due_ns += round((2 * draw() - 1) * wish.jitter_ms * 1e6)
        due_ns = last_due_ns = max(due_ns, on_line_ns, last_due_ns)
    if wish.reorder and draw() < wish.reorder:
        due_ns += round(HELD_MS * 1e6)
    return due_ns, Lane(busy_until_ns, last_due_ns)
