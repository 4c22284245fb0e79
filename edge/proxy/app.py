"""The proxy process: wires the front door, the mesh, the admin plane and the links to its siblings.

Started by the parent, which opened every socket that is listened on here. This file
connects the parts and owns their lifetimes; what they do stands in their own files.
"""

import asyncio
import contextlib
import importlib.metadata
import logging
import random
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec
import uvloop
from aiohttp import web

from edge.background import Background
from edge.config import NodeConfig, host_port
from edge.errors import EdgeError, Reason
from edge.fleet.peers import MeshServer, PeerNode, tls_context
from edge.fleet.snapshot import EndpointState, Fleet
from edge.http.server import FrontDoor
from edge.logs import log_to_stderr
from edge.proxy import admin
from edge.proxy.door import Door
from edge.proxy.handler import Handler
from edge.proxy.ledger import Ledger
from edge.proxy.mesh import MeshCalls
from edge.proxy.models import Models
from edge.proxy.report import Report
from edge.proxy.repository import Repository
from edge.proxy.slots import Slots
from edge.proxy.upstream import Upstream
from edge.proxy.worker import LocalWorker
from edge.telemetry import Metrics
from edge.wire import calls
from edge.wire.dial import Dialer
from edge.wire.link import Link

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 0.25
#: A node announces itself without its workers after this long; until then it waits for them.
READY_ANYWAY_S: Final = 20.0
#: A node with an empty store gives its origin this long before it says that it has no catalogue.
CATALOGUE_WAIT_S: Final = 5.0
MAX_COLD_WAIT_MS: Final = 30_000.0
DRAIN_S: Final = 5.0


class ProxyBoot(msgspec.Struct):
    """What the parent hands over: the node's config, open sockets, and secrets it read as root."""

    config: NodeConfig
    public_fds: list[int]
    mesh_fd: int | None
    admin_fds: list[int]
    parent_fd: int
    weights_socket: str
    worker_sockets: list[str]
    token: str = ""
    mesh_ca: str = ""
    mesh_certificate: str = ""
    mesh_key: str = ""


class Proxy:
    """One proxy process."""

    def __init__(self, boot: ProxyBoot) -> None:
        config = boot.config
        self._boot = boot
        self._config = config
        self._stop = asyncio.Event()
        self._open = asyncio.Event()
        self._store_greeted = asyncio.Event()
        self._orphaned = False
        self._background = Background()
        self._version = importlib.metadata.version("edgepop")
        self._metrics = Metrics(node=config.node, pop=config.pop, version=self._version)
        self._fleet = Fleet(
            max_waiting=config.queue.max_waiting,
            max_wait_ms=config.queue.max_wait_ms,
            max_cold_wait_ms=MAX_COLD_WAIT_MS,
        )
        self._slots = Slots(self._fleet)
        self._upstream = Upstream()
        self._store = Dialer(
            f"{config.node}/weights",
            unix_path=boot.weights_socket,
            greet=self._greet_store,
            on_lost=lambda: None,
            connect_timeout_s=5.0,
        )
        self._models = Models(self._store)
        self._ledger = Ledger()
        self._handler = Handler(
            fleet=self._fleet,
            slots=self._slots,
            upstream=self._upstream,
            draw=random.random,
            on_decision=self._metrics.decision,
        )
        self._parent: Link | None = None
        self._add_workers()
        self._add_peers()
        self._mesh = MeshServer(
            on_call=MeshCalls(
                node=config.node,
                pop=config.pop,
                handler=self._handler,
                upstream=self._upstream,
                background=self._background,
            ).on_call,
            max_body_bytes=config.public.limits.max_body_bytes,
            max_calls=config.mesh.max_calls if config.mesh is not None else 1,
        )
        self._front = FrontDoor(
            self._door().answer, config.public.limits, hosts=_hosts(config), on_event=None
        )

    # --- parts

    def _door(self) -> Door:
        config = self._config
        return Door(
            node=config.node,
            pop=config.pop,
            region=config.region,
            public=config.public,
            handler=self._handler,
            models=self._models,
            repository=Repository(self._models, self._fleet, self._ledger, version=self._version),
            ledger=self._ledger,
            metrics=self._metrics,
            random=random.SystemRandom(),
            log_request=_log_request if log.isEnabledFor(logging.DEBUG) else None,
        )

    def _endpoint(self, name: str, *, home: bool, soft_limit: int, hard_limit: int) -> EndpointState:
        endpoint = EndpointState(
            name,
            home=home,
            soft_limit=soft_limit,
            hard_limit=hard_limit,
            capacity_freed=self._slots.freed,
            changed=self._slots.changed,
        )
        self._fleet.add(endpoint)
        return endpoint

    def _add_workers(self) -> None:
        for index, (worker, path) in enumerate(
            zip(self._config.workers, self._boot.worker_sockets, strict=True)
        ):
            name = f"{self._config.node}/{index}"
            endpoint = self._endpoint(
                name, home=True, soft_limit=worker.soft_limit, hard_limit=worker.hard_limit
            )
            self._upstream.workers[name] = LocalWorker(
                name,
                worker,
                path,
                endpoint=endpoint,
                store=self._store,
                models=self._models,
                spawn=self._background.spawn,
                on_hydrated=self._hydrated,
                max_body_bytes=self._config.public.limits.max_body_bytes,
            )

    def _add_peers(self) -> None:
        mesh = self._config.mesh
        if mesh is None:
            return
        tls = self._tls(ssl.Purpose.SERVER_AUTH)
        for peer in mesh.peers:
            if peer.pop != self._config.pop or peer.workers == 0:
                continue
            endpoint = self._endpoint(
                peer.node,
                home=False,
                soft_limit=peer.soft_limit * peer.workers,
                hard_limit=peer.hard_limit * peer.workers,
            )
            self._upstream.peers[peer.node] = PeerNode(
                peer, mesh, tls, endpoint, max_body_bytes=self._config.public.limits.max_body_bytes
            )

    def _tls(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        boot = self._boot
        return tls_context(purpose, ca=boot.mesh_ca, certificate=boot.mesh_certificate, key=boot.mesh_key)

    def _hydrated(self, model: str, source: str, moved_bytes: int, seconds: float) -> None:
        self._metrics.hydration.labels(model, source).observe(seconds)
        self._metrics.moved(source)(moved_bytes)
        log.info(
            "hydrated", extra={"model": model, "source": source, "bytes": moved_bytes, "s": round(seconds, 3)}
        )

    async def _greet_store(self, link: Link) -> None:
        """Holds ended with the old link: take them again for what is on a device."""
        await link.request(calls.Status(), timeout_s=60.0)
        for worker in self._upstream.workers.values():
            worker.hold_all_again()
        with contextlib.suppress(EdgeError):
            await self._models.refresh()
        self._store_greeted.set()

    # --- life

    async def run(self) -> None:
        """Serve until told to stop, or until the parent is gone and the lease has run out."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        parent_socket = socket.socket(fileno=self._boot.parent_fd)
        _, self._parent = await loop.create_connection(
            lambda: Link(on_closed=self._parent_gone), sock=parent_socket
        )
        async with self._admin_plane(), asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._store.run()),
                tasks.create_task(self._models.run()),
                *(tasks.create_task(worker.dialer.run()) for worker in self._upstream.workers.values()),
                *(tasks.create_task(peer.run()) for peer in self._upstream.peers.values()),
            ]
            if self._boot.mesh_fd is not None:
                mesh_socket = socket.socket(fileno=self._boot.mesh_fd)
                await self._mesh.start(mesh_socket, self._tls(ssl.Purpose.CLIENT_AUTH))
            running.append(tasks.create_task(self._heartbeat()))
            running.append(tasks.create_task(self._serve_public()))
            await self._stop.wait()
            if self._orphaned and self._config.announce is not None:
                # Clients still come until the kernel has withdrawn the address: refuse nobody.
                await asyncio.sleep(self._config.announce.lease_ms / 1000.0 + 0.5)
            await self._front.close(drain_s=DRAIN_S)
            await self._mesh.close()
            await self._background.close()
            for task in running:
                task.cancel()
        log.info("stopped")

    def _parent_gone(self, _: Link) -> None:
        if not self._stop.is_set():
            log.warning("the parent is gone")
            self._orphaned = True
            self._stop.set()

    async def _heartbeat(self) -> None:
        """Tell the parent that this loop turns, and whether the front door is open."""
        while self._parent is not None and not self._parent.closed:
            self._parent.event(calls.Heartbeat(ready=self._open.is_set()))
            await asyncio.sleep(HEARTBEAT_S)

    async def _serve_public(self) -> None:
        """Open the front door once the siblings are there; until then clients wait in the backlog."""
        try:
            async with asyncio.timeout(READY_ANYWAY_S):
                await self._store_greeted.wait()
                for worker in self._upstream.workers.values():
                    await worker.was_up.wait()
        except TimeoutError:
            log.warning("serving without all siblings", extra={"store": self._store.last_error})
        await self._models.wait_until_seen(CATALOGUE_WAIT_S)
        listeners = [socket.socket(fileno=fd) for fd in self._boot.public_fds]
        self._open.set()
        if self._parent is not None:
            self._parent.event(calls.Heartbeat(ready=True))
        log.info("serving", extra={"listen": list(self._config.public.listen), "version": self._version})
        await self._front.serve(listeners)

    # --- admin

    @contextlib.asynccontextmanager
    async def _admin_plane(self) -> AsyncIterator[None]:
        report = Report(
            self._config,
            version=self._version,
            fleet=self._fleet,
            front=self._front,
            models=self._models,
            upstream=self._upstream,
            store=self._store,
            metrics=self._metrics,
            ask_parent=self._ask_parent,
        )
        reads: dict[str, Callable[[], Awaitable[object]]] = {
            "/edge/state": report.state,
            "/edge/models": report.model_list,
        }
        acts: dict[str, Callable[[], Awaitable[object]]] = {
            "/edge/withdraw": lambda: self._ask_parent(calls.Withdraw()),
            "/edge/announce": lambda: self._ask_parent(calls.Announce()),
        }
        runners: list[web.AppRunner] = []
        try:
            for fd in self._boot.admin_fds:
                listener = socket.socket(fileno=fd)
                token = None if listener.family == socket.AF_UNIX else self._boot.token
                app = admin.application(metrics=report.scrape, reads=reads, acts=acts, token=token)
                runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
                runners.append(runner)
                await runner.setup()
                await web.SockSite(runner, listener).start()
            yield
        finally:
            for runner in runners:
                await runner.cleanup()

    async def _ask_parent(self, call: calls.Head) -> object:
        if self._parent is None or self._parent.closed:
            raise EdgeError(Reason.LINK_LOST, "the parent process is gone")
        return (await self._parent.request(call, timeout_s=5.0)).head


def _hosts(config: NodeConfig) -> frozenset[str]:
    addresses = {host_port(address)[0] for address in config.public.listen}
    if config.announce is not None:
        addresses.update(config.announce.addresses)
    return frozenset(addresses | set(config.public.hosts))


def _log_request(own_id: str, model: str, served_by: str, route: str, code: int, ms: float) -> None:
    log.debug(
        "request",
        extra={"id": own_id, "model": model, "served_by": served_by, "route": route, "code": code, "ms": ms},
    )


def main(boot: ProxyBoot) -> None:
    """Run the proxy until it is told to stop."""
    log_to_stderr(f"{boot.config.node}/proxy", boot.config.log_level)

    async def serve() -> None:
        await Proxy(boot).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
