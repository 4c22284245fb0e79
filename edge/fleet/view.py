"""What is known of one other node, and how a worker of this one is told to the others. No I/O.

A beacon, a pulse or a measured round trip comes in, endpoints come out: what `edge.fleet.snapshot`
shows to decisions. Whom it wakes, and when, is its business.
"""

import dataclasses
from collections import deque
from collections.abc import Mapping
from typing import Final

import msgspec

from edge.fleet.own import OwnWorker
from edge.policy.facts import (
    Beacon,
    Endpoint,
    Live,
    ModelBeacon,
    OnDevice,
    Pulse,
    Standing,
    State,
    Tier,
    WorkerBeacon,
)

#: A node that was never probed is taken to be this far.
UNKNOWN_RTT_MS: Final = 200.0
MAX_SENT: Final = 4_096


@dataclasses.dataclass(slots=True)
class NodeView:
    """What is known of one other node, as a node of POP `seen_from` sees it.

    `sent` are (sent at, cost) of requests that its newest beacon may not show yet, by worker.
    """

    seen_from: str
    beacon: Beacon
    at_ms: float
    rtt_ms: float | None = None
    linked: bool = False
    standing: Standing = Standing.OUT
    lives: list[Live] = dataclasses.field(default_factory=list)
    sent: list[deque[tuple[float, float]]] = dataclasses.field(default_factory=list)
    models: list[dict[str, OnDevice]] = dataclasses.field(default_factory=list)
    held: dict[str, Tier] = dataclasses.field(default_factory=dict)
    indexed: Mapping[str, ModelBeacon] | None = None
    endpoints: tuple[Endpoint, ...] = ()

    def index(self) -> None:
        """From a new beacon to endpoints."""
        beacon = self.beacon
        count = len(beacon.workers)
        while len(self.lives) < count:
            self.lives.append(Live())
            self.sent.append(deque(maxlen=MAX_SENT))
        # A beacon that changed no model keeps the very dict, and most are of that kind.
        if beacon.models is not self.indexed or len(self.models) != count:
            self.indexed = beacon.models
            self.models = [{} for _ in range(count)]
            self.held = {}
            for digest, model in beacon.models.items():
                if model.tier is not Tier.ORIGIN:
                    self.held[digest] = model.tier
                for index, on in model.workers.items():
                    self.models[index][digest] = on
        self._settle()

    def heard(self, pulse: Pulse, digest: str, at_ms: float) -> bool:
        """What came with a reply or a refusal, if it is newer than what is known. Was it?"""
        if not 0 <= pulse.worker < len(self.beacon.workers):
            return False
        if (pulse.boot, pulse.seq) < (self.beacon.boot, self.beacon.seq):
            return False
        workers = list(self.beacon.workers)
        workers[pulse.worker] = msgspec.structs.replace(
            workers[pulse.worker],
            state=pulse.state,
            in_flight=pulse.in_flight,
            queued_ms=pulse.queued_ms,
        )
        self.beacon = msgspec.structs.replace(self.beacon, workers=tuple(workers))
        self.at_ms = at_ms
        if pulse.draining and self.standing is Standing.GOOD:
            self.standing = Standing.DRAINING
        known = self.models[pulse.worker]
        if pulse.model is None and digest in known:
            self.models[pulse.worker] = {key: on for key, on in known.items() if key != digest}
            self.indexed = None
        elif pulse.model is not None and (digest not in known or known[digest].eta_ms > 0.0):
            self.models[pulse.worker] = {**known, digest: pulse.model}
            self.indexed = None
        self._settle()
        return True

    def _settle(self) -> None:
        """What the newest state shows is no longer unseen; then the endpoints anew."""
        seen_until_ms = self.at_ms - (self.rtt_ms or 0.0)
        for live, sent in zip(self.lives, self.sent, strict=True):
            while sent and sent[0][0] < seen_until_ms:
                sent.popleft()
            live.unseen = len(sent)
            live.unseen_ms = sum(cost for _, cost in sent)
        self.rebuild()

    def rebuild(self) -> None:
        """The endpoints anew, of what is known now."""
        beacon = self.beacon
        rtt_ms = self.rtt_ms if self.rtt_ms is not None else UNKNOWN_RTT_MS
        self.endpoints = tuple(
            [
                Endpoint(
                    name=f"{beacon.node}/{index}",
                    node=beacon.node,
                    pop=beacon.pop,
                    region=beacon.region,
                    here=False,
                    home=beacon.pop == self.seen_from,
                    state=worker.state,
                    standing=self.standing,
                    rtt_ms=rtt_ms,
                    linked=self.linked,
                    at_ms=self.at_ms,
                    soft_limit=worker.soft_limit,
                    hard_limit=worker.hard_limit,
                    in_flight=worker.in_flight,
                    queued_ms=worker.queued_ms,
                    arrivals_per_s=worker.arrivals_per_s,
                    parallel=max(1.0, worker.parallel),
                    loader_wait_ms=worker.loader_wait_ms,
                    capacity_bytes=worker.device_bytes,
                    used_bytes=worker.used_bytes,
                    models=self.models[index],
                    held=self.held,
                    rates=beacon.rates,
                    live=self.lives[index],
                )
                for index, worker in enumerate(beacon.workers)
            ]
        )


def worker_beacon(worker: OwnWorker, now_ms: float) -> WorkerBeacon:
    """What a beacon says of a worker of this node."""
    return WorkerBeacon(
        state=worker.state,
        soft_limit=worker.soft_limit,
        hard_limit=worker.hard_limit,
        in_flight=worker.live.in_flight,
        queued_ms=worker.live.unseen_ms,
        arrivals_per_s=worker.arrivals_per_s(now_ms),
        loader_wait_ms=worker.loader_left_ms(now_ms),
        device=worker.device,
        device_bytes=worker.device_bytes,
        used_bytes=worker.used_bytes,
    )


def in_flight(beacon: Beacon) -> int:
    """Requests that run at a node, as it told."""
    return sum([worker.in_flight for worker in beacon.workers])


def states(beacon: Beacon) -> list[State]:
    """How its workers are, as it told."""
    return [worker.state for worker in beacon.workers]
