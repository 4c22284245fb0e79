"""The chunks of one blob: whom to ask for which now, whom to leave, and when it is over.

One thread decides, by the rules of `edge.policy.fetch_plan` and `edge.weights.sources`; ranges run in the
node's threads and tell it how they ended. A range that fails or has the wrong digest is asked of the
next source, of each at most RETRIES more times; a late one is asked of a second source while the first
goes on. Knows neither who has the blob nor what becomes of it.
"""

import bisect
import threading
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import Final

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.policy.fetch_plan import HEDGES, Growing, is_late, worth_twice
from edge.weights.choice import Choice, Party
from edge.weights.chunks import Chunk, Got, Run
from edge.weights.ingest import Ingest
from edge.weights.sources import ORIGIN, Kind, NotYetError, Site
from edge.weights.terms import CorruptError, Limits, Meter, Ranges

RETRIES: Final = 2
_BACKOFF_MS: Final = 200.0
#: How long nothing is looked at: while all runs well, and at the end.
_TICK_MS: Final = 100.0
_END_TICK_MS: Final = 20.0
#: Chunks that are looked at for one that somebody can be asked for now.
_AHEAD: Final = 64
#: What a source that can't deliver raises; all else is the disk's or ours.
_NOT_DELIVERED: Final = (Reason.ORIGIN_DOWN, Reason.LINK_LOST)
_NEARNESS: Final = {kind: place for place, kind in enumerate(Kind)}


class Download:
    """The chunks of one blob. When `run` returns nobody writes to it any more: a range that was given up
    may still wait for its source, and what comes is dropped.
    """

    def __init__(
        self,
        ingest: Ingest,
        feeds: Mapping[Site, Ranges],
        choice: Choice,
        limits: Limits,
        meter: Meter,
        stop: threading.Event,
        party: Party | None = None,
    ) -> None:
        self._ingest = ingest
        self._file = ingest.file
        self._feeds = feeds
        self._choice = choice
        self._lanes = choice.lanes
        self._limits = limits
        self._least = limits.min_bytes_per_s / 1000.0
        self._meter = meter
        self._stop = stop
        self._party = party
        self._news: SimpleQueue[tuple[Run, Got | BaseException] | None] = SimpleQueue()
        self._chunks: dict[int, Chunk] = {}
        self._todo: list[int] = []
        self._under_way: list[Run] = []
        self._left_bytes = 0
        self._waits_for_lane = False
        #: Sources that do not have this blob, and those that have a part of it and fetch the rest.
        self._useless: dict[Site, EdgeError] = {}
        self._growing: dict[Site, Growing] = {}
        self._here_bytes: dict[Site, int] = {}

    def run(self, missing: list[int]) -> None:
        """Until all of these are on the disk and right. Raises EdgeError as `edge.weights.fetch` tells it."""
        self._chunks = {index: Chunk(self._ingest, index) for index in missing}
        self._todo = list(missing)
        self._left_bytes = sum(chunk.size_bytes for chunk in self._chunks.values())
        self._place = self._lanes.join(
            lambda: self._news.put(None), self._limits.parallel, self._left_bytes, self._party
        )
        try:
            self._until_done()
        finally:
            for chunk in self._chunks.values():
                chunk.abandon()
            for run in self._under_way:
                self._choice.left(run.site)
            self._lanes.leave(self._place)

    def _until_done(self) -> None:
        window_ms = float(self._limits.watch_ms)
        since_ms, before = clock.now_ms(), self._meter.moved_bytes
        while self._chunks:
            self._hedge()
            waits_ms = self._start()
            self._hear(waits_ms)
            if self._stop.is_set():
                raise self._down("was not fetched: the node stops")
            now_ms = clock.now_ms()
            moved, elapsed_ms = self._meter.moved_bytes - before, now_ms - since_ms
            if self._waits_rightly(now_ms):
                since_ms, before = now_ms, self._meter.moved_bytes
            elif elapsed_ms >= window_ms:
                if moved < self._limits.min_bytes_per_s * elapsed_ms / 1000.0:
                    raise self._down(
                        f"came too slowly: {moved} bytes in {elapsed_ms / 1000.0:.1f} s, "
                        f"less than weights.min_bytes_per_s ({self._limits.min_bytes_per_s})"
                    )
                since_ms, before = now_ms, self._meter.moved_bytes

    # --- what to start

    def _start(self) -> float:
        """Start all that may run now; how many ms until there may be more to start."""
        now_ms, next_ms = clock.now_ms(), float("inf")
        startable = False
        for index in self._todo[:_AHEAD]:
            chunk = self._chunks[index]
            left = self._left(chunk)
            if not left:
                raise self._why(chunk)
            sites, when_ms = self._ready(chunk, left, now_ms)
            if not sites:
                next_ms = min(next_ms, when_ms)
                continue
            startable = True
            if not self._lanes.take(self._place, self._left_bytes):
                break
            self._todo.remove(index)
            self._launch(chunk, sites)
            startable = False
        self._waits_for_lane = startable
        self._lanes.settle(self._place, self._left_bytes, waiting=startable)
        tick_ms = _TICK_MS if self._todo else _END_TICK_MS
        return max(1.0, min(tick_ms, next_ms - now_ms))

    def _left(self, chunk: Chunk) -> list[Site]:
        """Who may still be asked for this chunk, now or later."""
        return [
            site
            for site in list(self._feeds)
            if chunk.failures[site] <= RETRIES and site not in self._useless
        ]

    def _why(self, chunk: Chunk) -> EdgeError:
        errors = {**self._useless, **chunk.errors}
        return errors.get(ORIGIN) or next(iter(errors.values()), None) or self._down("has no source")

    def _ready(self, chunk: Chunk, left: list[Site], now_ms: float) -> tuple[list[Site], float]:
        """Who may be asked now: of those left the ones that failed it least often; if nobody, when.

        While a source of the region gets on with its own fetch, nobody outside is asked.
        """
        if chunk.not_before_ms > now_ms:
            return [], chunk.not_before_ms
        if any(site.kind is Kind.REGION and self._reserves(site, now_ms) for site in left):
            left = [site for site in left if site.kind is Kind.REGION]
        when = {site: self._ask_at_ms(site, chunk.index) for site in left}
        ready = [site for site in left if when[site] <= now_ms]
        fewest = min((chunk.failures[site] for site in ready), default=0)
        return [site for site in ready if chunk.failures[site] == fewest], min(when.values(), default=0.0)

    def _ask_at_ms(self, site: Site, index: int) -> float:
        growing = self._growing.get(site)
        return growing.ask_at_ms(index) if growing else 0.0

    def _reserves(self, site: Site, now_ms: float) -> bool:
        growing = self._growing.get(site)
        return growing is not None and growing.reserves(now_ms)

    def _waits_rightly(self, now_ms: float) -> bool:
        """Nothing moves: no lane is free, it is too early to ask, or one that gets on has no more yet."""
        growing = self._growing.values()
        if self._under_way:
            return False
        return self._waits_for_lane or not growing or any(one.reserves(now_ms) for one in growing)

    def _launch(self, chunk: Chunk, sites: list[Site]) -> None:
        site, expected_ms = self._choice.take(sites, chunk.size_bytes)
        run = Run(chunk, site, expected_ms)
        chunk.runs.append(run)
        self._under_way.append(run)
        self._choice.threads.submit(self._receive, run)

    def _receive(self, run: Run) -> None:
        """In a thread of its own. However it ends, the fetch hears of it."""

        def count(size: int) -> None:
            self._meter.add(run.site.kind, size)
            self._lanes.arrived(size)

        file, chunk = self._file, run.chunk
        try:
            if chunk.over:
                self._news.put((run, Got.LOST))
                return
            feed, digest = self._feeds[run.site], file.chunks[chunk.index]
            got = run.receive(feed, f"blobs/{file.blake3}", file.size_bytes, digest, count)
            self._news.put((run, got))
        except BaseException as error:  # noqa: BLE001 -- it is raised again where the fetch is decided
            self._news.put((run, error))

    # --- what is late

    def _hedge(self) -> None:
        """Ask a second source for chunks whose first is late, and at the end for those it has sooner."""
        now_ms = clock.now_ms()
        for run in self._under_way:
            if run.got_bytes and (growing := self._growing.get(run.site)):
                growing.grew(max(growing.progress_ms, run.last_ms))
        second = sum(len(chunk.runs) - 1 for chunk in self._chunks.values() if len(chunk.runs) > 1)
        for run in list(self._under_way):
            if second >= HEDGES:
                return
            if run is run.chunk.runs[-1] and self._hedge_one(run, now_ms):
                second += 1

    def _hedge_one(self, run: Run, now_ms: float) -> bool:
        chunk, seen = run.chunk, run.seen(now_ms)
        asked = {other.site for other in chunk.runs}
        others = [site for site in self._left(chunk) if site not in asked]
        sites, _ = self._ready(chunk, others, now_ms)
        near = [site for site in sites if _NEARNESS[site.kind] <= _NEARNESS[run.site.kind]]
        if is_late(seen, self._rates(run.site.kind), self._least, nearer=bool(near)):
            sites = near or sites
            if not sites:
                return False
            self._lanes.take(self._place, self._left_bytes, beyond=True)
            self._launch(chunk, sites)
            return True
        if self._todo or not near or len(chunk.runs) > 1:
            return False
        best = self._choice.ranked(near, chunk.size_bytes)[0]
        if not worth_twice(seen, self._choice.expected_ms(best, chunk.size_bytes)):
            return False
        # Beyond the width: late ones may hold all of it.
        self._lanes.take(self._place, self._left_bytes, beyond=True)
        self._launch(chunk, [best])
        return True

    def _rates(self, kind: Kind) -> list[float]:
        """What a source of this class is measured by: its own and nearer. A fast origin is no measure."""
        return self._choice.rates(
            site
            for site in list(self._feeds)
            if site not in self._useless and _NEARNESS[site.kind] <= _NEARNESS[kind]
        )

    # --- what was heard

    def _hear(self, waits_ms: float) -> None:
        """Wait for news, then take in all there is."""
        try:
            news = self._news.get(timeout=waits_ms / 1000.0)
            while True:
                if news is not None and not news[0].closed:
                    self._ended(*news)
                news = self._news.get_nowait()
        except Empty:
            return

    def _ended(self, run: Run, outcome: Got | BaseException) -> None:
        """One copy of a chunk came to its end."""
        now_ms, chunk, site = clock.now_ms(), run.chunk, run.site
        self._close(run)
        match outcome:
            case Got.RIGHT:
                self._choice.delivered(site, chunk.size_bytes, now_ms - run.began_ms)
                if growing := self._growing.get(site):
                    growing.gave(chunk.index, now_ms)
                self._won(chunk, now_ms)
                return
            case Got.LOST:
                return
            case NotYetError():
                self._not_yet(site, chunk.index, outcome, now_ms)
            case _:
                self._failed(run, outcome)
        if not chunk.runs and not chunk.over:
            fewest = min((chunk.failures[site] for site in self._left(chunk)), default=0)
            if fewest:
                chunk.not_before_ms = now_ms + _BACKOFF_MS * 2 ** (fewest - 1)
            bisect.insort(self._todo, chunk.index)

    def _close(self, run: Run) -> None:
        """It holds no lane and counts at no source any more, even if its thread still waits there."""
        run.closed = True
        run.chunk.runs.remove(run)
        self._under_way.remove(run)
        self._choice.left(run.site)
        self._lanes.release(self._place)

    def _won(self, chunk: Chunk, now_ms: float) -> None:
        """The chunk is here. Others that were bringing it are left; who was late is asked last from now."""
        for loser in list(chunk.runs):
            seen = loser.seen(now_ms)
            self._close(loser)
            self._choice.lost(loser.site, seen.got_bytes, seen.age_ms)
            if is_late(seen, self._rates(loser.site.kind), self._least, nearer=True):
                self._choice.failed(loser.site)
        del self._chunks[chunk.index]
        self._left_bytes -= chunk.size_bytes

    def _not_yet(self, site: Site, index: int, error: NotYetError, now_ms: float) -> None:
        growing = self._growing.setdefault(site, Growing(now_ms))
        growing.refused(index, now_ms)
        if error.here_bytes > self._here_bytes.get(site, 0):
            self._here_bytes[site] = error.here_bytes
            growing.grew(now_ms)

    def _failed(self, run: Run, outcome: Got | BaseException) -> None:
        """Remember what a source did wrong. Raises what is no source's fault."""
        chunk, site = run.chunk, run.site
        if outcome is Got.WRONG:
            self._choice.failed(site, wrong_bytes=True)
            chunk.errors[site] = CorruptError(
                f"blob {self._file.blake3} ({self._file.name}): chunk {chunk.index} of {site.name} is not "
                f"what its manifest says, {RETRIES + 1} times; push it again with --verify",
                chunk.index,
            )
        elif isinstance(outcome, EdgeError) and outcome.reason in _NOT_DELIVERED:
            self._choice.failed(site)
            chunk.errors[site] = outcome
            if getattr(outcome, "lasting", False):
                self._useless[site] = outcome
        elif isinstance(outcome, BaseException):
            raise outcome
        chunk.failures[site] += 1
        self._growing.pop(site, None)

    def _down(self, what: str) -> EdgeError:
        return EdgeError(
            Reason.ORIGIN_DOWN,
            f"blob {self._file.blake3} ({self._file.name}) {what}",
            source=Source.UPSTREAM,
            retryable=True,
            retry_after_s=2,
        )
