"""Bring one blob to the disk: parallel ranges from several sources, each chunk checked, then the whole.

`fetch_blob` blocks, and runs in a thread of its own beside the event loop. A range that fails
or has the wrong digest is asked of the next source, of each at most RETRIES more times; what was
good stays on disk for the next attempt. Who has the blob, and in which order to ask, is not
decided here; room for the blob was made before.
"""

import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol

from blake3 import blake3

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.weights.ingest import Ingest
from edge.weights.manifest import BlobFile
from edge.weights.sources import ORIGIN, Kind, Moved, Site, Speeds
from edge.weights.store import Store

RETRIES: Final = 2
_BACKOFF_S: Final = 0.2
_TICK_S: Final = 0.25
#: A source is watched for this long before it is left for a faster one.
_SLOW_AFTER_MS: Final = 1_000.0
#: What a source that can't deliver raises; all else is the disk's or ours.
_NOT_DELIVERED: Final = (Reason.ORIGIN_DOWN, Reason.LINK_LOST)


class Ranges(Protocol):
    """Where bytes come from: `edge.weights.origin.Origin`, `edge.weights.peersource.Peer`."""

    def range(
        self, path: str, start: int, end: int, *, object_bytes: int
    ) -> Iterator[bytes] | Iterator[memoryview]:
        """Bytes `start` up to `end`, in buffers as they arrive; EdgeError(ORIGIN_DOWN or LINK_LOST)."""


class Limits(NamedTuple):
    """`parallel` ranges at a time; fewer than `min_bytes_per_s` over `watch_ms` and the fetch is given up."""

    parallel: int
    min_bytes_per_s: int
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


class Choice:
    """The sources of one node: what was measured of them, and what is under way. Shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: Counter[Site] = Counter()
        self._speeds = Speeds()

    def take(self, sites: list[Site], wanted_bytes: int) -> Site:
        """The one to ask now; give it back with `left`."""
        with self._lock:
            site = self._speeds.ranked(sites, wanted_bytes, self._busy, clock.now_ms())[0]
            self._busy[site] += 1
            return site

    def ranked(self, sites: list[Site], wanted_bytes: int) -> tuple[Site, ...]:
        """Whom to ask in which order."""
        with self._lock:
            return self._speeds.ranked(sites, wanted_bytes, self._busy, clock.now_ms())

    def delivered(self, site: Site, moved_bytes: int, took_ms: float) -> None:
        """It gave all that was asked, and right."""
        with self._lock:
            self._speeds.delivered(site, moved_bytes, took_ms)

    def failed(self, site: Site, *, wrong_bytes: bool = False) -> None:
        """It did not."""
        with self._lock:
            self._speeds.failed(site, clock.now_ms(), wrong_bytes=wrong_bytes)

    def left(self, site: Site) -> None:
        """What was taken is at its end."""
        with self._lock:
            self._busy[site] -= 1
            if self._busy[site] <= 0:
                del self._busy[site]

    def fetched(self, moved: Moved, took_ms: float) -> None:
        """A whole fetch came to its end."""
        with self._lock:
            self._speeds.fetched(moved, took_ms, clock.now_ms())

    def floor(self, site: Site, others: list[Site], least_bytes_per_ms: float) -> float:
        """The rate in bytes per ms below which `site` is left for one of `others`."""
        with self._lock:
            return self._speeds.floor(site, others, least_bytes_per_ms)

    def rate(self, kind: Kind) -> float:
        """Bytes per ms to reckon with for a whole fetch from this class; 0 for unknown."""
        with self._lock:
            return self._speeds.rate(kind, clock.now_ms())


class CorruptError(EdgeError):
    """BLOB_CORRUPT: the source has wrong bytes, for chunk `index` or (None) for the whole blob."""

    def __init__(self, message: str, index: int | None) -> None:
        super().__init__(Reason.BLOB_CORRUPT, message, source=Source.UPSTREAM)
        self.index = index


def fetch_blob(
    file: BlobFile,
    store: Store,
    feeds: Mapping[Site, Ranges],
    choice: Choice,
    limits: Limits,
    meter: Meter,
    stop: threading.Event,
) -> None:
    """The blob lies verified and durable under its name, or an EdgeError says why not.

    ORIGIN_DOWN or LINK_LOST (also when too slow), BLOB_CORRUPT as CorruptError, NO_SPACE, INTERNAL.
    Of several sources that failed, the origin's error is the one that is told.
    """
    ingest = store.open_ingest(file)
    try:
        missing = ingest.missing()
        meter.present_bytes = file.size_bytes - sum(
            end - at for at, end in (ingest.bounds(index) for index in missing)
        )
        if missing:
            began_ms = clock.now_ms()
            _Fetch(ingest, feeds, choice, limits, meter, stop).run(missing)
            choice.fetched(meter.moved, clock.now_ms() - began_ms)
        if ingest.digest() != file.blake3:
            raise CorruptError(
                f"blob {file.blake3} ({file.name}): every chunk is as its manifest says, the whole is not; "
                "publish the model again",
                None,
            )
        store.commit(ingest)
    finally:
        ingest.close()


class _Got(Enum):
    """How one range ended, if not with an error."""

    RIGHT = auto()
    WRONG = auto()
    SLOW = auto()


class _Fetch:
    """The threads of one blob. All of them have ended when `run` returns."""

    def __init__(
        self,
        ingest: Ingest,
        feeds: Mapping[Site, Ranges],
        choice: Choice,
        limits: Limits,
        meter: Meter,
        stop: threading.Event,
    ) -> None:
        self._ingest = ingest
        self._file = ingest.file
        self._feeds = feeds
        self._choice = choice
        self._limits = limits
        self._meter = meter
        self._stop = stop
        self._halt = threading.Event()
        self._todo: deque[int] = deque()
        #: Sources that do not have this blob.
        self._useless: dict[Site, EdgeError] = {}

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
        """One chunk: of the best source, then of the next, until all have failed RETRIES + 1 times."""
        at, end = self._ingest.bounds(index)
        failures: Counter[Site] = Counter()
        errors: dict[Site, EdgeError] = {}
        while sites := self._candidates(failures):
            if fewest := failures[sites[0]]:
                self._halt.wait(_BACKOFF_S * 2 ** (fewest - 1))
            if self._halt.is_set():
                raise self._down("was given up")
            site = self._choice.take(sites, end - at)
            others = [other for other in self._candidates(failures) if other != site]
            try:
                if self._ask(site, others, index, errors):
                    self._ingest.mark(index)
                    return
            finally:
                self._choice.left(site)
            failures[site] += 1
        errors = {**self._useless, **errors}
        raise errors.get(ORIGIN) or next(iter(errors.values()), None) or self._down("has no source")

    def _candidates(self, failures: Counter[Site]) -> list[Site]:
        """Sources that may still be asked for a chunk and failed it least often."""
        left = [site for site in self._feeds if failures[site] <= RETRIES and site not in self._useless]
        fewest = min((failures[site] for site in left), default=0)
        return [site for site in left if failures[site] == fewest]

    def _ask(self, site: Site, others: list[Site], index: int, errors: dict[Site, EdgeError]) -> bool:
        """One attempt; True if the chunk is here and right. What went wrong is put into `errors`."""
        began_ms = clock.now_ms()
        try:
            got = self._receive(site, others, index)
        except EdgeError as error:
            if error.reason not in _NOT_DELIVERED or self._halt.is_set():
                raise
            self._choice.failed(site)
            errors[site] = error
            if getattr(error, "lasting", False):
                self._useless[site] = error
            return False
        at, end = self._ingest.bounds(index)
        match got:
            case _Got.RIGHT:
                self._choice.delivered(site, end - at, clock.now_ms() - began_ms)
                return True
            case _Got.SLOW:
                self._choice.failed(site)
                errors[site] = self._down(f"came too slowly from {site.name}")
            case _Got.WRONG:
                self._choice.failed(site, wrong_bytes=True)
                errors[site] = CorruptError(
                    f"blob {self._file.blake3} ({self._file.name}): chunk {index} of {site.name} is not what "
                    f"its manifest says, {RETRIES + 1} times; publish the model again",
                    index,
                )
        return False

    def _receive(self, site: Site, others: list[Site], index: int) -> _Got:
        """The bytes of a chunk to their place; are they the right ones?"""
        start, end = self._ingest.bounds(index)
        floor = self._choice.floor(site, others, self._limits.min_bytes_per_s / 1000.0) if others else 0.0
        at, began_ms = start, clock.now_ms()
        hasher = blake3()
        path = f"blobs/{self._file.blake3}"
        for buffer in self._feeds[site].range(path, start, end, object_bytes=self._file.size_bytes):
            if self._halt.is_set():
                raise self._down("was given up")
            self._meter.add(site.kind, len(buffer))
            self._ingest.write(at, buffer)
            hasher.update(buffer)
            at += len(buffer)
            elapsed_ms = clock.now_ms() - began_ms
            if at < end and elapsed_ms > _SLOW_AFTER_MS and at - start < floor * elapsed_ms:
                return _Got.SLOW
        return _Got.RIGHT if at == end and hasher.hexdigest() == self._file.chunks[index] else _Got.WRONG

    def _down(self, what: str) -> EdgeError:
        return EdgeError(
            Reason.ORIGIN_DOWN,
            f"blob {self._file.blake3} ({self._file.name}) {what}",
            source=Source.UPSTREAM,
            retryable=True,
            retry_after_s=2,
        )
