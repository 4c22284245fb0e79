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
from edge.wire import calls

SCHEMA_VERSION: Final = 1


class ModelActs:
    """Prefetch, verify, evict, pin.

    Each raises EdgeError: UNKNOWN_MODEL, NO_CATALOGUE, and what the act itself does.

    `version` "" is the current one. What lies on this disk is found also when the catalogue does not name
    it any more, and by its digest. A worker is an endpoint's name, or its number on this node.
    """

    def __init__(self, acts: Acts, models: Models, fleet: Fleet, elsewhere: Elsewhere) -> None:
        self._acts = acts
        self._models = models
        self._fleet = fleet
        self._elsewhere = elsewhere

    async def prefetch(self, model: str, version: str, tier: Place, worker: str = "") -> dict[str, Any]:
        """Bring it to this node. Raises EdgeError(CONFINED) for a device where it may not run."""
        found = self._models.resolve(model, version)
        _check_worker(tier, worker)
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

    async def verify(self, digest: str, blob: int | None = None) -> dict[str, Any]:
        """Read one on this disk again, whether the catalogue names it or not; or one blob of it."""
        done, left, stayed = await self._acts.verify(digest, blob)
        told = {"schema_version": SCHEMA_VERSION, "digest": digest, **msgspec.structs.asdict(done)}
        return {**told, "left_devices": left, "still_mapped": stayed}

    async def collect(self, *, dry_run: bool) -> dict[str, Any]:
        """What nobody needs leaves this disk, or would."""
        done = await self._acts.collect(dry_run=dry_run)
        return {"schema_version": SCHEMA_VERSION, "dry_run": dry_run, **msgspec.structs.asdict(done)}

    async def evict(self, model: str, version: str, tier: Place, worker: str = "") -> dict[str, Any]:
        """Off this node's devices, one of them, or its disk."""
        _check_worker(tier, worker)
        found = await self._find(model, version)
        return _told(found, await self._acts.evict(found.digest, tier, worker=self._endpoint(worker)))

    async def pin(self, model: str, version: str, *, pinned: bool) -> dict[str, Any]:
        """Kept on this node until told otherwise, or no longer: then every version of it that was pinned,
        or the one that is named.
        """
        if pinned:
            found = await self._find(model, version)
            return _told(found, await self._acts.pin(found.digest, True))
        mine = [one for one in await self._stored(model, version) if one.pinned]
        if not mine:
            found = await self._find(model, version)
            done = await self._acts.pin(found.digest, False)
            done.outcome = "absent"
            return _told(found, done)
        told = [_told(self._named(one), await self._acts.pin(one.digest, False)) for one in mine]
        return {**told[-1], "versions": sorted(row["version"] for row in told)}

    async def _find(self, model: str, version: str) -> Resolved:
        """As the catalogue has it; else as the one that lies here. Raises EdgeError as `Models.resolve`."""
        try:
            return self._models.resolve(model, version)
        except EdgeError:
            found = await self._stored(model, version)
            if len(found) != 1:
                raise
            return self._named(found[0])

    async def _stored(self, model: str, version: str) -> list[calls.StoredModel]:
        """Of this name, or of this digest, on this disk; "" is every version."""
        found = []
        for one in await self._acts.stored():
            named = self._named(one)
            if model in (one.digest, one.model, named.model) and version in ("", one.version, named.version):
                found.append(one)
        return found

    def _named(self, one: calls.StoredModel) -> Resolved:
        known = self._models.of_digest(one.digest)
        return known or Resolved(one.version, one.digest, one.total_bytes, frozenset(), one.model)

    def _endpoint(self, worker: str) -> str:
        number = worker.removeprefix("worker-")
        return f"{self._fleet.node}/{number}" if number.isdecimal() else worker


def _check_worker(tier: Place, worker: str) -> None:
    if worker and tier == "disk":
        text = (
            f"worker {worker!r}: a disk is the node's, not a worker's; leave it out, or ask for tier device"
        )
        raise EdgeError(Reason.BAD_REQUEST, text, source=Source.DOWNSTREAM)


def _names(found: Resolved) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "model": found.model, "version": found.version}


def _told(found: Resolved, done: Act) -> dict[str, Any]:
    return {**_names(found), **msgspec.structs.asdict(done)}
