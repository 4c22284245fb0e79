"""An operator's acts on models by name and version, for both planes, told as documents.

`edge.proxy.acts` does them by digest; who may ask is settled before.
"""

from typing import Any, Final

import msgspec

from edge.errors import EdgeError, Reason, Source
from edge.fleet.snapshot import Fleet
from edge.proxy.acts import Act, Acts, Place
from edge.proxy.elsewhere import Elsewhere
from edge.proxy.models import Models, Resolved

SCHEMA_VERSION: Final = 1


class ModelActs:
    """Prefetch, verify, evict, pin.

    Each raises EdgeError: UNKNOWN_MODEL, NO_CATALOGUE, and what the act itself does.

    `version` "" is the current one. A worker is an endpoint's name, or its number on this node.
    """

    def __init__(self, acts: Acts, models: Models, fleet: Fleet, elsewhere: Elsewhere) -> None:
        self._acts = acts
        self._models = models
        self._fleet = fleet
        self._elsewhere = elsewhere

    async def prefetch(self, model: str, version: str, tier: Place, worker: str = "") -> dict[str, Any]:
        """Bring it to this node. Raises EdgeError(CONFINED) for a device where it may not run."""
        found = self._models.resolve(model, version)
        region = self._fleet.region
        if tier == "device" and found.confine and region not in found.confine:
            text = f"{model} is confined to {', '.join(sorted(found.confine))}; this node is in {region}"
            raise EdgeError(Reason.CONFINED, text, source=Source.DOWNSTREAM)
        far = self._fleet.far_sources(found.digest)
        done = await self._acts.prefetch(found.digest, tier, worker=self._endpoint(worker), far=far)
        return _told(found, done)

    async def prefetch_at(
        self, model: str, version: str, nodes: tuple[str, ...], region: str
    ) -> dict[str, Any]:
        """Bring it to the disks of these nodes, and of all of a region."""
        found = self._models.resolve(model, version)
        rows = await self._elsewhere.bring(found.digest, self._elsewhere.chosen(nodes, region))
        return {**_names(found), "digest": found.digest, "nodes": rows}

    async def verify(self, digest: str) -> dict[str, Any]:
        """Read one on this disk again, whether the catalogue names it or not."""
        done, left, stayed = await self._acts.verify(digest)
        told = {"schema_version": SCHEMA_VERSION, "digest": digest, **msgspec.structs.asdict(done)}
        return {**told, "left_devices": left, "still_mapped": stayed}

    async def collect(self, *, dry_run: bool) -> dict[str, Any]:
        """What nobody needs leaves this disk, or would."""
        done = await self._acts.collect(dry_run=dry_run)
        return {"schema_version": SCHEMA_VERSION, "dry_run": dry_run, **msgspec.structs.asdict(done)}

    async def evict(self, model: str, version: str, tier: Place, worker: str = "") -> dict[str, Any]:
        """Off this node's devices, one of them, or its disk."""
        found = self._models.resolve(model, version)
        return _told(found, await self._acts.evict(found.digest, tier, worker=self._endpoint(worker)))

    async def pin(self, model: str, version: str, *, pinned: bool) -> dict[str, Any]:
        """Kept on this node until told otherwise, or no longer."""
        found = self._models.resolve(model, version)
        return _told(found, await self._acts.pin(found.digest, pinned))

    def _endpoint(self, worker: str) -> str:
        number = worker.removeprefix("worker-")
        return f"{self._fleet.node}/{number}" if number.isdecimal() else worker


def _names(found: Resolved) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "model": found.model, "version": found.version}


def _told(found: Resolved, done: Act) -> dict[str, Any]:
    return {**_names(found), **msgspec.structs.asdict(done)}
