"""The proxy process: starts the parts, tells the parent that they turn, and ends them in order.

Started by the parent, which opened every socket that is listened on here. `edge.proxy.parts`
connects the parts; this file owns their lifetimes.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from typing import Final

import uvloop

from edge.errors import EdgeError, Reason
from edge.logs import log_to_stderr
from edge.proxy.admin import Stop
from edge.proxy.loopwatch import watching
from edge.proxy.parts import Parts, ProxyBoot
from edge.proxy.plane import admin_plane
from edge.wire import calls, treecalls
from edge.wire.link import Link

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 0.25
#: A node announces itself without its workers after this long; until then it waits for them.
READY_ANYWAY_S: Final = 20.0
#: A node with an empty store gives its origin this long before it says that it has no catalogue.
CATALOGUE_WAIT_S: Final = 5.0
#: The other nodes of a fleet are waited for this long before the door opens: one may be away.
PEERS_WAIT_S: Final = 1.0
#: How often the parent is asked whether the VIP is announced, for the beacon.
TREE_S: Final = 1.0


class Proxy:
    """One proxy process."""

    def __init__(self, boot: ProxyBoot) -> None:
        self._boot = boot
        self._config = boot.config
        self._stop = asyncio.Event()
        self._open = asyncio.Event()
        self._store_greeted = asyncio.Event()
        self._orphaned = False
        self._parent: Link | None = None
        self._parts = Parts(boot, ask_parent=self._ask_parent, on_store=self._store_greeted.set)

    async def run(self) -> None:
        """Serve until told to stop, or until the parent is gone and the lease has run out."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        with watching(loop, self._parts.metrics.blocked):
            await self._run(loop)
        log.info("stopped")

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        parent_socket = socket.socket(fileno=self._boot.parent_fd)
        _, self._parent = await loop.create_connection(
            lambda: Link(on_closed=self._parent_gone), sock=parent_socket
        )
        parts = self._parts
        async with admin_plane(parts, self._ask_parent) as stop_admin, asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(parts.store.run()),
                tasks.create_task(parts.models.run()),
                tasks.create_task(parts.inventory.run()),
                tasks.create_task(parts.publisher.run()),
                tasks.create_task(parts.hydrator.run()),
                *(tasks.create_task(worker.run()) for worker in parts.upstream.workers.values()),
            ]
            if parts.peers is not None:
                running.append(tasks.create_task(parts.peers.run()))
            if parts.mesh is not None and self._boot.mesh_fd is not None:
                mesh_socket = socket.socket(fileno=self._boot.mesh_fd)
                await parts.mesh.start(mesh_socket, parts.tls(ssl.Purpose.CLIENT_AUTH))
            running.append(tasks.create_task(self._heartbeat()))
            running.append(tasks.create_task(self._watch_tree()))
            running.append(tasks.create_task(self._serve_public()))
            await self._stop.wait()
            await self._leave(stop_admin)
            for task in running:
                task.cancel()

    async def _leave(self, stop_admin: Stop) -> None:
        """Stop taking requests, finish those that run, those of other nodes too."""
        if self._orphaned and self._config.announce is not None:
            # Clients still come until the kernel has withdrawn the address: refuse nobody.
            await asyncio.sleep(self._config.announce.lease_ms / 1000.0 + 0.5)
        drain, parts = self._config.drain, self._parts
        finish_s = drain.finish_ms / 1000.0
        async with asyncio.TaskGroup() as leaving:
            # First: after a planned restart the successor listens on the same sockets.
            leaving.create_task(stop_admin())
            leaving.create_task(parts.front.close(finish_s, lame_duck_s=drain.lame_duck_ms / 1000.0))
            if parts.mesh is not None:
                leaving.create_task(parts.mesh.close(drain_s=finish_s))
        await parts.background.close()

    def _parent_gone(self, _: Link) -> None:
        if not self._stop.is_set():
            log.warning("the parent is gone")
            self._orphaned = True
            self._stop.set()

    async def _heartbeat(self) -> None:
        """Tell the parent that this loop turns, whether the front door is open, and who else announces."""
        while self._parent is not None and not self._parent.closed:
            others = self._parts.company.announces()
            self._parts.operate.heard(others)
            self._parent.event(calls.Heartbeat(ready=self._open.is_set(), others=others))
            await asyncio.sleep(HEARTBEAT_S)

    async def _watch_tree(self) -> None:
        """Know whether the VIP is announced, and whether the node is drained."""
        while True:
            with contextlib.suppress(EdgeError):
                tree = await self._ask_parent(treecalls.Tree())
                if isinstance(tree, treecalls.TreeState):
                    self._parts.heard_announcement(tree.announcement)
                    self._parts.operate.adopt(drained=tree.drained)
            await asyncio.sleep(TREE_S)

    async def _serve_public(self) -> None:
        """Open the front door once the siblings are there; until then clients wait in the backlog."""
        parts = self._parts
        try:
            async with asyncio.timeout(READY_ANYWAY_S):
                await self._store_greeted.wait()
                for worker in parts.upstream.workers.values():
                    await worker.was_up.wait()
        except TimeoutError:
            log.warning("serving without all siblings", extra={"store": parts.store.last_error})
        await parts.models.wait_until_seen(CATALOGUE_WAIT_S)
        if parts.peers is not None:
            # A node without workers can only serve once it has heard of somebody that has.
            await parts.fleet.wait_until_heard(len(parts.peers.peers), PEERS_WAIT_S)
        listeners = [socket.socket(fileno=fd) for fd in self._boot.public_fds]
        self._open.set()
        if self._parent is not None:
            self._parent.event(calls.Heartbeat(ready=True, others=self._parts.company.announces()))
        log.info("serving", extra={"listen": list(self._config.public.listen), "version": parts.version})
        await parts.front.serve(listeners)

    async def _ask_parent(self, call: calls.Head) -> calls.Head:
        if self._parent is None or self._parent.closed:
            raise EdgeError(Reason.LINK_LOST, "the parent process is gone")
        return (await self._parent.request(call, timeout_s=5.0)).head


def main(boot: ProxyBoot) -> None:
    """Run the proxy until it is told to stop."""
    log_to_stderr(f"{boot.config.node}/proxy", boot.config.log_level)

    async def serve() -> None:
        await Proxy(boot).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
