"""The manifests of this node: on disk, or brought from a node of the region, afar, or the origin.

One request under many callers. A manifest is its digest's content or it is refused, whoever
sent it. Knows nothing of the blobs that a manifest names.
"""

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Final

from edge.errors import EdgeError, Reason, Source
from edge.weights.disk import Disk
from edge.weights.fetch import Choice
from edge.weights.flights import Failures, Flights, landed
from edge.weights.layout import manifest_key
from edge.weights.manifest import DIGEST, MANIFEST_MAX_BYTES, Manifest, decode
from edge.weights.origin import Origin
from edge.weights.peersource import Peer
from edge.weights.regional import Regional
from edge.weights.sources import Site
from edge.wire import calls

#: Only for the order in which sources are asked.
_TYPICAL_BYTES: Final = 16 * 1024
Far = tuple[calls.FarSource, ...]

log = logging.getLogger(__name__)


class Manifests:
    """`known` are those on disk, decoded."""

    def __init__(
        self,
        disk: Disk,
        origin: Origin,
        threads: Executor,
        flights: Flights,
        regional: Regional,
        choice: Choice,
    ) -> None:
        self.known: dict[str, Manifest] = {}
        self._disk = disk
        self._origin = origin
        self._threads = threads
        self._flights = flights
        self._regional = regional
        self._choice = choice
        self._failures = Failures()
        self._under_way: dict[str, asyncio.Task[tuple[bytes, Manifest] | EdgeError]] = {}

    def begin(self, found: Mapping[str, Manifest]) -> None:
        """Start from what lies in the store."""
        self.known = {
            digest: known for digest, known in found.items() if manifest_key(digest) in self._disk.ledger
        }

    def forget(self, digest: str) -> None:
        """It was evicted."""
        self.known.pop(digest, None)
        self._regional.lost(digest)

    async def get(self, digest: str, far: Far = ()) -> tuple[bytes, Manifest]:
        """A manifest's bytes, digest-checked.

        Raises EdgeError: PROTOCOL for no digest, BLOB_CORRUPT, ORIGIN_DOWN.
        """
        if DIGEST.fullmatch(digest) is None:
            raise EdgeError(Reason.PROTOCOL, f"{digest[:80]!r} is no digest", source=Source.DOWNSTREAM)
        if (flight := self._under_way.get(digest)) is None:
            flight = self._flights.start(self._bring(digest, far))
            self._under_way[digest] = flight
            flight.add_done_callback(lambda _: self._under_way.pop(digest, None))
        return await landed(flight)

    async def _bring(self, digest: str, far: Far) -> tuple[bytes, Manifest]:
        if manifest_key(digest) in self._disk.ledger:
            try:
                raw = await self._disk.run(self._disk.store.read_manifest, digest)
                known = decode(raw, expect_digest=digest)
            except EdgeError as error:
                log.warning("a manifest on disk is unusable and is fetched again: %s", error.message)
            else:
                self.known[digest] = known
                return raw, known
        self._failures.check(digest)
        async with self._regional.turn(digest):
            raw, fetched = await self._fetch(digest, far)
            await self._keep(digest, raw, fetched)
        return raw, fetched

    async def _fetch(self, digest: str, far: Far) -> tuple[bytes, Manifest]:
        path = f"manifests/{digest}.json"
        nodes = self._regional.nodes_with(digest, far)
        for site in self._choice.ranked(list(nodes), _TYPICAL_BYTES):
            found = await self._from_node(site, nodes[site], path, digest)
            if found is not None:
                return found
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, self._origin.small, path, MANIFEST_MAX_BYTES)
        raw = answer.raw if answer is not None else b""
        try:
            return raw, decode(raw, expect_digest=digest)
        except EdgeError as error:
            self._failures.remember(digest, error)
            raise

    async def _from_node(
        self, site: Site, peer: Peer, path: str, digest: str
    ) -> tuple[bytes, Manifest] | None:
        loop = asyncio.get_running_loop()
        try:
            raw = await loop.run_in_executor(self._threads, peer.small, path, MANIFEST_MAX_BYTES)
            return raw, decode(raw, expect_digest=digest)
        except EdgeError as error:
            wrong_bytes = error.reason is Reason.BLOB_CORRUPT
            self._choice.failed(site, wrong_bytes=wrong_bytes)
            log.info("a manifest did not come from %s: %s", site.name, error.message)
            return None

    async def _keep(self, digest: str, raw: bytes, fetched: Manifest) -> None:
        def write() -> str:
            self._disk.store.write_manifest(digest, raw)
            return manifest_key(digest)

        try:
            await self._disk.keep(write, len(raw), f"manifest {digest}")
        except EdgeError as error:
            # It serves all the same; only the next asker has to fetch it again.
            log.warning("a manifest is not kept: %s", error.message)
        else:
            self.known[digest] = fetched
            self._regional.has(digest, len(raw))
