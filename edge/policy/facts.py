"""What a decision may know, frozen. No I/O, no clock, no behaviour.

Times are milliseconds. In this form a node knows the endpoints of its own POP: its own
workers, and its static peers with the load that it sent them itself.

Several of these are made for each request; as named tuples they were 12 % of the proxy's CPU.
"""

from enum import StrEnum

import msgspec


class State(StrEnum):
    """Whether requests may be sent to an endpoint; STARTING is worth waiting for, DOWN is not."""

    UP = "up"
    STARTING = "starting"
    DOWN = "down"


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """Somewhere a request can run.

    `name` is `node/worker` for a worker of this node and the node's name for a peer. `warm` is
    True when the model is resident there as far as this node knows.
    """

    name: str
    home: bool
    state: State
    in_flight: int
    soft_limit: int
    hard_limit: int
    warm: bool
    service_ms: float


class Ask(msgspec.Struct, frozen=True, gc=False):
    """One request's wish. `hops` counts forwards so far: above 0 it stays on this node."""

    model: str
    digest: str
    deadline_ms: float
    body_bytes: int
    hops: int = 0


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """The world as this node sees it now; read once per decision."""

    endpoints: tuple[Endpoint, ...]
    waiting: int
    max_waiting: int
    max_wait_ms: float
    max_cold_wait_ms: float
