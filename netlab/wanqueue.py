"""Frames that wait for their time, earliest first.

Pure: the caller brings the clock. Bounds the bytes each directed pair may hold, so that
a sender without congestion control can't eat the machine. Knows no sockets and no
conditions; it looks into a frame only to count the packets that it drops.
"""

import heapq

from netlab.wanfabric import Pair
from netlab.wanfate import Why
from netlab.wantrain import train

FRAME_COST_BYTES = 256
"""Charged on top of each frame's length: what a small frame really costs in memory."""


class DelayQueue:
    """A heap of (due, arrival order, pair, frame); equal due times leave in order of arrival."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._heap: list[tuple[int, int, Pair, bytes]] = []
        self._order = 0
        self.queued_bytes = 0

    def __len__(self) -> int:
        return len(self._heap)

    def offer(self, pair: Pair, frame: bytes, due_ns: int) -> bool:
        """Keep the frame until `due_ns`; False (and counted as dropped) where the pair is cut or full."""
        cost = len(frame) + FRAME_COST_BYTES
        if pair.cut or pair.queued_bytes + cost > self._limit_bytes:
            pair.drop(Why.CUT if pair.cut else Why.QUEUE, train(frame).packets)
            return False
        pair.queued_bytes += cost
        self.queued_bytes += cost
        self._order += 1
        heapq.heappush(self._heap, (due_ns, self._order, pair, frame))
        return True

    @property
    def next_due_ns(self) -> int | None:
        """When the earliest frame wants to leave; None when nothing waits."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_ns: int) -> tuple[int, Pair, bytes] | None:
        """The earliest frame with due <= now as (due, pair, frame), or None.

        One that leaves behind a later one of its pair is counted as reordered (RFC 4737).
        """
        heap = self._heap
        if not heap or heap[0][0] > now_ns:
            return None
        due_ns, order, pair, frame = heapq.heappop(heap)
        if order < pair.newest_order:
            pair.reordered += train(frame).packets
        else:
            pair.newest_order = order
        cost = len(frame) + FRAME_COST_BYTES
        pair.queued_bytes -= cost
        self.queued_bytes -= cost
        return due_ns, pair, frame
