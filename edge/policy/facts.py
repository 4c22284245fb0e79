"""What a decision may know, frozen. No I/O, no clock, no behaviour.

Times are milliseconds, rates bytes per millisecond unless the name says otherwise, ratios
0..1. `Beacon` is what a node tells the others; `Endpoint` is one worker of one node as this
node sees it; `Snapshot` is the world that a decision reads; `Ask` is one request's wish.

Several of these are read for each request: as named tuples they were 12 % of the proxy's CPU.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

#: What a model is assumed to take until anybody has measured it.
SERVICE_MS: Final = 20.0


class State(StrEnum):
    """A worker process: requests may be sent to it, it is worth waiting for, or neither."""

    UP = "up"
    STARTING = "starting"
    DOWN = "down"


class Standing(StrEnum):
    """Whether a node may be chosen, by what was heard of it and how the last exchanges went."""

    GOOD = "good"
    #: Nothing heard for a while: chosen only when it is clearly better.
    SUSPECT = "suspect"
    #: Takes nothing new.
    DRAINING = "draining"
    #: Too many failures, or nothing heard for too long: chosen only when nobody else is left.
    OUT = "out"


class Tier(StrEnum):
    """How near the weights are, nearest first."""

    DEVICE = "device"
    HOST = "host"
    DISK = "disk"
    REGION = "region"
    FAR = "far"
    ORIGIN = "origin"


class Mode(StrEnum):
    """How an endpoint is chosen (`routing.mode`)."""

    PREDICTED = "predicted"
    WATERFALL = "waterfall"
    NEAREST = "nearest"
    NEVER = "never"


class Cold(StrEnum):
    """What a client wants while its model is on no device of this POP (`Edge-Cold`)."""

    FAR = "far"
    WAIT = "wait"
    REJECT = "reject"


class OnDevice(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One model on one device, or on its way there.

    `eta_ms` 0: resident; else ready in about so long, counted from when this was told.
    `service_ms` is one request's time on the device, `cost_ms` what it keeps the device from
    others (less than `service_ms` where requests are batched); 0 until measured. `load_ms` is
    what loading it from this node's disk took, `device_bytes` what it takes there, 0 if not known.
    """

    eta_ms: float = 0.0
    service_ms: float = 0.0
    cost_ms: float = 0.0
    load_ms: float = 0.0
    device_bytes: int = 0


class Rates(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a node measured of its own weight paths, in bytes per ms; the defaults are guesses."""

    load: float = 500_000.0
    region: float = 100_000.0
    far: float = 20_000.0
    origin: float = 20_000.0


class WorkerBeacon(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One worker's load. `queued_ms` is device time of all that is in it, `parallel` how many run at once.

    `arrivals_per_s` counts requests of every ingress; `loader_wait_ms` is when it can begin
    another load.
    """

    state: State
    soft_limit: int
    hard_limit: int
    in_flight: int = 0
    queued_ms: float = 0.0
    arrivals_per_s: float = 0.0
    parallel: float = 1.0
    loader_wait_ms: float = 0.0
    device: str = "cpu"
    device_bytes: int = 0
    used_bytes: int = 0


class ModelBeacon(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One model at one node. `tier`: DISK or HOST when all of its blobs are there, else ORIGIN.

    `workers` are the devices that have it, by worker index; `evicting` while the node means to
    evict it from them.
    """

    tier: Tier = Tier.ORIGIN
    workers: dict[int, OnDevice] = msgspec.field(default_factory=dict)
    evicting: bool = False


class Beacon(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The compact state that a node tells the others. Ordered by (boot, seq) of its node.

    `demand` is requests per second at this node's own front door by model digest, `rtts_ms` its
    measured round trips to other nodes by name, `blobs` the host:port of its blob server.
    `announced`: it attracts clients by right, and not only because nobody else does.
    """

    node: str
    pop: str
    region: str
    boot: int
    seq: int
    version: str = ""
    draining: bool = False
    announced: bool = False
    ingress: bool = False
    blobs: str = ""
    provider: str = ""
    workers: tuple[WorkerBeacon, ...] = ()
    models: dict[str, ModelBeacon] = msgspec.field(default_factory=dict)
    demand: dict[str, float] = msgspec.field(default_factory=dict)
    rtts_ms: dict[str, float] = msgspec.field(default_factory=dict)
    rates: Rates = Rates()


class Pulse(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The part of a beacon that changes with every request; comes back with every reply and refusal.

    `model` is the asked model on the worker that answered, None when it is not on its device.
    """

    boot: int
    seq: int
    worker: int = 0
    state: State = State.UP
    in_flight: int = 0
    queued_ms: float = 0.0
    draining: bool = False
    model: OnDevice | None = None


class Live(msgspec.Struct, gc=False):
    """What this node itself sent to an endpoint: the one thing here that changes in place.

    `in_flight` is not answered yet; `unseen` of those, with `unseen_ms` of device time, are not
    in the endpoint's newest beacon. Only the fleet's books write it.
    """

    in_flight: int = 0
    unseen: int = 0
    unseen_ms: float = 0.0


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One worker of one node as this node sees it, true at `at_ms` of this node's clock.

    `name` is `node/worker`. `here`: a worker of this very node, whose load is all in `live`;
    `home`: of this POP. `models` are on its device or on their way there; `held` says which the
    node has on its own disk or in host memory. `bytes_per_ms` is the path's bandwidth, `capacity_bytes`
    the device's memory (0: not known), of which `used_bytes` are taken.
    """

    name: str
    node: str
    pop: str
    region: str
    here: bool
    home: bool
    state: State
    standing: Standing = Standing.GOOD
    rtt_ms: float = 0.0
    bytes_per_ms: float = 12_500.0
    linked: bool = True
    at_ms: float = 0.0
    soft_limit: int = 32
    hard_limit: int = 128
    in_flight: int = 0
    queued_ms: float = 0.0
    arrivals_per_s: float = 0.0
    parallel: float = 1.0
    loader_wait_ms: float = 0.0
    capacity_bytes: int = 0
    used_bytes: int = 0
    models: Mapping[str, OnDevice] = msgspec.field(default_factory=dict)
    held: Mapping[str, Tier] = msgspec.field(default_factory=dict)
    rates: Rates = Rates()
    live: Live = msgspec.field(default_factory=Live)


class Ask(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request's wish. `hops` counts forwards so far: above 0 it stays on this node.

    `weights_bytes`, `service_ms` and `reply_bytes` are what is known of the model where an endpoint
    tells nothing; `exec_factor` is what a body of this size takes, as a ratio to the model's mean.
    `confine`, `force` and `prefer` are regions (the latter two also POPs), empty for anywhere.
    `tried` are nodes or endpoints that refused or failed it already. `away`: the last decision of
    this model left the POP.
    `session` is a number that stands for the client's session, None without one.
    """

    model: str
    digest: str
    deadline_ms: float
    body_bytes: int
    hops: int = 0
    worker: str = ""
    weights_bytes: int = 0
    service_ms: float = SERVICE_MS
    reply_bytes: int = 0
    exec_factor: float = 1.0
    confine: frozenset[str] = frozenset()
    force: frozenset[str] = frozenset()
    prefer: tuple[str, ...] = ()
    reject_if_busy: bool = False
    cold: Cold = Cold.FAR
    session: int | None = None
    tried: frozenset[str] = frozenset()
    away: bool = False


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The world as this node sees it now; read once per decision. `endpoints` are nearest first."""

    now_ms: float
    endpoints: tuple[Endpoint, ...]
    pop: str = ""
    region: str = ""
    mode: Mode = Mode.PREDICTED
    waiting: int = 0
    max_waiting: int = 256
    max_wait_ms: float = 2_000.0
    max_cold_wait_ms: float = 30_000.0
    ms_per_usd: float = 0.0
    usd_per_gib: float = 0.0
