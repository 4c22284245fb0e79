"""The slow road of the switch: a frame on a pair with conditions, packet by packet.

Every packet of a frame meets its own fate (wanfate.py). Those that follow each other and leave
together stay together: with one loss in a hundred most of 64 KiB still crosses in two pieces.
Knows no sockets and no clock.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from netlab.wanfabric import Pair
from netlab.wanfate import Why, decide
from netlab.wanqueue import DelayQueue
from netlab.wantrain import part, train

TOGETHER_NS: Final = 200_000
"""Packets due within this time leave as one piece, at the time of the last."""


def admit(queue: DelayQueue, pair: Pair, frame: bytes, arrived_ns: int) -> bool:
    """Queue what of the frame will arrive, count the rest. True where packets were too big."""
    whole = train(frame)
    if pair.cut:
        pair.drop(Why.CUT, whole.packets)
        return False
    fates: list[int | Why] = []
    lane, wish, draw = pair.lane, pair.wish, pair.draw
    for index in range(whole.packets):
        fate, lane = decide(wish, lane, whole.packet_bytes(index), arrived_ns, draw)
        fates.append(fate)
        if isinstance(fate, Why):
            pair.drop(fate)
    pair.lane = lane
    for first, end, due_ns in pieces(fates):
        queue.offer(pair, part(frame, whole, first, end), due_ns)
    return Why.MTU in fates


def pieces(fates: Iterable[int | Why]) -> Iterator[tuple[int, int, int]]:
    """(first, end, due) of each run of packets that arrive, in order, due within TOGETHER_NS."""
    first, began_ns, due_ns = 0, -1, -1  # -1: no run has begun
    index = -1
    for index, fate in enumerate(fates):
        if began_ns >= 0:
            if not isinstance(fate, Why) and due_ns <= fate <= began_ns + TOGETHER_NS:
                due_ns = fate
                continue
            yield first, index, due_ns
        first, began_ns, due_ns = (index, -1, -1) if isinstance(fate, Why) else (index, fate, fate)
    if began_ns >= 0:
        yield first, index + 1, due_ns
