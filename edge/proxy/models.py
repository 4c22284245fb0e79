"""Which models there are: the catalogue and the manifests as the weight store has them.

Absent from the catalogue is "unknown"; never having seen a catalogue is "not now". The
request path reads what is in memory; only metadata calls wait for a manifest.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, NamedTuple

from edge.errors import EdgeError, Reason, Source
from edge.policy.hydration import Needs
from edge.weights.manifest import Catalogue, Manifest, decode, decode_catalogue
from edge.wire import calls
from edge.wire.dial import Dialer

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
#: Until the first catalogue: a cold node should not wait a whole poll for it.
FIRST_POLL_S: Final = 0.1
MAX_MANIFESTS: Final = 256


class Resolved(NamedTuple):
    """One version of a model as the catalogue has it; `weights_bytes` 0 if it does not say."""

    version: str
    digest: str
    weights_bytes: int
    confine: frozenset[str]
    model: str


class Models:
    """The catalogue in memory, kept fresh from the weight store."""

    def __init__(self, store: Dialer) -> None:
        self._store = store
        self._digest = ""
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()
        self._resolved: dict[tuple[str, str], Resolved] = {}
        self._by_digest: dict[str, Resolved] = {}
        self._needs: Mapping[str, Needs] = {}
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
        self._resolved, self._by_digest = {}, {}
        for name, model in self.catalogue.models.items():
            confine = frozenset(model.confine)
            for version, digest in model.versions.items():
                found = Resolved(version, digest, model.sizes.get(version, 0), confine, name)
                self._resolved[name, version] = self._by_digest[digest] = found
            self._resolved[name, ""] = self._resolved[name, model.current]
        self._needs = {
            digest: Needs(self._device_bytes(found), found.confine)
            for digest, found in self._by_digest.items()
        }
        log.info("catalogue", extra={"epoch": head.epoch, "models": len(self.catalogue.models)})

    def confine_of(self, model: str) -> frozenset[str]:
        """Regions to which a model is confined, empty for none."""
        found = self._resolved.get((model, ""))
        return found.confine if found is not None else frozenset()

    def knows(self, model: str) -> bool:
        """Does the catalogue name it?"""
        return (model, "") in self._resolved

    def name_of(self, digest: str) -> str:
        """What people call a manifest; "" if the catalogue does not name it."""
        found = self._by_digest.get(digest)
        return found.model if found is not None else ""

    def needs(self) -> Mapping[str, Needs]:
        """What each version of each model asks of a device, by digest."""
        return self._needs

    @property
    def by_digest(self) -> Mapping[str, Resolved]:
        """All that the catalogue names."""
        return self._by_digest

    def of_digest(self, digest: str) -> Resolved | None:
        """What the catalogue says of a manifest; None if it does not name it."""
        return self._by_digest.get(digest)

    def _device_bytes(self, found: Resolved) -> int:
        """What it takes on a device: its manifest says so; until that is known, the bytes of its files."""
        manifest = self._manifests.get(found.digest)
        return max(manifest.device_bytes, manifest.size_bytes) if manifest else found.weights_bytes

    def resolve(self, model: str, version: str) -> Resolved:
        """A version of a model; "" for the current one. Raises EdgeError(UNKNOWN_MODEL or NO_CATALOGUE)."""
        found = self._resolved.get((model, version))
        if found is not None:
            return found
        if self.catalogue is None:
            raise self.none_seen()
        if model in self.catalogue.models:
            known = ", ".join(sorted(self.catalogue.models[model].versions, key=int))
            text = f"unknown version of model {model}; versions: {known}"
        else:
            text = (
                f"unknown model {model[:128]!r}; POST /v2/repository/index and `popctl models ls` list them"
            )
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
            known = self._by_digest.get(digest)
            if known is not None:
                self._needs = {**self._needs, digest: Needs(self._device_bytes(known), known.confine)}
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
