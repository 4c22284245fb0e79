"""The world as this node sees it, kept so that a decision reads it in one look.

Links, workers and the request path report here; `current` gives the frozen world, which is
replaced whole when something changed, and `beacon` what this node tells the others. No I/O.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from edge import clock
from edge.config import NodeConfig
from edge.fleet.learned import Learned
from edge.fleet.own import OwnWorker
from edge.fleet.view import UNKNOWN_RTT_MS, NodeView, in_flight, states, worker_beacon
from edge.policy.facts import (
    Beacon,
    Endpoint,
    Mode,
    ModelBeacon,
    Pulse,
    Rates,
    Snapshot,
    Standing,
    State,
    Tier,
)
from edge.wire.calls import FarSource

MAX_COLD_WAIT_MS: Final = 30_000.0
MAX_FAR_SOURCES: Final = 8


class Fleet:
    """Every worker that a request of this node may run on, and the bounds of its queue."""

    def __init__(self, config: NodeConfig, *, changed: Callable[[], None]) -> None:
        self.node = config.node
        self.pop = config.pop
        self.region = config.region
        self.own: dict[str, OwnWorker] = {}
        self.nodes: dict[str, NodeView] = {}
        self.learned = Learned()
        self.waiting = 0
        self.held: dict[str, Tier] = {}
        self.rates = Rates()
        self.draining = False
        #: Models that this node means to evict from its devices.
        self.evicting: Callable[[], frozenset[str]] = frozenset
        #: Beacons and links that change what may be chosen wake whoever waits for a slot.
        self._changed = changed
        self._config = config
        self._mode = Mode(config.routing.mode)
        self._known: dict[str, Standing] = {}
        self._rtts: dict[str, float] = {}
        self._links: set[str] = set()
        self._heard: tuple[int, asyncio.Event] | None = None
        self._endpoints: tuple[Endpoint, ...] = ()
        self._stale = True

    # --- reports

    def add(self, worker: OwnWorker) -> None:
        """One worker of this node. Names are unique: ValueError for a second one."""
        if worker.name in self.own:
            raise ValueError(f"worker {worker.name} exists")
        self.own[worker.name] = worker
        self._stale = True

    def touched(self) -> None:
        """Something of this node changed: the next decision and the next beacon see it."""
        self._stale = True

    def take(self, beacon: Beacon, at_ms: float) -> None:
        """A beacon that was checked and is newer than the last one."""
        view = self.nodes.get(beacon.node)
        if view is None:
            view = self.nodes[beacon.node] = NodeView(
                self.pop,
                beacon,
                at_ms,
                rtt_ms=self._rtts.get(beacon.node),
                linked=beacon.node in self._links,
                standing=self._known.get(beacon.node, Standing.OUT),
            )
        else:
            freed = in_flight(beacon) < in_flight(view.beacon) or states(beacon) != states(view.beacon)
            before, view.beacon, view.at_ms = view.beacon, beacon, at_ms
            if freed or beacon.draining != before.draining or beacon.boot != before.boot:
                self._changed()
        if beacon.draining and view.standing is Standing.GOOD:
            view.standing = Standing.DRAINING
        view.index()
        self._stale = True
        if self._heard is not None and len(self.nodes) >= self._heard[0]:
            self._heard[1].set()

    def pulse(self, node: str, pulse: Pulse, digest: str, at_ms: float) -> None:
        """The state that came with a reply or a refusal: newer than the last beacon, of one worker only."""
        view = self.nodes.get(node)
        if view is not None and view.heard(pulse, digest, at_ms):
            self._stale = True

    def linked(self, node: str, up: bool) -> None:
        """The link to a node came up or was lost."""
        (self._links.add if up else self._links.discard)(node)
        view = self.nodes.get(node)
        if view is not None and view.linked != up:
            view.linked = up
            view.rebuild()
            self._stale = True
            self._changed()

    def measured_rtt(self, node: str, rtt_ms: float) -> None:
        """The smoothed round trip to a node."""
        self._rtts[node] = rtt_ms
        view = self.nodes.get(node)
        if view is not None:
            view.rtt_ms = rtt_ms
            view.rebuild()
            self._stale = True

    def standing(self, node: str, standing: Standing) -> None:
        """Whether a node may be chosen."""
        self._known[node] = standing
        view = self.nodes.get(node)
        if view is None:
            return
        if standing is Standing.GOOD and view.beacon.draining:
            standing = Standing.DRAINING
        if view.standing is not standing:
            view.standing = standing
            view.rebuild()
            self._stale = True
            self._changed()

    def forget(self, node: str) -> None:
        """Nothing was heard of a node for so long that it is taken to be gone for good."""
        self._known.pop(node, None)
        self._rtts.pop(node, None)
        if self.nodes.pop(node, None) is not None:
            self._stale = True
            self._changed()

    # --- what the request path counts

    def begin(self, name: str, cost_ms: float) -> None:
        """A request is sent to an endpoint."""
        own = self.own.get(name)
        if own is not None:
            own.begin(cost_ms)
            return
        found = self._of(name)
        if found is not None:
            view, index = found
            live = view.lives[index]
            live.in_flight += 1
            live.unseen += 1
            live.unseen_ms += cost_ms
            view.sent[index].append((clock.now_ms(), cost_ms))

    def end(self, name: str, cost_ms: float) -> None:
        """It ended, however it did."""
        own = self.own.get(name)
        if own is not None:
            own.end(cost_ms)
            return
        found = self._of(name)
        if found is not None:
            view, index = found
            view.lives[index].in_flight -= 1
            self._changed()

    def _of(self, name: str) -> tuple[NodeView, int] | None:
        node, _, index = name.rpartition("/")
        view = self.nodes.get(node)
        number = int(index)
        return (view, number) if view is not None and number < len(view.lives) else None

    def cost_ms(self, name: str, digest: str) -> float:
        """What one request of a model keeps an endpoint's device for, as far as anybody knows."""
        otherwise_ms = self.learned.service_ms(digest)
        own = self.own.get(name)
        if own is not None:
            return own.cost_ms(digest, otherwise_ms)
        found = self._of(name)
        on = found[0].models[found[1]].get(digest) if found is not None else None
        return on.cost_ms if on is not None and on.cost_ms > 0.0 else otherwise_ms

    def answered(
        self, own: str, digest: str, body_bytes: int, reply_bytes: int, infer_ms: float, batch: int
    ) -> None:
        """One answer; `own` is the worker of this node that gave it, "" for another node's."""
        if own:
            self.own[own].learn(digest, infer_ms, batch)
        self.learned.answered(digest, body_bytes, reply_bytes, infer_ms)

    def has_worker(self) -> bool:
        """Is there any worker, of this node or another, to which requests may be sent?"""
        endpoints = self.current(clock.now_ms()).endpoints
        return any(e.state is State.UP and e.linked and e.standing is not Standing.OUT for e in endpoints)

    def region_of(self, name: str) -> str:
        """The region of an endpoint or node; this node's own if it is unknown."""
        view = self.nodes.get(name.partition("/")[0])
        return view.beacon.region if view is not None else self.region

    def is_cold(self, name: str, digest: str) -> bool:
        """Is a model not on another node's device, as far as this node knows?"""
        found = self._of(name)
        on = found[0].models[found[1]].get(digest) if found is not None else None
        return on is None or on.eta_ms > 0.0

    # --- reading

    def far_sources(self, digest: str) -> tuple[FarSource, ...]:
        """Nodes of other regions that have a model's weights on their disks, nearest first."""
        found = [
            FarSource(node, view.beacon.blobs, view.rtt_ms or UNKNOWN_RTT_MS)
            for node, view in self.nodes.items()
            if digest in view.held
            and view.beacon.blobs
            and view.linked
            and view.beacon.region != self.region
            and view.standing is not Standing.OUT
        ]
        return tuple(sorted(found, key=lambda source: source.rtt_ms)[:MAX_FAR_SOURCES])

    def pulse_of(self, worker: OwnWorker, digest: str, *, boot: int, seq: int) -> Pulse:
        """The state of a worker of this node that goes with a reply or a refusal."""
        return Pulse(
            boot=boot,
            seq=seq,
            worker=list(self.own).index(worker.name),
            state=worker.state,
            in_flight=worker.live.in_flight,
            queued_ms=worker.live.unseen_ms,
            draining=self.draining,
            model=worker.models.get(digest),
        )

    def current(self, now_ms: float) -> Snapshot:
        """The world now. The endpoints are shared between decisions until something changes."""
        if self._stale:
            self._endpoints = self._nearest_first(now_ms)
            self._stale = False
        queue = self._config.queue
        routing = self._config.routing
        return Snapshot(
            now_ms=now_ms,
            endpoints=self._endpoints,
            pop=self.pop,
            region=self.region,
            mode=self._mode,
            waiting=self.waiting,
            max_waiting=queue.max_waiting,
            max_wait_ms=queue.max_wait_ms,
            max_cold_wait_ms=MAX_COLD_WAIT_MS,
            ms_per_usd=routing.ms_per_usd,
            usd_per_gib=routing.usd_per_gib,
        )

    def _nearest_first(self, now_ms: float) -> tuple[Endpoint, ...]:
        own = [self._own(worker, now_ms) for worker in self.own.values()]
        others = [endpoint for view in self.nodes.values() for endpoint in view.endpoints]
        others.sort(key=lambda e: (not e.home, e.rtt_ms, e.name))
        return (*own, *others)

    def _own(self, worker: OwnWorker, now_ms: float) -> Endpoint:
        return Endpoint(
            name=worker.name,
            node=self.node,
            pop=self.pop,
            region=self.region,
            here=True,
            home=True,
            state=worker.state,
            standing=Standing.DRAINING if self.draining else Standing.GOOD,
            at_ms=now_ms,
            soft_limit=worker.soft_limit,
            hard_limit=worker.hard_limit,
            loader_wait_ms=worker.loader_left_ms(now_ms),
            capacity_bytes=worker.device_bytes,
            used_bytes=worker.used_bytes,
            models=worker.models,
            held=self.held,
            rates=self.rates,
            live=worker.live,
        )

    def beacon(self, seq: int, *, boot: int, version: str, announced: bool) -> Beacon:
        """What this node tells the others now."""
        now_ms = clock.now_ms()
        models: dict[str, ModelBeacon] = {
            digest: ModelBeacon(tier=tier) for digest, tier in self.held.items()
        }
        for index, worker in enumerate(self.own.values()):
            worker.refresh_etas(now_ms)
            for digest, on in worker.models.items():
                known = models.get(digest) or ModelBeacon()
                models[digest] = ModelBeacon(tier=known.tier, workers={**known.workers, index: on})
        for digest in self.evicting():
            if digest in models:
                models[digest] = msgspec.structs.replace(models[digest], evicting=True)
        config = self._config
        return Beacon(
            node=self.node,
            pop=self.pop,
            region=self.region,
            boot=boot,
            seq=seq,
            version=version,
            draining=self.draining,
            announced=announced,
            ingress=config.announce is not None,
            blobs=config.weights.blobs,
            provider=config.provider,
            workers=tuple([worker_beacon(worker, now_ms) for worker in self.own.values()]),
            models=models,
            demand=self.learned.demand(now_ms),
            rtts_ms=dict(self._rtts),
            rates=self.rates,
        )

    async def wait_until_heard(self, nodes: int, within_s: float) -> None:
        """Return when so many nodes were heard of, or when the time is up."""
        if len(self.nodes) >= nodes:
            return
        self._heard = (nodes, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._heard[1].wait()

    def beacons(self) -> Mapping[str, tuple[Beacon, float]]:
        """The newest beacon of every other node, and when it came."""
        return {node: (view.beacon, view.at_ms) for node, view in self.nodes.items()}

    def __repr__(self) -> str:
        ends = self.current(clock.now_ms()).endpoints
        parts = [
            f"{e.name} {e.state} {e.standing} {e.in_flight + e.live.unseen}/{e.hard_limit}" for e in ends
        ]
        return f"<Fleet {', '.join(parts) or 'no endpoints'}; {self.waiting} waiting>"
