"""Keep on this disk what has to be kept: bring what is missing, let nothing of it be evicted.

What that is, is decided by `edge.weights.pins`. Models come one after another and file by file, so
that a request's own fetch never waits behind them; what can't be had now is tried again later.
Lives in the event loop. Knows no links and no index.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.weights.catalogue import Catalogues
from edge.weights.hydrate import Hydrator
from edge.weights.layout import Found, blob_key, manifest_key
from edge.weights.manifest import Catalogue, Manifest, decode_catalogue
from edge.weights.pins import MAX_PINS, decode_pins, encode_pins, floor

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
        self._region = region
        self._node = node
        self._nodes = nodes
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
        """Keep this model from now on, over restarts; or no more. Raises EdgeError.

        A model that is not here comes in the background.
        """
        if pinned:
            await self._hydrator.manifests.get(digest)
        if pinned and len(self.pinned | {digest}) > MAX_PINS:
            raise EdgeError(
                Reason.BAD_REQUEST,
                f"{MAX_PINS} models are pinned already; unpin one first",
                source=Source.DOWNSTREAM,
            )
        # Before it is written: others may pin meanwhile, and what is written last has to hold all of them.
        self._pin(digest, pinned=pinned)
        raw = encode_pins(self.pinned)
        disk = self._hydrator.disk

        def write() -> str:
            disk.store.write_pins(raw)
            return "pins.json"

        try:
            await disk.keep(write, len(raw), "pins.json")
        except EdgeError:
            self._pin(digest, pinned=not pinned)
            raise
        self._choose()
        self.wake()

    def _pin(self, digest: str, *, pinned: bool) -> None:
        self.pinned = self.pinned | {digest} if pinned else self.pinned - {digest}

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
            floor(catalogue, self._region, self._node, self._nodes())
            if catalogue is not None
            else frozenset()
        )
        wanted = self.pinned | self.kept
        for digest in [digest for digest in self._protected if digest not in wanted]:
            now_ms = clock.now_ms()
            for key in self._protected.pop(digest):
                self._hydrator.disk.ledger.unpin(key, now_ms)
        for digest in wanted:
            if (known := self._hydrator.manifests.known.get(digest)) is not None:
                self._protect(digest, known)

    def _protect(self, digest: str, manifest: Manifest) -> None:
        if digest not in self._protected:
            blobs = {blob_key(file.blake3) for file in manifest.files}
            self._protected[digest] = [manifest_key(digest), *blobs]
            for key in self._protected[digest]:
                self._hydrator.disk.ledger.pin(key)

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
                if not before_ms:
                    log.warning("%s has to be kept here and is not: %s", digest, error.message)
            else:
                self._backoff.pop(digest, None)
                log.info("kept here from now on: %s", digest)
            return True
        return False

    def _is_here(self, digest: str) -> bool:
        ledger = self._hydrator.disk.ledger
        return digest in self._protected and all(key in ledger for key in self._protected[digest])

    async def _bring(self, digest: str) -> None:
        _, manifest = await self._hydrator.manifests.get(digest)
        if digest not in self.pinned | self.kept:
            return
        self._protect(digest, manifest)
        for file in manifest.files:
            await self._hydrator.bring({file.blake3: file})
