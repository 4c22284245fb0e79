"""Keep on this disk what has to be kept: bring what is missing, let nothing of it be evicted.

What that is, is decided by `edge.weights.pins`. Models come one after another and file by file, so
that a request's own fetch never waits behind them; what can't be had now is tried again later. For a
model that can't fit whole nothing goes, and nothing of it is kept.
Lives in the event loop. Knows no links and no index.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.weights.catalogue import Catalogues
from edge.weights.flights import Flights, landed
from edge.weights.hydrate import Hydrator
from edge.weights.ingest import ingest_bytes
from edge.weights.layout import Found, blob_key, ingest_key, manifest_key
from edge.weights.manifest import Catalogue, Manifest, decode_catalogue
from edge.weights.pins import MAX_PINS, Lately, decode_pins, encode_pins, floor

LOOK_S: Final = 1.0
BACKOFF_MS: Final = 1_000.0
MAX_BACKOFF_MS: Final = 60_000.0
#: An index that is only starting is waited for before every node brings what some would do for.
INDEX_PATIENCE_MS: Final = 5_000.0

log = logging.getLogger(__name__)


class Floors:
    """Pins and floors of one node. `pinned` and `kept` are manifest digests."""

    def __init__(
        self,
        hydrator: Hydrator,
        catalogues: Catalogues,
        flights: Flights,
        *,
        region: str,
        node: str,
        shares: bool,
        nodes: Callable[[], Collection[str] | None],
    ) -> None:
        """`nodes` are those of the region that live, None while unknown; `shares`: will it be known?"""
        self.pinned: frozenset[str] = frozenset()
        self.kept: frozenset[str] = frozenset()
        self._hydrator = hydrator
        self._catalogues = catalogues
        self._flights = flights
        self._region = region
        self._node = node
        self._nodes = nodes
        self._lately = Lately()
        self._writing = asyncio.Lock()
        self._patient_until_ms = clock.now_ms() + (INDEX_PATIENCE_MS if shares else 0.0)
        self._catalogue: tuple[str, Catalogue | None] = ("", None)
        self._protected: dict[str, list[str]] = {}
        self._backoff: dict[str, tuple[float, float]] = {}
        self._awake = asyncio.Event()

    def begin(self, found: Found) -> None:
        """Protect what is here already, before anything is evicted."""
        if found.pins is not None:
            try:
                self.pinned = decode_pins(found.pins)
            except ValueError as error:
                log.warning("nothing is pinned: %s; pin anew what should be", error)
        self._choose()

    def wake(self) -> None:
        """Something changed: look at once."""
        self._awake.set()

    async def run(self) -> None:
        """Bring what is missing, until cancelled."""
        while True:
            self._awake.clear()
            self._choose()
            if not await self._bring_one():
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._awake.wait()
                except TimeoutError:
                    pass

    async def pin(self, digest: str, *, pinned: bool) -> None:
        """Keep this model from now on, over restarts; or no more. Raises EdgeError; then nothing changed.

        A model that is not here comes in the background, unless it can never fit.
        """
        if pinned:
            await self._hydrator.manifests.get(digest)
        await landed(self._flights.start(self._pin(digest, pinned=pinned)))
        self._choose()
        self.wake()

    async def _pin(self, digest: str, *, pinned: bool) -> None:
        async with self._writing:
            if pinned and digest not in self.pinned:
                self._check_can_be_pinned(digest)
            after = self.pinned | {digest} if pinned else self.pinned - {digest}
            raw = encode_pins(after)
            disk = self._hydrator.disk

            def write() -> str:
                disk.store.write_pins(raw)
                return "pins.json"

            await disk.keep(write, len(raw), "pins.json")
            self.pinned = after

    def _check_can_be_pinned(self, digest: str) -> None:
        if len(self.pinned) >= MAX_PINS:
            raise EdgeError(
                Reason.BAD_REQUEST,
                f"{MAX_PINS} models are pinned already; unpin one first",
                source=Source.DOWNSTREAM,
            )
        known = self._hydrator.manifests.known
        kept = [known[one] for one in {*self.pinned, *self._protected, digest} if one in known]
        files = {file.blake3: file.size_bytes for manifest in kept for file in manifest.files}
        kept_bytes, capacity_bytes = sum(files.values()), self._hydrator.disk.ledger.capacity_bytes
        if kept_bytes > capacity_bytes:
            raise EdgeError(
                Reason.NO_SPACE,
                f"{digest} can't be kept here: with what is pinned and kept already that is {kept_bytes} "
                f"bytes, weights.disk_bytes is {capacity_bytes}; unpin another one first",
            )

    def check_free(self, digest: str) -> None:
        """Raises EdgeError(BAD_REQUEST) for a model that this disk has to keep."""
        if digest in self.pinned:
            why = "is pinned; unpin it first"
        elif digest in self.kept:
            why = f"is kept in {self._region} by the catalogue; publish it without that floor first"
        else:
            return
        raise EdgeError(Reason.BAD_REQUEST, f"{digest} {why}", source=Source.DOWNSTREAM)

    # --- deciding

    def _choose(self) -> None:
        """What has to be kept now; what is known of it is protected, the rest is given free."""
        state, raw = self._catalogues.state(self._catalogue[0])
        if state.digest != self._catalogue[0]:
            published = decode_catalogue(raw)
            self._catalogue = state.digest, published
            if (appraiser := self._hydrator.disk.appraiser) is not None:
                current = {model.versions[model.current] for model in published.models.values()}
                appraiser.published(current, clock.now_ms())
            self._backoff.clear()
        catalogue = self._catalogue[1]
        self.kept = (
            floor(catalogue, self._region, self._node, self._lately.of(self._nodes(), clock.now_ms()))
            if catalogue is not None
            else frozenset()
        )
        wanted = self.pinned | self.kept
        for digest in [digest for digest in self._protected if digest not in wanted]:
            self._unprotect(digest)
        for digest in wanted:
            known = self._hydrator.manifests.known.get(digest)
            if known is not None and all(map(self._has, _keys(digest, known))):
                self._protect(digest, known)

    def _protect(self, digest: str, manifest: Manifest) -> None:
        if digest not in self._protected:
            self._protected[digest] = _keys(digest, manifest)
            for key in self._protected[digest]:
                self._hydrator.disk.ledger.pin(key)

    def _unprotect(self, digest: str) -> None:
        for key in self._protected.pop(digest, ()):
            self._hydrator.disk.ledger.unpin(key, clock.now_ms())

    def _has(self, key: str) -> bool:
        return key in self._hydrator.disk.ledger

    # --- bringing

    async def _bring_one(self) -> bool:
        """Bring one model that is missing and whose time has come; False if there is none."""
        now_ms = clock.now_ms()
        early = self._nodes() is None and now_ms < self._patient_until_ms
        wanted = self.pinned if early else self.pinned | self.kept
        for digest in sorted(wanted):
            if self._is_here(digest) or self._backoff.get(digest, (0.0, 0.0))[0] > now_ms:
                continue
            try:
                await self._bring(digest)
            except EdgeError as error:
                _, before_ms = self._backoff.get(digest, (0.0, 0.0))
                wait_ms = min(max(2 * before_ms, BACKOFF_MS), MAX_BACKOFF_MS)
                self._backoff[digest] = clock.now_ms() + wait_ms, wait_ms
                if error.reason is Reason.NO_SPACE and not self._is_here(digest):
                    self._unprotect(digest)
                if not before_ms:
                    log.warning("%s has to be kept here and is not: %s", digest, error.message)
            else:
                self._backoff.pop(digest, None)
                log.info("kept here from now on: %s", digest)
            return True
        return False

    def _is_here(self, digest: str) -> bool:
        return digest in self._protected and all(map(self._has, self._protected[digest]))

    async def _bring(self, digest: str) -> None:
        _, manifest = await self._hydrator.manifests.get(digest)
        if digest not in self.pinned | self.kept:
            return
        self._check_fits(digest, manifest)
        self._protect(digest, manifest)
        for file in manifest.files:
            await self._hydrator.bring({file.blake3: file})

    def _check_fits(self, digest: str, manifest: Manifest) -> None:
        """Raises EdgeError(NO_SPACE) unless all that is missing fits beside what may not go now."""
        ledger = self._hydrator.disk.ledger
        mine = set(_keys(digest, manifest))
        missing = {file.blake3: ingest_bytes(file) for file in manifest.files}
        missing = {blob: size for blob, size in missing.items() if blob_key(blob) not in ledger}
        began = set(map(ingest_key, missing))
        stays_bytes = sum(
            entry.size_bytes
            for entry in ledger.entries()
            if (entry.key in mine or not entry.movable) and entry.key not in began
        )
        wanted_bytes = sum(missing.values())
        if stays_bytes + wanted_bytes > ledger.capacity_bytes:
            raise EdgeError(
                Reason.NO_SPACE,
                f"{manifest.name}: {wanted_bytes} bytes do not fit beside the {stays_bytes} that may not go: "
                f"weights.disk_bytes is {ledger.capacity_bytes}; unpin what need not be here",
            )


def _keys(digest: str, manifest: Manifest) -> list[str]:
    return [manifest_key(digest), *{blob_key(file.blake3) for file in manifest.files}]
