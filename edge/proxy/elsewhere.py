"""Bring a model to the disks of other nodes of the fleet, and let them ask the same of this one.

The mesh's certificate is the right to ask: any node of the fleet may have any other bring a model of
the catalogue, at most MAX_BRINGS at a time. What it costs there is that node's own disk budget and
its region's one fetch; nothing is evicted that is pinned or in use, and nothing is loaded.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.fleet.peers import Peer
from edge.fleet.snapshot import Fleet
from edge.proxy.acts import Act, Acts
from edge.proxy.holds import FETCH_MS, SILENT_S
from edge.proxy.models import Models
from edge.wire import calls

#: Models that this node brings for others at once; more are refused, and may be asked again.
MAX_BRINGS: Final = 4
#: Nodes that are asked at once.
MAX_ASKED: Final = 16

log = logging.getLogger(__name__)


class Elsewhere:
    """Both sides of the call."""

    def __init__(
        self, node: str, acts: Acts, models: Models, fleet: Fleet, peers: Mapping[str, Peer]
    ) -> None:
        self._node = node
        self._acts = acts
        self._models = models
        self._fleet = fleet
        self._peers = peers
        self._bringing: set[asyncio.Task[Act]] = set()

    # --- asking

    def chosen(self, nodes: tuple[str, ...], region: str) -> tuple[str, ...]:
        """The named nodes and those of a region, this one included. Raises EdgeError for unknown ones."""
        regions = {name: view.beacon.region for name, view in self._fleet.nodes.items()}
        regions[self._node] = self._fleet.region
        known = set(self._peers) | {self._node}
        for name in nodes:
            if name not in known:
                text = f"no node {name!r} is known here; there are: {', '.join(sorted(known))}"
                raise EdgeError(Reason.NO_ENDPOINT, text, source=Source.DOWNSTREAM)
        found = {name for name, its in regions.items() if its == region} if region else set()
        if region and not found:
            there = ", ".join(sorted(set(regions.values())))
            text = f"no node of region {region!r} was heard of; there are: {there}"
            raise EdgeError(Reason.NO_ENDPOINT, text, source=Source.DOWNSTREAM)
        return tuple(sorted({*nodes, *found}))

    async def bring(self, digest: str, nodes: tuple[str, ...]) -> list[dict[str, Any]]:
        """Ask these nodes; one row per node, with `problem` where it failed. Never raises EdgeError."""
        turns = asyncio.Semaphore(MAX_ASKED)

        async def one(name: str) -> dict[str, Any]:
            async with turns:
                began_ms = clock.now_ms()
                row: dict[str, Any] = {"node": name, "outcome": "on-disk"}
                try:
                    there = await self._bring_at(name, digest)
                    row |= {"residency": there.residency, "moved_bytes": there.moved_bytes}
                except EdgeError as error:
                    row |= {"outcome": "failed", "problem": error.message}
                return {**row, "ms": round(clock.now_ms() - began_ms, 3)}

        return list(await asyncio.gather(*(one(name) for name in nodes)))

    async def _bring_at(self, name: str, digest: str) -> calls.Ensured:
        if name == self._node:
            return await self._bring_here(digest)
        head = calls.Ensure(digest=digest, deadline_ms=FETCH_MS, hold=False)
        link = self._peers[name].dialer.shared()
        reply = await link.request(head, timeout_s=FETCH_MS / 1000.0 + SILENT_S)
        await reply.whole()
        if not isinstance(reply.head, calls.Ensured):
            raise EdgeError(Reason.PROTOCOL, f"{name} answered something else", source=Source.UPSTREAM)
        return reply.head

    # --- being asked

    async def asked(self, call: calls.Ensure) -> calls.Ensured:
        """Another node asks. What it says of sources and deadlines is not taken from it.

        Raises EdgeError: PROTOCOL for a hold, which only this node's own proxy may have; UNKNOWN_MODEL;
        BUSY, retryable, above MAX_BRINGS; and what a prefetch raises.
        """
        if call.hold:
            raise EdgeError(Reason.PROTOCOL, "the mesh gives no holds", source=Source.DOWNSTREAM)
        if self._models.of_digest(call.digest) is None:
            text = f"{call.digest[:64]!r} is in no catalogue that {self._node} knows"
            raise EdgeError(Reason.UNKNOWN_MODEL, text, source=Source.DOWNSTREAM)
        if len(self._bringing) >= MAX_BRINGS:
            text = f"{self._node} brings {MAX_BRINGS} models for others already"
            raise EdgeError(Reason.BUSY, text, retryable=True, retry_after_s=2)
        return await self._bring_here(call.digest)

    async def _bring_here(self, digest: str) -> calls.Ensured:
        """Who asked may leave; the store goes on, and it counts until that has ended."""
        far = self._fleet.far_sources(digest)
        task = asyncio.get_running_loop().create_task(self._acts.prefetch(digest, "disk", far=far))
        self._bringing.add(task)
        task.add_done_callback(self._ended)
        done = await asyncio.shield(task)
        return calls.Ensured(done.residency, done.moved_bytes, done.ms)

    def _ended(self, task: asyncio.Task[Act]) -> None:
        self._bringing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a model asked for by another node was not brought: %s", error)
