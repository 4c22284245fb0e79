"""What a fetch is given and what it leaves: sources, limits, a meter, and the error of wrong bytes."""

import threading
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from edge.errors import EdgeError, Reason, Source
from edge.policy.fetch_plan import MOST
from edge.weights.sources import Kind, Moved


class Ranges(Protocol):
    """Where bytes come from: `edge.weights.origin.Origin`, `edge.weights.peersource.Peer`."""

    def range(self, path: str, start: int, end: int, *, object_bytes: int) -> Iterator[bytes | memoryview]:
        """Bytes `start` up to `end`, in buffers that are good until the next one.

        Raises EdgeError: ORIGIN_DOWN or LINK_LOST.
        """


class Limits(NamedTuple):
    """At most `parallel` ranges at a time; given up if fewer than `min_bytes_per_s` come over `watch_ms`."""

    parallel: int = MOST
    min_bytes_per_s: int = 65_536
    watch_ms: int = 3_000


class Meter:
    """Bytes that came over the network, good or bad. Shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.moved = Moved()
        #: Bytes that were here before anything moved.
        self.present_bytes = 0

    @property
    def moved_bytes(self) -> int:
        """From all sources."""
        return self.moved.total_bytes

    def add(self, kind: Kind, count: int) -> None:
        """So many more."""
        with self._lock:
            self.moved.by[kind] += count


class CorruptError(EdgeError):
    """BLOB_CORRUPT: the source has wrong bytes, for chunk `index` or (None) for the whole blob."""

    def __init__(self, message: str, index: int | None) -> None:
        super().__init__(Reason.BLOB_CORRUPT, message, source=Source.UPSTREAM)
        self.index = index
