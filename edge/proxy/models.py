"""Which models there are: the catalogue and the manifests as the weight store has them.

Absent from the catalogue is "unknown"; never having seen a catalogue is "not now". The
request path reads what is in memory; only metadata calls wait for a manifest.
"""

import asyncio
import logging
from collections import OrderedDict
from typing import Final

from edge.errors import EdgeError, Reason, Source
from edge.weights.manifest import Catalogue, Manifest, decode, decode_catalogue
from edge.wire import calls
from edge.wire.dial import Dialer

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
#: Until the first catalogue: a cold node should not wait a whole poll for it.
FIRST_POLL_S: Final = 0.1
MAX_MANIFESTS: Final = 256


class Models:
    """The catalogue in memory, kept fresh from the weight store."""

    def __init__(self, store: Dialer) -> None:
        self._store = store
        self._digest = ""
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()
        self._resolved: dict[tuple[str, str], tuple[str, str]] = {}
        self._seen = asyncio.Event()
        self.catalogue: Catalogue | None = None
        self.origin_up = False

    async def run(self) -> None:
        """Ask the store for a newer catalogue until cancelled."""
        while True:
            try:
                await self.refresh()
            except EdgeError as error:
                log.debug("no catalogue: %s", error)
            await asyncio.sleep(FIRST_POLL_S if self.catalogue is None else POLL_S)

    async def wait_until_seen(self, within_s: float) -> None:
        """Return when there is a catalogue, or when the time is up."""
        try:
            async with asyncio.timeout(within_s):
                await self._seen.wait()
        except TimeoutError:
            log.warning("no catalogue yet", extra={"store": self._store.last_error})

    async def refresh(self) -> None:
        """Take over a newer catalogue; one that can't be read changes nothing. Raises EdgeError."""
        reply = await self._store.shared().request(calls.Catalogue(newer_than=self._digest), timeout_s=5.0)
        head = reply.head
        if not isinstance(head, calls.CatalogueState):
            raise EdgeError(Reason.PROTOCOL, "the weight store answered something else")
        self.origin_up = head.origin_up
        body = await reply.whole()
        if not body:
            return
        self.catalogue = decode_catalogue(body)
        self._digest = head.digest
        self._seen.set()
        self._resolved = {}
        for name, model in self.catalogue.models.items():
            self._resolved[name, ""] = (model.current, model.versions[model.current])
            for version, digest in model.versions.items():
                self._resolved[name, version] = (version, digest)
        log.info("catalogue", extra={"epoch": head.epoch, "models": len(self.catalogue.models)})

    def resolve(self, model: str, version: str) -> tuple[str, str]:
        """(version, manifest digest). Raises EdgeError UNKNOWN_MODEL (404) or NO_CATALOGUE (503)."""
        found = self._resolved.get((model, version))
        if found is not None:
            return found
        if self.catalogue is None:
            raise self.none_seen()
        if model in self.catalogue.models:
            known = ", ".join(sorted(self.catalogue.models[model].versions))
            text = f"unknown version of model {model}; versions: {known}"
        else:
            text = "unknown model; GET /v2/repository/index lists them with POST"
        raise EdgeError(Reason.UNKNOWN_MODEL, text, source=Source.DOWNSTREAM)

    @staticmethod
    def none_seen() -> EdgeError:
        """What is answered before the first catalogue."""
        text = "this node has not seen a catalogue yet; its origin may be away"
        return EdgeError(Reason.NO_CATALOGUE, text, retry_after_s=2)

    def remember(self, digest: str, raw: bytes) -> Manifest:
        """A manifest, decoded once. Raises EdgeError when it is not what its digest says."""
        found = self._manifests.get(digest)
        if found is None:
            found = decode(raw, expect_digest=digest)
            self._manifests[digest] = found
            if len(self._manifests) > MAX_MANIFESTS:
                self._manifests.popitem(last=False)
        return found

    async def manifest(self, digest: str) -> Manifest:
        """The manifest with this digest, from memory or the store. Raises EdgeError."""
        found = self._manifests.get(digest)
        if found is not None:
            return found
        reply = await self._store.shared().request(calls.GetManifest(digest=digest), timeout_s=10.0)
        return self.remember(digest, await reply.whole())
