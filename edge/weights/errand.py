"""One blob on its way to this node: whose turn it is to go outside the region, and whom to ask by now.

While another node of the region holds the blob's lease this one follows: the nodes that are at the
blob are its sources, for what they have by now, and nothing outside is. Once the lease is its own
(the other one is done, gave up or died) it goes on with what it has, and asks outside for what
nobody in the region has. Rules are `edge.policy.follow`'s; moves no bytes and knows no disk.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from typing import Final

from edge import clock
from edge.errors import EdgeError, Reason
from edge.policy.follow import Case, Word, may_go_out
from edge.weights.ahead import Ahead
from edge.weights.feeds import Feeds
from edge.weights.index import Index, Lease, Taken
from edge.weights.manifest import BlobFile
from edge.weights.mirror import leader
from edge.weights.peersource import Peer, Peers
from edge.weights.sources import Kind, Site

#: How often it is looked again whose turn it is.
TURN_S: Final = 1.0
#: Without the index: how long the node whose turn it would be is waited for.
PATIENCE_MS: Final = 2_000.0
#: A copy that was announced just now may not be in every mirror: so long is it waited for by who gets
#: the lease after another node.
MIRROR_LAG_S: Final = 0.1
#: Between two attempts while there is nobody to bring it from.
PAUSE_S: Final = 0.2
MAX_AHEAD: Final = 8
_TRY_ON: Final = (Reason.ORIGIN_DOWN, Reason.LINK_LOST, Reason.BLOB_CORRUPT)

log = logging.getLogger(__name__)


class Errand:
    """`feeds` are its sources. Everything here belongs to the event loop, what `feeds` gives to threads."""

    def __init__(
        self,
        file: BlobFile,
        feeds: Feeds[Ahead],
        *,
        index: Index | None,
        node: str,
        peers: Peers,
        holders: Callable[[], Mapping[Site, Peer]],
        watchers: Executor,
    ) -> None:
        self.feeds = feeds
        self.lease: Lease | None = None
        self._file = file
        self._index = index
        self._node = node
        self._peers = peers
        self._holders = holders
        self._watchers = watchers
        self._began_ms = self._progress_ms = self._gained_ms = clock.now_ms()
        self._came_bytes = self._right_chunks = 0
        self._followed = ""
        self._known = asyncio.Event()
        self._changed = asyncio.Event()
        feeds.set_holders(holders())
        if index is None:
            self._go_out()

    # --- for who brings it

    async def may_begin(self) -> bool:
        """Until there is somebody to ask, or the index has been; whether outside may be asked already."""
        if not self.feeds:
            await self._known.wait()
        return self.feeds.outside_too

    async def tries_on(self, error: EdgeError, *, was_outside: bool) -> bool:
        """Is an attempt that failed no failure of the whole, as only nodes that are at it too were asked?

        Waits a moment where nothing has changed.
        """
        if (was_outside and self.feeds.outside_too) or error.reason not in _TRY_ON:
            return False
        if error.reason is Reason.BLOB_CORRUPT:
            if getattr(error, "index", None) is None:
                return False
            log.warning("the region's copy is not trusted: %s", error.message)
            self._go_out()
        if not self.feeds.outside_too:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_S):
                    await self._changed.wait()
        return True

    # --- whose turn it is

    async def seek(self, renew_s: float) -> None:
        """Ask for the lease, and keep it once it is this node's. For ever: ends by cancellation only."""
        if (index := self._index) is None:
            return
        digest = self._file.blake3
        while True:
            word = await self._ask(index)
            if word is Word.MINE and self._followed and not self.feeds.outside_too:
                await index.wait_changed(digest, MIRROR_LAG_S)
            self._look()
            if may_go_out(self._case(index, word)):
                self._go_out()
            self._known.set()
            if word is Word.MINE:
                await asyncio.sleep(renew_s)
            else:
                await index.wait_changed(digest, TURN_S)

    async def _ask(self, index: Index) -> Word:
        if self.lease is not None and await index.renew(self.lease):
            return Word.MINE
        match await index.lease(self._file.blake3):
            case Lease() as lease:
                self.lease = lease
                self._meet(lease.beside)
                return Word.MINE
            case Taken(node, _, beside):
                if node == self._node:
                    return Word.MY_FORMER
                if self.lease is not None:
                    # It was lost while this node was silent: now it follows whoever goes on.
                    self.lease = None
                    self.feeds.outside_too = False
                if node != self._followed and not self.feeds.outside_too:
                    log.info("%s brings %s: following it", node, self._file.blake3)
                self._followed = node
                self._meet((node, *beside))
                return Word.ANOTHERS
        return Word.SILENT

    def _case(self, index: Index, word: Word) -> Case:
        now_ms = clock.now_ms()
        first = not self._followed and leader(self._file.blake3, index.nodes()) == self._node
        waited_ms, idle_ms = now_ms - self._began_ms, now_ms - self._progress_ms
        return Case(word, waited_ms, idle_ms, now_ms - self._gained_ms, first, PATIENCE_MS)

    def _meet(self, nodes: Iterable[str]) -> None:
        """Those nodes are at it too, or were a moment ago."""
        met = self.feeds.ahead()
        for node in nodes:
            site = Site(Kind.REGION, node)
            address = self._index.address(node) if self._index is not None else None
            if node == self._node or address is None or site in self.feeds.known or len(met) >= MAX_AHEAD:
                continue
            if (peer := self._peers.at(node, address)) is not None:
                ahead = Ahead(peer, self._file)
                met.append(ahead)
                self.feeds.add_ahead(site, ahead)
                self._watchers.submit(ahead.watch)

    def _look(self) -> None:
        """Who has all of it by now, did anything come to anybody, and anything right to this node?"""
        self.feeds.set_holders(self._holders())
        came_bytes = sum(ahead.came_bytes for ahead in self.feeds.ahead())
        if came_bytes > self._came_bytes:
            self._came_bytes, self._progress_ms = came_bytes, clock.now_ms()
        if (right_chunks := self.feeds.right_chunks) > self._right_chunks:
            self._right_chunks, self._gained_ms = right_chunks, clock.now_ms()
        self._changed.set()

    def _go_out(self) -> None:
        if self._followed and not self.feeds.outside_too:
            log.info("%s is brought from outside by this node from here on", self._file.blake3)
        self.feeds.outside_too = True
        self._changed.set()

    def end(self) -> None:
        """Nobody is watched any more."""
        for ahead in self.feeds.ahead():
            ahead.end()
