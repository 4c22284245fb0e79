"""May a measurement over the WAN be believed? And what a directed pair counted.

Pure but for the look that `Watch` is given. It refuses to know sockets and POPs.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import msgspec

VOID_RATIO: Final = 0.01
"""Where more frames left over 2 ms late, the p99, the finest that is reported here, may be the switch's."""
MIN_LATE: Final = 3
"""Fewer late frames than this void nothing: a short measurement would not outlive one hiccup."""


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """One direction since the fabric began. A frame is what crossed as a piece, up to 64 KiB.

    `bytes` are those of `packets` on a line, each with its own headers; `dropped_by` has packets
    by reason: cut, queue, loss, mtu, down. `late` frames left more than 2 ms after their time.
    """

    frames: int
    packets: int
    bytes: int
    dropped: int
    dropped_by: dict[str, int]
    reordered: int
    late: int


def counted(pair: Mapping[str, Any]) -> Counters:
    """The counters in the fabric's own words."""
    return msgspec.convert({name: pair[name] for name in Counters.__struct_fields__}, Counters)


class Seen(msgspec.Struct, frozen=True):
    """Frames that left in a window, and how many of them late."""

    frames: int
    late: int

    @property
    def late_ratio(self) -> float:
        """Late ones among all, 0 to 1."""
        return self.late / self.frames if self.frames else 0.0

    @property
    def void(self) -> bool:
        """Whether times measured in this window say more about this machine than about the planet."""
        return self.late >= MIN_LATE and self.late_ratio > VOID_RATIO


class Watch:
    """A window over the counters: it begins when made or entered, and ends when left (or at each look)."""

    def __init__(self, total: Callable[[], tuple[int, int]]) -> None:
        """`total` tells (frames, late frames) since the fabric began."""
        self._total = total
        self._began = total()
        self._ended: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        self._began, self._ended = self._total(), None
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = self._total()

    def seen(self) -> Seen:
        """What left since the beginning."""
        frames, late = self._ended or self._total()
        return Seen(frames - self._began[0], late - self._began[1])

    @property
    def void(self) -> bool:
        """Whether too many were late: see Seen."""
        return self.seen().void
