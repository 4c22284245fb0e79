"""The parts of a proxy, and who hears of what: wiring without a lifetime.

Everything is made here once and connected; nothing runs until `edge.proxy.app` starts it. What
a part does stands in its own file.
"""

import contextlib
import importlib.metadata
import logging
import random
import ssl
from collections.abc import Awaitable, Callable

import msgspec

from edge import clock
from edge.background import Background
from edge.config import NodeConfig, host_port, size_bytes
from edge.errors import EdgeError
from edge.fleet.mesh_server import MeshServer
from edge.fleet.own import OwnWorker
from edge.fleet.peers_set import Peers
from edge.fleet.publish import Publisher
from edge.fleet.snapshot import Fleet
from edge.fleet.tls import tls_context
from edge.http.server import FrontDoor
from edge.policy.facts import Beacon, Tier
from edge.policy.score import nearest_source, regions_holding
from edge.proxy.acts import Acts
from edge.proxy.company import Company
from edge.proxy.door import Door
from edge.proxy.elsewhere import Elsewhere
from edge.proxy.estimates import Estimates
from edge.proxy.explain import Ring
from edge.proxy.handler import Handler
from edge.proxy.hydrator import Hydrator, Source, World
from edge.proxy.inventory import Inventory
from edge.proxy.keys import Keys
from edge.proxy.ledger import Ledger
from edge.proxy.mesh import MeshCalls
from edge.proxy.modelacts import ModelActs
from edge.proxy.models import Models
from edge.proxy.objects import Objects
from edge.proxy.operate import Operate
from edge.proxy.repository import Repository
from edge.proxy.slots import Slots
from edge.proxy.upstream import Upstream
from edge.proxy.worker import LocalWorker
from edge.telemetry import Metrics
from edge.wire import calls
from edge.wire.dial import Dialer
from edge.wire.link import Link

log = logging.getLogger(__name__)


class ProxyBoot(msgspec.Struct):
    """What the parent hands over: the node's config, open sockets, and secrets it read as root.

    `boot_ms` is the wall clock at this process's start: it orders the beacons of two of them.
    `drained`: the operator drained the node, and it still is.
    """

    config: NodeConfig
    public_fds: list[int]
    mesh_fd: int | None
    admin_fds: list[int]
    parent_fd: int
    weights_socket: str
    worker_sockets: list[str]
    boot_ms: int = 1
    drained: bool = False
    token: str = ""
    keys_text: str = ""
    mesh_ca: str = ""
    mesh_certificate: str = ""
    mesh_key: str = ""


class Parts:
    """Everything that one proxy is made of. `on_store` runs at each new link to the weight store."""

    def __init__(
        self,
        boot: ProxyBoot,
        *,
        ask_parent: Callable[[calls.Head], Awaitable[calls.Head]],
        on_store: Callable[[], None],
    ) -> None:
        """Raises ValueError for a key file that can't be used."""
        config = self.config = boot.config
        self.boot = boot
        self.version = importlib.metadata.version("edgepop")
        self.announced = False
        self._on_store = on_store
        self.background = Background()
        self.metrics = Metrics(node=config.node, pop=config.pop, version=self.version)
        self.fleet = Fleet(config, changed=self._slots_changed)
        self.slots = Slots(self.fleet)
        mesh = config.mesh
        self.publisher = Publisher(
            self.make_beacon,
            coalesce_ms=mesh.coalesce_ms if mesh else 100,
            heartbeat_ms=mesh.heartbeat_ms if mesh else 500,
        )
        self.store = Dialer(
            f"{config.node}/weights",
            unix_path=boot.weights_socket,
            greet=self._greet_store,
            on_lost=lambda: None,
            connect_timeout_s=5.0,
        )
        self.models = Models(self.store)
        self.inventory = Inventory(
            self.store,
            on_change=self._inventory_changed,
            on_spoiled=lambda digest: self.background.spawn(self.acts.take_off(digest)),
        )
        self.estimates = Estimates(
            lambda: self.inventory.rates,
            lambda: self.inventory.fetching,
            on_scored=self.metrics.estimated,
            on_failed=lambda error: self.metrics.hydration_failed(str(error.reason)),
        )
        self.peers = self._make_peers()
        objects = Objects(self.store, config.public.limits.max_body_bytes)
        self.upstream = Upstream(self.fleet, self.peers.peers if self.peers else {}, objects)
        self.ledger = Ledger()
        self.ring = Ring()
        self.keys = Keys(boot.keys_text, config.public)
        self.handler = Handler(
            fleet=self.fleet,
            slots=self.slots,
            upstream=self.upstream,
            draw=random.random,
            on_decision=self.metrics.decision,
        )
        self._add_workers()
        self.acts = Acts(self.store, self.models, self.upstream.workers)
        self.elsewhere = Elsewhere(
            config.node, self.acts, self.models, self.fleet, self.peers.peers if self.peers else {}
        )
        self.hydrator = Hydrator(
            config.routing,
            self.upstream.workers,
            world=self._world,
            allowed=self._allowed,
            source=self._source,
            name=self.models.name_of,
            fetch_ms=self.estimates.fetch_ms,
            changed=self.publisher.changed,
            spawn=self.background.spawn,
        )
        self.fleet.evicting = lambda: self.hydrator.evicting
        self.mesh_calls = MeshCalls(
            handler=self.handler,
            fleet=self.fleet,
            background=self.background,
            stamp=lambda: (boot.boot_ms, self.publisher.seq),
            on_request=self._forwarded,
            confine_of=self.models.confine_of,
            bring=self.elsewhere.asked,
        )
        self.mesh = self._make_mesh()
        self.door = self._make_door()
        self.front = FrontDoor(self.door.answer, config.public.limits, hosts=_hosts(config), on_event=None)
        self.operate = Operate(
            fleet=self.fleet,
            front=self.front,
            drain=config.drain,
            ask_parent=ask_parent,
            changed=self.publisher.changed,
            on_announcement=self.heard_announcement,
        )
        # Who attracts nobody by its own doing comes back by none.
        self.company = Company(self.fleet, self.peers if config.announce else None, config.mesh)
        self.operate.adopt(drained=boot.drained)

    # --- parts

    def _make_door(self) -> Door:
        config = self.config
        return Door(
            node=config.node,
            pop=config.pop,
            region=config.region,
            public=config.public,
            handler=self.handler,
            models=self.models,
            repository=Repository(
                self.models,
                self.fleet,
                self.ledger,
                ModelActs(self.acts, self.models, self.fleet, self.elsewhere),
                version=self.version,
            ),
            fleet=self.fleet,
            keys=self.keys,
            ring=self.ring,
            ledger=self.ledger,
            metrics=self.metrics,
            random=random.SystemRandom(),
            log_request=_log_request,
            last_one=lambda: self.operate.last_one,
        )

    def _add_workers(self) -> None:
        config = self.config
        for index, (worker, path) in enumerate(zip(config.workers, self.boot.worker_sockets, strict=True)):
            name = f"{config.node}/{index}"
            own = OwnWorker(
                name,
                device=worker.device,
                device_bytes=size_bytes(worker.device_bytes),
                soft_limit=worker.soft_limit,
                hard_limit=worker.hard_limit,
                capacity_freed=self._capacity_freed,
                changed=self._own_changed,
            )
            self.fleet.add(own)
            self.upstream.workers[name] = LocalWorker(
                name,
                worker,
                path,
                endpoint=own,
                store=self.store,
                models=self.models,
                spawn=self.background.spawn,
                on_hydrated=self._hydrated,
                nearest=self._nearest,
                estimates=self.estimates,
                max_body_bytes=config.public.limits.max_body_bytes,
            )

    def _make_peers(self) -> Peers | None:
        mesh = self.config.mesh
        if mesh is None:
            return None
        return Peers(
            mesh=mesh,
            me=self.config.node,
            version=self.version,
            tls=self.tls(ssl.Purpose.SERVER_AUTH),
            book=self.fleet,
            max_body_bytes=self.config.public.limits.max_body_bytes,
        )

    def _make_mesh(self) -> MeshServer | None:
        mesh = self.config.mesh
        if mesh is None:
            return None
        return MeshServer(
            me=self.config.node,
            version=self.version,
            publisher=self.publisher,
            on_call=self.mesh_calls.on_call,
            max_body_bytes=self.config.public.limits.max_body_bytes,
            max_calls=mesh.max_calls,
            max_links=mesh.max_links,
        )

    def tls(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        """The mesh's TLS, for either end."""
        boot = self.boot
        return tls_context(purpose, ca=boot.mesh_ca, certificate=boot.mesh_certificate, key=boot.mesh_key)

    # --- what changes, and who hears of it

    def _slots_changed(self) -> None:
        self.slots.changed()

    def _own_changed(self) -> None:
        """A worker of this node came or went, or what is on its device did."""
        self.fleet.touched()
        self.slots.changed()
        self.publisher.changed()

    def _capacity_freed(self) -> None:
        self.slots.freed()
        self.publisher.changed()

    def _inventory_changed(self) -> None:
        self.fleet.held = {digest: tier for digest, (tier, _) in self.inventory.held.items()}
        loads = [worker.moves.times.bytes_per_ms for worker in self.upstream.workers.values()]
        self.fleet.rates = msgspec.structs.replace(
            self.inventory.rates, load=max(loads, default=self.inventory.rates.load)
        )
        if self.inventory.fetching:
            for worker in self.upstream.workers.values():
                worker.moves.expect_fetches()
        self.fleet.touched()
        self.publisher.changed()

    def heard_announcement(self, announcement: str) -> None:
        """What the parent says of the VIP; one that is announced as the last one is so by no right."""
        announced = announcement == "announced"
        if announced is not self.announced:
            self.announced = announced
            self.publisher.changed()

    def make_beacon(self, seq: int) -> Beacon:
        """What this node tells the others now."""
        return self.fleet.beacon(seq, boot=self.boot.boot_ms, version=self.version, announced=self.announced)

    def _forwarded(self, model: str, outcome: str) -> None:
        """A request of another node; a name that the catalogue does not know is no label."""
        self.metrics.forwarded(model if self.models.knows(model) else "", outcome)

    def _hydrated(self, model: str, source: str, moved_bytes: int, seconds: float) -> None:
        self._inventory_changed()
        self.metrics.hydrated(model, source, seconds)
        log.info(
            "hydrated", extra={"model": model, "source": source, "bytes": moved_bytes, "s": round(seconds, 3)}
        )

    async def _greet_store(self, link: Link) -> None:
        """Holds ended with the old link: take them again for what is on a device."""
        await link.request(calls.Status(), timeout_s=60.0)
        for worker in self.upstream.workers.values():
            worker.hold_all_again()
        with contextlib.suppress(EdgeError):
            await self.models.refresh()
        self._on_store()

    # --- where weights are

    def _nearest(self, digest: str) -> tuple[Tier, int]:
        """Where a model's weights lie nearest to this node, and how many bytes they are (0: unknown)."""
        held = self.inventory.held.get(digest)
        if held is not None:
            return held
        found = self.models.of_digest(digest)
        regions = regions_holding(digest, self.fleet.current(clock.now_ms()))
        return nearest_source(self.config.region, regions), found.weights_bytes if found is not None else 0

    def _source(self, digest: str) -> Source:
        return Source(self._nearest(digest)[0], self.fleet.far_sources(digest))

    def _allowed(self, digest: str) -> bool:
        """May a model run on this node at all? One that the catalogue does not name may not."""
        found = self.models.of_digest(digest)
        return found is not None and (not found.confine or self.config.region in found.confine)

    def _world(self) -> World:
        return World(self.make_beacon(0), self.fleet.beacons(), self.models.needs())


def _hosts(config: NodeConfig) -> frozenset[str]:
    addresses = {host_port(address)[0] for address in config.public.listen}
    if config.announce is not None:
        addresses.update(config.announce.addresses)
    return frozenset(addresses | set(config.public.hosts))


def _log_request(own_id: str, model: str, served_by: str, route: str, code: int, ms: float) -> None:
    if log.isEnabledFor(logging.DEBUG):
        log.debug(
            "request",
            extra={
                "id": own_id,
                "model": model,
                "served_by": served_by,
                "route": route,
                "code": code,
                "ms": ms,
            },
        )
