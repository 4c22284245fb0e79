"""What is known of one other node, and how a worker of this one is told to the others. No I/O."""

import dataclasses
from collections import deque
from collections.abc import Mapping

from edge.fleet.own import OwnWorker
from edge.policy.facts import (
    Beacon,
    Endpoint,
    Live,
    ModelBeacon,
    OnDevice,
    Standing,
    State,
    Tier,
    WorkerBeacon,
)


@dataclasses.dataclass(slots=True)
class NodeView:
    """What is known of one other node.

    `sent` are (sent at, cost) of requests that its newest beacon may not show yet, by worker.
    """

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
