"""The other nodes, those that are listed and those that DNS names; they join and leave while this one runs.

A node that DNS no longer names stays a peer while its link works: a resolver's fault must not
take a fleet apart. It is dropped when it has been silent for `mesh.forget_ms`.
"""

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Final

from edge import clock
from edge.background import Background
from edge.config import Discover, Mesh, host_port
from edge.errors import EdgeError, Reason, Source
from edge.fleet.peers import Book, Peer
from edge.wire.dial import Dialer

if TYPE_CHECKING:
    from edge.fleet.discovery import Discovery

log = logging.getLogger(__name__)

#: How often departures are looked for, without a discovery that has its own pace.
LOOK_S: Final = 5.0


class Peers:
    """`peers` by node name; `run` keeps them running."""

    def __init__(
        self,
        *,
        me: str,
        version: str,
        mesh: Mesh,
        tls: ssl.SSLContext,
        book: Book,
        max_body_bytes: int,
    ) -> None:
        self.peers: dict[str, Peer] = {}
        self.discovery = _discovery(mesh.discover) if mesh.discover is not None else None
        self._me = me
        self._version = version
        self._mesh = mesh
        self._tls = tls
        self._book = book
        self._max_body_bytes = max_body_bytes
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._background = Background()
        self._listed = {peer.node: host_port(peer.address) for peer in mesh.peers if peer.node != me}
        for node, address in self._listed.items():
            self._add(node, address)

    def dialer(self, node: str) -> Dialer:
        """How to reach a node. Raises EdgeError(LINK_LOST, retryable) for one that is no peer (any more)."""
        peer = self.peers.get(node)
        if peer is None:
            raise EdgeError(
                Reason.LINK_LOST, f"{node} is no peer of this node", source=Source.UPSTREAM, retryable=True
            )
        return peer.dialer

    async def run(self) -> None:
        """Until cancelled; then every link is closed."""
        every_s = self._mesh.discover.every_ms / 1000.0 if self._mesh.discover is not None else LOOK_S
        try:
            while True:
                self._keep_running()
                if self.discovery is not None:
                    await self._follow(await self.discovery.look())
                    self._keep_running()
                await asyncio.sleep(every_s)
        finally:
            await self._background.close()

    def _add(self, node: str, address: tuple[str, int]) -> None:
        self.peers[node] = Peer(
            node,
            address,
            me=self._me,
            version=self._version,
            mesh=self._mesh,
            tls=self._tls,
            book=self._book,
            max_body_bytes=self._max_body_bytes,
        )

    def _keep_running(self) -> None:
        """Start what does not run: a new peer, or one whose task crashed (`Background` has logged it)."""
        for node, peer in self.peers.items():
            task = self._tasks.get(node)
            if task is None or task.done():
                self._tasks[node] = self._background.spawn(peer.run())

    async def _follow(self, found: dict[str, tuple[str, int]]) -> None:
        """Make the peers what DNS says, except those that are listed."""
        for node, address in found.items():
            if node == self._me or node in self._listed:
                continue
            peer = self.peers.get(node)
            if peer is None:
                if len(self.peers) < self._mesh.max_links:
                    log.info("a node joined", extra={"peer": node})
                    self._add(node, address)
            elif peer.address != address:
                log.info("a node moved", extra={"peer": node})
                await self._stop(node)
                peer.move(address)
        now_ms = clock.now_ms()
        for node, peer in list(self.peers.items()):
            silent = peer.silent_ms(now_ms) >= self._mesh.forget_ms
            if node not in found and node not in self._listed and silent:
                log.info("a node left", extra={"peer": node})
                await self._stop(node)
                del self.peers[node]
                self._book.forget(node)

    async def _stop(self, node: str) -> None:
        task = self._tasks.pop(node, None)
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    def __repr__(self) -> str:
        return f"<Peers {list(self.peers.values())}>"


def _discovery(discover: Discover) -> "Discovery":
    # dnspython takes 0.1 s to import: a proxy that needs none is back sooner after a restart.
    from edge.fleet.discovery import Discovery

    return Discovery(discover)
