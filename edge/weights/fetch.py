"""Bring one blob from the origin to the disk: parallel ranges, each chunk checked, then the whole.

`fetch_blob` blocks, and runs in a thread of its own beside the event loop. A range that fails
or has the wrong digest is fetched again, at most RETRIES times; what was good stays on disk
for the next attempt. Knows neither budgets nor holds: room for the blob was made before.
"""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Final, NamedTuple, Protocol

from blake3 import blake3

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.weights.ingest import Ingest
from edge.weights.manifest import BlobFile
from edge.weights.store import Store

RETRIES: Final = 2
_BACKOFF_S: Final = 0.2
_TICK_S: Final = 0.25


class Ranges(Protocol):
    """Where bytes come from; `edge.weights.origin.Origin` is one."""

    def range(self, path: str, start: int, end: int, *, object_bytes: int) -> Iterator[bytes]:
        """Bytes `start` up to `end`, in buffers as they arrive; EdgeError(ORIGIN_DOWN)."""


class Limits(NamedTuple):
    """`parallel` ranges at a time; fewer than `min_bytes_per_s` over `watch_ms` and the fetch is given up."""

    parallel: int
    min_bytes_per_s: int
    watch_ms: int = 3_000


class Meter:
    """Bytes that came over the network, good or bad. Shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.moved_bytes = 0

    def add(self, count: int) -> None:
        """So many more."""
        with self._lock:
            self.moved_bytes += count


class CorruptError(EdgeError):
    """BLOB_CORRUPT: the source has wrong bytes, for chunk `index` or (None) for the whole blob."""

    def __init__(self, message: str, index: int | None) -> None:
        super().__init__(Reason.BLOB_CORRUPT, message, source=Source.UPSTREAM)
        self.index = index


def fetch_blob(
    file: BlobFile, store: Store, source: Ranges, limits: Limits, meter: Meter, stop: threading.Event
) -> None:
    """The blob lies verified and durable under its name, or an EdgeError says why not.

    ORIGIN_DOWN (also when too slow), BLOB_CORRUPT as CorruptError, NO_SPACE, INTERNAL.
    """
    ingest = store.open_ingest(file)
    try:
        missing = ingest.missing()
        if missing:
            _Fetch(ingest, source, limits, meter, stop).run(missing)
        if ingest.digest() != file.blake3:
            raise CorruptError(
                f"blob {file.blake3} ({file.name}): every chunk is as its manifest says, the whole is not; "
                "publish the model again",
                None,
            )
        store.commit(ingest)
    finally:
        ingest.close()


class _Fetch:
    """The threads of one blob. All of them have ended when `run` returns."""

    def __init__(
        self, ingest: Ingest, source: Ranges, limits: Limits, meter: Meter, stop: threading.Event
    ) -> None:
        self._ingest = ingest
        self._file = ingest.file
        self._source = source
        self._limits = limits
        self._meter = meter
        self._stop = stop
        self._halt = threading.Event()
        self._todo: deque[int] = deque()

    def run(self, missing: list[int]) -> None:
        self._todo.extend(missing)
        count = min(self._limits.parallel, len(missing))
        with ThreadPoolExecutor(count, thread_name_prefix="weights-range") as threads:
            try:
                self._watch([threads.submit(self._work) for _ in range(count)])
            finally:
                self._halt.set()

    def _watch(self, workers: list[Future[None]]) -> None:
        """Until all is fetched, one worker failed, or too little moves."""
        window_s = self._limits.watch_ms / 1000.0
        since_s, before = clock.now_s(), self._meter.moved_bytes
        while True:
            done, pending = wait(workers, timeout=_TICK_S, return_when=FIRST_EXCEPTION)
            for worker in done:
                worker.result()
            if not pending:
                return
            if self._stop.is_set():
                raise self._down("was not fetched: the node stops")
            elapsed_s = clock.now_s() - since_s
            if elapsed_s >= window_s:
                moved = self._meter.moved_bytes - before
                if moved < self._limits.min_bytes_per_s * elapsed_s:
                    raise self._down(
                        f"came too slowly: {moved} bytes in {elapsed_s:.1f} s, "
                        f"less than weights.min_bytes_per_s ({self._limits.min_bytes_per_s})"
                    )
                since_s, before = clock.now_s(), self._meter.moved_bytes

    def _work(self) -> None:
        while not self._halt.is_set():
            try:
                index = self._todo.popleft()
            except IndexError:
                return
            self._fetch_chunk(index)

    def _fetch_chunk(self, index: int) -> None:
        """One chunk, tried again after a failure or a wrong digest."""
        for attempt in range(RETRIES + 1):
            try:
                right = self._receive(index)
            except EdgeError as error:
                if attempt == RETRIES or self._halt.is_set() or not _may_pass(error):
                    raise
                self._halt.wait(_BACKOFF_S * 2**attempt)
                continue
            if right:
                self._ingest.mark(index)
                return
        raise CorruptError(
            f"blob {self._file.blake3} ({self._file.name}): chunk {index} in the origin is not what its "
            f"manifest says, {RETRIES + 1} times; publish the model again",
            index,
        )

    def _receive(self, index: int) -> bool:
        """Are the bytes that came, and that are in their place now, the right ones?"""
        at, end = self._ingest.bounds(index)
        hasher = blake3()
        path = f"blobs/{self._file.blake3}"
        for buffer in self._source.range(path, at, end, object_bytes=self._file.size_bytes):
            if self._halt.is_set():
                raise self._down("was given up")
            self._meter.add(len(buffer))
            self._ingest.write(at, buffer)
            hasher.update(buffer)
            at += len(buffer)
        return at == end and hasher.hexdigest() == self._file.chunks[index]

    def _down(self, what: str) -> EdgeError:
        return EdgeError(
            Reason.ORIGIN_DOWN,
            f"blob {self._file.blake3} ({self._file.name}) {what}",
            source=Source.UPSTREAM,
            retryable=True,
            retry_after_s=2,
        )


def _may_pass(error: EdgeError) -> bool:
    """Is it worth asking again at once?"""
    return error.reason is Reason.ORIGIN_DOWN and not getattr(error, "lasting", False)
