"""Where should this request run?

`decide` reads one Ask and one Snapshot and returns one Decision. No I/O, no clock, no
state: tests/spec/test_route.py is its whole specification. The order of the rules is the
order of preference.
"""

from typing import Final

import msgspec

from edge.errors import Reason
from edge.policy.admission import predicted_wait_ms
from edge.policy.facts import Ask, Endpoint, Snapshot, State


class Serve(msgspec.Struct, frozen=True, gc=False):
    """Run it at `target`; `reason` says why there."""

    target: str
    reason: str


class Queue(msgspec.Struct, frozen=True, gc=False):
    """Wait for a slot, at most `budget_ms`, then ask again."""

    reason: str
    budget_ms: float


class Shed(msgspec.Struct, frozen=True, gc=False):
    """Refuse, with the reason and the seconds after which trying again makes sense."""

    reason: Reason
    retry_after_s: int


Decision = Serve | Queue | Shed

RETRY_AFTER_S: Final = 2


def decide(ask: Ask, world: Snapshot, draw: float) -> Decision:
    """Choose where `ask` runs. `draw` in [0, 1) breaks ties.

    1. Only this node's own workers for a request that was already forwarded once.
    2. An endpoint that is up and below its hard limit: below the soft limit before above it,
       warm before cold, least loaded, this node before a peer.
    3. All are full: wait, if the wait is bounded and predicted to fit, else shed 429.
    4. None is up but one is starting: wait for it within the cold budget, else shed 503.
    5. None at all: shed 503.
    """
    candidates = [
        endpoint
        for endpoint in world.endpoints
        if endpoint.state is not State.DOWN and (endpoint.home or ask.hops == 0)
    ]
    if not candidates:
        return Shed(Reason.NO_ENDPOINT, RETRY_AFTER_S)
    up = [endpoint for endpoint in candidates if endpoint.state is State.UP]
    free = [endpoint for endpoint in up if endpoint.in_flight < endpoint.hard_limit]
    if free:
        best = _pick(free, draw)
        return Serve(best.name, _why(best))
    if world.waiting >= world.max_waiting:
        return Shed(Reason.QUEUE_FULL, RETRY_AFTER_S)
    if not up:
        return Queue("starting", min(world.max_cold_wait_ms, ask.deadline_ms))
    budget_ms = min(world.max_wait_ms, ask.deadline_ms)
    if predicted_wait_ms(world.waiting, up) > budget_ms:
        return Shed(Reason.SATURATED, RETRY_AFTER_S)
    return Queue("saturated", budget_ms)


def _pick(free: list[Endpoint], draw: float) -> Endpoint:
    if len(free) == 1:
        return free[0]
    keys = [(e.in_flight >= e.soft_limit, not e.warm, e.in_flight / e.hard_limit, not e.home) for e in free]
    best = min(keys)
    ties = [endpoint for endpoint, key in zip(free, keys, strict=True) if key == best]
    return ties[int(draw * len(ties))]


def _why(endpoint: Endpoint) -> str:
    if endpoint.in_flight >= endpoint.soft_limit:
        return "above-soft-limit"
    if not endpoint.warm:
        return "cold"
    return "warm" if endpoint.home else "warm-peer"
