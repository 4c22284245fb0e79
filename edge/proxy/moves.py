"""Each step of a model on a device, told to whom it concerns: the fleet's books and the holds.

The one place that moves entries of the book, so that what a beacon says, what is held in the
weight store and what the book says stay one. Talks to nobody over a link.
"""

import logging
from collections.abc import Callable
from typing import Final

from edge import clock
from edge.fleet.own import OwnWorker
from edge.policy.estimate import NETWORK
from edge.policy.facts import Tier
from edge.policy.score import UNKNOWN_WEIGHTS_BYTES
from edge.proxy.device import LOADING, Book, Entry, LoadTimes, OnDevice, Stage, lost
from edge.proxy.estimates import Estimates
from edge.proxy.holds import Holds
from edge.weights.manifest import Manifest
from edge.wire import calls

log: Final = logging.getLogger(__name__)


class Moves:
    """The book of one worker, with those who want to know of its changes."""

    def __init__(
        self,
        book: Book,
        holds: Holds,
        endpoint: OwnWorker,
        *,
        nearest: Callable[[str], tuple[Tier, int]],
        estimates: Estimates,
    ) -> None:
        self.book = book
        self.times = LoadTimes()
        self._holds = holds
        self._endpoint = endpoint
        self._nearest = nearest
        self._estimates = estimates

    def begin(self, digest: str, model: str, victims: frozenset[str] | None) -> Entry:
        """It sets out for the device; `victims` as in Entry."""
        entry = self.book.begin(digest, model, clock.now_ms())
        entry.victims = victims
        entry.expected_ms = self._expect(entry)
        return entry

    def fetched(self, entry: Entry, manifest: Manifest) -> None:
        """Its blobs are here; from now on only loads stand before it."""
        entry.load_ms = self.times.expect_ms(entry.digest, manifest.size_bytes)
        self.to(entry, Stage.QUEUED)

    def opened(self, entry: Entry, manifest: Manifest, loaded: calls.Loaded) -> None:
        """It is on the device."""
        entry.device_bytes, entry.load_ms = loaded.device_bytes, loaded.load_ms
        entry.used_at_ms = clock.now_ms()
        entry.loading = None
        self.times.observe(entry.digest, manifest.size_bytes, loaded.load_ms)
        self.to(entry, Stage.RESIDENT)
        self._endpoint.resident(entry.digest, loaded.load_ms, loaded.device_bytes)

    def to(self, entry: Entry, stage: Stage) -> None:
        """Any other step."""
        self.book.move(entry, stage, clock.now_ms())
        if stage in LOADING:
            self._expect(entry)
        elif stage is Stage.LEAVING:
            self._endpoint.gone(entry.digest)
        self.tell_load()

    def gone(self, entry: Entry) -> None:
        """It is not on the device any more, or never came there; its hold is given back."""
        if entry.stage is Stage.GONE:
            return
        was_leaving = entry.stage is Stage.LEAVING
        self.book.move(entry, Stage.GONE, clock.now_ms())
        self._holds.give_back(entry)
        if not was_leaving:
            self._endpoint.gone(entry.digest)
        if entry.on_idle is not None and not entry.on_idle.done():
            entry.on_idle.set_result(None)
        self.tell_load()

    def adopt(self, state: calls.WorkerState) -> None:
        """What the worker says of its device is true."""
        adopted = self.book.adopt(
            [OnDevice(model.digest, model.model, model.device_bytes) for model in state.models],
            used_bytes=state.used_bytes,
            limit_bytes=state.device_bytes,
            now_ms=clock.now_ms(),
        )
        for ghost in adopted.ghosts:
            self._endpoint.resident(ghost.digest, device_bytes=ghost.device_bytes)
        for phantom in adopted.phantoms:
            log.warning("the worker lacks it", extra={"digest": phantom.digest})
            self.gone(phantom)
        if adopted.ghosts:
            self._holds.wake()
        self.tell_load()

    def worker_lost(self) -> None:
        """Its models went with it; what is still on its way to this disk goes on to the next worker."""
        for entry in lost(self.book.entries()):
            self.gone(entry)
        self.book.other_bytes = 0

    def expect_all(self) -> None:
        """Tell again what is on its way: the fleet's books forget it with a worker's state."""
        for entry in self.book.entries():
            if entry.stage in LOADING:
                self._expect(entry)

    def expect_fetches(self) -> None:
        """Tell again of what is being fetched: the weight store said how far it is."""
        for entry in self.book.entries():
            if entry.stage is Stage.FETCHING:
                self._expect(entry)

    def tell_load(self) -> None:
        """How full the device is, and when it could load another model."""
        self._endpoint.used_bytes = self.book.used_bytes
        self._endpoint.loader_wait(self.book.loader_wait_ms(clock.now_ms()))

    def _expect(self, entry: Entry) -> float:
        """Tell in how many ms it will be there: bytes that are missing, loads before it, its own load."""
        now_ms = clock.now_ms()
        ready_at_ms = now_ms + self.book.loader_wait_ms(now_ms)
        if entry.stage is Stage.FETCHING:
            source, known_bytes = self._nearest(entry.digest)
            missing_bytes = known_bytes or UNKNOWN_WEIGHTS_BYTES
            entry.load_ms = self.times.expect_ms(entry.digest, missing_bytes)
            if source in NETWORK and not entry.expected_ms:
                self._estimates.begins(entry.digest, missing_bytes)
            fetched_at_ms = now_ms + self._estimates.fetch_ms(entry.digest, source, missing_bytes)
            ready_at_ms = max(fetched_at_ms, ready_at_ms) + entry.load_ms
        self._endpoint.loading(entry.digest, ready_at_ms)
        return ready_at_ms - now_ms
