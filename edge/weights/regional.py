"""One fetch per region: who has a blob, and whose turn it is to bring it in.

Before a node takes bytes from outside its region it asks the region's index for the blob's lease.
While another node has it, this one waits for that node's copy. The lease is an economy, never a
safety: what is fetched twice is the same immutable bytes twice. Without the index, nodes agree
by rendezvous and a short patience. Knows no disk and moves no bytes.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterable
from typing import Final

from edge import clock
from edge.background import Background
from edge.errors import EdgeError, Reason, Source
from edge.weights.fetch import Ranges
from edge.weights.index import Away, Index, Taken
from edge.weights.mirror import Holder, leader
from edge.weights.origin import Origin
from edge.weights.peersource import Peer, Peers
from edge.weights.sources import ORIGIN, Kind, Site
from edge.weights.teller import Lease
from edge.wire import calls

#: Another node is followed for as long as it renews its lease, but no longer than this.
FOLLOW_MAX_S: Final = 600.0
FOLLOW_TURN_S: Final = 1.0
#: Without the index: how long the node whose turn it would be is waited for.
PATIENCE_S: Final = 2.0
#: A copy that was announced just now may not be in every mirror: so long is it waited for by who gets
#: the lease after another node, and so long is a lease kept after its fetch.
MIRROR_LAG_S: Final = 0.1
LINGER_S: Final = 0.25
CLOSE_S: Final = 0.5
MAX_HOLDERS: Final = 8
MAX_FAR: Final = 4

log = logging.getLogger(__name__)


class Regional:
    """What one node knows of its region's blobs. `index` is None for a node that shares none."""

    def __init__(
        self,
        index: Index | None,
        *,
        node: str,
        peers: Peers,
        origin: Origin,
        lease_ms: int,
        stop: threading.Event,
    ) -> None:
        self._index = index
        self._node = node
        self._peers = peers
        self._origin = origin
        self._renew_s = lease_ms / 3000.0
        self._stop = stop
        self._background = Background()
        self._closing = asyncio.Event()
        self._releases: set[asyncio.Task[None]] = set()

    # --- what this node has

    def has(self, digest: str, size_bytes: int) -> None:
        """It lies here, whole, verified and durable."""
        if self._index is not None:
            self._index.add(digest, size_bytes)

    def lost(self, digest: str) -> None:
        """It does no more."""
        if self._index is not None:
            self._index.remove(digest)

    # --- who has it

    def holders(self, digest: str) -> tuple[Holder, ...]:
        """Other nodes of the region that have it."""
        if self._index is None:
            return ()
        return tuple(holder for holder in self._index.holders(digest) if holder.node != self._node)

    def nodes(self) -> frozenset[str] | None:
        """Nodes of the region that live, with this one; None while nobody can tell."""
        state = self.state()
        if state.state == "off" or not state.nodes:
            return None
        return frozenset((*state.nodes, self._node))

    @property
    def shares(self) -> bool:
        """Is there an index at all, up or not?"""
        return self._index is not None

    def state(self) -> calls.IndexState:
        """The index as `Status` tells it."""
        return self._index.state() if self._index is not None else calls.IndexState()

    def sources(
        self, digest: str, far: Iterable[calls.FarSource]
    ) -> tuple[dict[Site, Peer], dict[Site, Ranges]]:
        """The nodes to ask for it, and all sources: those nodes and the origin."""
        nodes: dict[Site, Peer] = {}
        for holder in self.holders(digest)[:MAX_HOLDERS]:
            if (peer := self._peers.at(holder.node, holder.blobs)) is not None:
                nodes[Site(Kind.REGION, holder.node)] = peer
        for source in list(far)[:MAX_FAR]:
            if (peer := self._peers.at(source.node, source.blobs)) is not None:
                nodes[Site(Kind.FAR, source.node, max(0.0, source.rtt_ms))] = peer
        return nodes, {**nodes, ORIGIN: self._origin}

    # --- whose turn it is

    @contextlib.asynccontextmanager
    async def turn(self, digest: str, *, patience_s: float = PATIENCE_S) -> AsyncIterator[None]:
        """Inside, it is right to bring this blob: from a holder of the region if there is one now,
        else from outside, while the other nodes of the region wait.
        """
        lease = await self._wait_until_turn(digest, patience_s)
        if lease is None:
            yield
            return
        kept = [lease]
        renewing = self._background.spawn(self._renew(kept, digest))
        linger_s = 0.0
        try:
            yield
            linger_s = LINGER_S
        finally:
            renewing.cancel()
            release = self._background.spawn(self._give_back(kept, linger_s))
            self._releases.add(release)
            release.add_done_callback(self._releases.discard)

    async def _wait_until_turn(self, digest: str, patience_s: float) -> Lease | None:
        """Until somebody of the region has it, or it is up to this node; with the lease if there is one."""
        if (index := self._index) is None:
            return None
        until_s = clock.now_s() + FOLLOW_MAX_S
        followed = False
        while not self.holders(digest) and clock.now_s() < until_s:
            if self._stop.is_set():
                raise EdgeError(
                    Reason.ORIGIN_DOWN, f"{digest} was not fetched: the node stops", source=Source.UPSTREAM
                )
            match await index.lease(digest):
                case Lease() as lease:
                    if followed:
                        await index.wait_changed(digest, MIRROR_LAG_S)
                    if not self.holders(digest):
                        return lease
                    await index.release(lease)
                case Taken(node, left_ms):
                    if node == self._node:
                        # Of this node's life before: nobody else fetches for it.
                        return None
                    followed = True
                    await index.wait_changed(digest, min(max(left_ms / 1000.0, 0.01), FOLLOW_TURN_S))
                case Away():
                    await self._wait_for_leader(index, digest, patience_s)
                    return None
        return None

    async def _wait_for_leader(self, index: Index, digest: str, patience_s: float) -> None:
        """Without the index: the node of the region that all would choose goes first."""
        first = leader(digest, sorted(self.nodes() or {self._node}))
        if first != self._node and patience_s > 0.0:
            log.info("the index is away: waiting for %s to bring %s", first, digest)
            await index.wait_changed(digest, patience_s)

    async def _renew(self, kept: list[Lease], digest: str) -> None:
        """Keep the lease while the fetch runs; one that was lost is asked for again."""
        index = self._index
        while index is not None:
            await asyncio.sleep(self._renew_s)
            if not await index.renew(kept[0]):
                got = await index.lease(digest)
                if isinstance(got, Lease):
                    kept[0] = got

    async def _give_back(self, kept: list[Lease], after_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after_s):
                await self._closing.wait()
        if self._index is not None:
            await self._index.release(kept[0])

    async def close(self) -> None:
        """Give back what is left, within CLOSE_S; leases beyond that end by themselves."""
        self._closing.set()
        if self._releases:
            await asyncio.wait(self._releases, timeout=CLOSE_S)
        await self._background.close()
