"""One chunk under way, from one source or from two: the first right copy wins.

The first copy of a chunk goes straight to its place on the disk. A second one stays in memory until it
is whole and right, so that two sources never write to one place; once a chunk is over, whoever still
receives it writes nothing any more. Knows neither why a second copy was wanted nor what comes next.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from blake3 import blake3

from edge import clock
from edge.errors import EdgeError
from edge.policy.fetch_plan import DRIP_MS, Copy
from edge.weights.ingest import Ingest
from edge.weights.sources import Site
from edge.weights.terms import Ranges

_SAMPLE_MS: Final = 100.0


class Got(Enum):
    """How one copy ended, if not with an error."""

    RIGHT = auto()
    WRONG = auto()
    LOST = auto()


class Chunk:
    """Its place in the file, what went wrong with it so far, and who brings it now."""

    def __init__(self, ingest: Ingest, index: int) -> None:
        self.index = index
        self.start, self.end = ingest.bounds(index)
        self.failures: Counter[Site] = Counter()
        self.errors: dict[Site, EdgeError] = {}
        self.not_before_ms = 0.0
        self.runs: list[Run] = []
        self.over = False
        self._ingest = ingest
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Of this chunk."""
        return self.end - self.start

    def write(self, at: int, buffer: bytes | memoryview) -> bool:
        """Put bytes in their place; False if the chunk is over."""
        with self._lock:
            if self.over:
                return False
            self._ingest.write(at, buffer)
            return True

    def win(self, held: bytearray | None) -> bool:
        """A copy is whole and right, on the disk or `held` in memory; False if another was first."""
        with self._lock:
            if self.over:
                return False
            if held is not None:
                self._ingest.write(self.start, memoryview(held))
            self._ingest.mark(self.index)
            self.over = True
            return True

    def abandon(self) -> None:
        """Nobody writes to its place from here on."""
        with self._lock:
            self.over = True


class Run:
    """One source bringing one chunk. Written by its own thread, read by the fetch's."""

    def __init__(self, chunk: Chunk, site: Site, expected_ms: float) -> None:
        self.chunk = chunk
        self.site = site
        self.closed = False
        self.began_ms = clock.now_ms()
        self.got_bytes = 0
        self._held = bytearray(chunk.size_bytes) if chunk.runs else None
        self._expected_ms = expected_ms
        self.last_ms = self.began_ms
        self._samples: deque[tuple[float, int]] = deque([(self.began_ms, 0)])

    def receive(
        self, source: Ranges, path: str, object_bytes: int, digest: str, count: Callable[[int], None]
    ) -> Got:
        """Bytes to their place, each buffer counted when it comes. Raises EdgeError."""
        chunk, at, hasher = self.chunk, self.chunk.start, blake3()
        for buffer in source.range(path, chunk.start, chunk.end, object_bytes=object_bytes):
            count(len(buffer))
            if chunk.over or not self._put(at, buffer):
                return Got.LOST
            hasher.update(buffer)
            at += len(buffer)
            self._note(len(buffer))
        if at != chunk.end or hasher.hexdigest() != digest:
            return Got.WRONG
        return Got.RIGHT if chunk.win(self._held) else Got.LOST

    def _put(self, at: int, buffer: bytes | memoryview) -> bool:
        room = max(0, self.chunk.end - at)
        kept = memoryview(buffer)[:room]
        if self._held is None:
            return self.chunk.write(at, kept)
        offset = at - self.chunk.start
        self._held[offset : offset + len(kept)] = kept
        return True

    def _note(self, count: int) -> None:
        now_ms = clock.now_ms()
        self.got_bytes += count
        self.last_ms = now_ms
        if now_ms - self._samples[-1][0] >= _SAMPLE_MS:
            self._samples.append((now_ms, self.got_bytes))
            while len(self._samples) > 2 and self._samples[1][0] <= now_ms - DRIP_MS:
                self._samples.popleft()

    def seen(self, now_ms: float) -> Copy:
        """How it goes."""
        since_ms, before = self._samples[0]
        return Copy(
            wanted_bytes=self.chunk.size_bytes,
            got_bytes=self.got_bytes,
            age_ms=now_ms - self.began_ms,
            silent_ms=now_ms - self.last_ms,
            window_bytes=self.got_bytes - before,
            window_ms=now_ms - since_ms,
            expected_ms=self._expected_ms,
        )
