"""One fetch per region: who has a blob, and whose turn it is to bring it in.

Before a node takes bytes from outside its region it asks the region's index for the blob's lease.
While another node has it, this one takes what that node has by now, as it comes (`edge.weights.errand`),
or waits for the whole of what is small. The lease is an economy, never a safety: what is fetched
twice is the same immutable bytes twice. Without the index, nodes agree by rendezvous and a short
patience. Knows no disk and moves no bytes.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from edge import clock
from edge.background import Background
from edge.errors import EdgeError, Reason, Source
from edge.policy.follow import FOLLOW_MAX_MS
from edge.weights.errand import MIRROR_LAG_S, TURN_S, Errand
from edge.weights.feeds import Feeds
from edge.weights.fetch import Ranges
from edge.weights.growth import Growth
from edge.weights.index import Away, Index, Taken
from edge.weights.manifest import BlobFile
from edge.weights.mirror import Holder
from edge.weights.origin import Origin
from edge.weights.peersource import Peer, Peers
from edge.weights.sources import ORIGIN, Kind, Site
from edge.weights.teller import Lease
from edge.wire import calls

#: So long is a lease kept after its fetch: a copy that was announced may not be in every mirror.
LINGER_S: Final = 0.25
CLOSE_S: Final = 0.5
MAX_HOLDERS: Final = 8
MAX_FAR: Final = 4
#: Nodes that are watched while they fetch, over all blobs.
WATCHERS: Final = 32

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
        self._watchers = ThreadPoolExecutor(WATCHERS, "weights-watch")

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

    def nodes_with(self, digest: str, far: Iterable[calls.FarSource]) -> dict[Site, Peer]:
        """The nodes to ask for what lies there whole: of the region, then far ones."""
        return {**self._holding(digest), **self._far(far)}

    def _holding(self, digest: str) -> dict[Site, Peer]:
        nodes: dict[Site, Peer] = {}
        for holder in self.holders(digest)[:MAX_HOLDERS]:
            if (peer := self._peers.at(holder.node, holder.blobs)) is not None:
                nodes[Site(Kind.REGION, holder.node)] = peer
        return nodes

    def _far(self, far: Iterable[calls.FarSource]) -> dict[Site, Peer]:
        nodes: dict[Site, Peer] = {}
        for source in list(far)[:MAX_FAR]:
            if (peer := self._peers.at(source.node, source.blobs)) is not None:
                nodes[Site(Kind.FAR, source.node, max(0.0, source.rtt_ms))] = peer
        return nodes

    def _outside(self, far: Iterable[calls.FarSource]) -> dict[Site, Ranges]:
        return {**self._far(far), ORIGIN: self._origin}

    # --- whose turn it is

    @contextlib.asynccontextmanager
    async def errand(
        self, file: BlobFile, far: Iterable[calls.FarSource], mine: Callable[[], Growth | None]
    ) -> AsyncIterator[Errand]:
        """A blob is brought here: its sources as of any moment, outside only when that is this node's turn.

        `mine` is what of it is here already, called from any thread.
        """
        errand = Errand(
            file,
            Feeds(self._outside(far), mine),
            index=self._index,
            node=self._node,
            peers=self._peers,
            holders=lambda: self._holding(file.blake3),
            watchers=self._watchers,
        )
        seeking = self._background.spawn(errand.seek(self._renew_s))
        linger_s = 0.0
        try:
            yield errand
            linger_s = LINGER_S
        finally:
            seeking.cancel()
            errand.end()
            if errand.lease is not None:
                self._release_after(errand.lease, linger_s)

    @contextlib.asynccontextmanager
    async def turn(self, digest: str) -> AsyncIterator[None]:
        """For what is too small to be followed. Inside, it is right to bring it: from a holder of the region
        if there is one now, else from outside, while the other nodes of the region wait.
        """
        lease = await self._wait_until_turn(digest)
        linger_s = 0.0
        try:
            yield
            linger_s = LINGER_S
        finally:
            if lease is not None:
                self._release_after(lease, linger_s)

    async def _wait_until_turn(self, digest: str) -> Lease | None:
        """Until somebody of the region has it, or it is up to this node; with the lease if there is one."""
        if (index := self._index) is None:
            return None
        until_s = clock.now_s() + FOLLOW_MAX_MS / 1000.0
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
                    await index.wait_changed(digest, min(max(left_ms / 1000.0, 0.01), TURN_S))
                case Away():
                    return None
        return None

    def _release_after(self, lease: Lease, after_s: float) -> None:
        release = self._background.spawn(self._give_back(lease, after_s))
        self._releases.add(release)
        release.add_done_callback(self._releases.discard)

    async def _give_back(self, lease: Lease, after_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after_s):
                await self._closing.wait()
        if self._index is not None:
            await self._index.release(lease)

    async def close(self) -> None:
        """Give back what is left, within CLOSE_S; leases beyond that end by themselves."""
        self._closing.set()
        if self._releases:
            await asyncio.wait(self._releases, timeout=CLOSE_S)
        await self._background.close()
        self._watchers.shutdown(wait=False, cancel_futures=True)
