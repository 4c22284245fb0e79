"""How long would one more request wait, and may it? Pure; asked before a request is let into the queue.

Two things are waited for: a slot, when all that could serve are at their hard limit, and a
cold start. Each has its own budget; a wait that is predicted to be longer is refused at once,
as a queue that can't be served in time only makes the others late. Which endpoint is chosen,
and what is preferred above a soft limit, is `edge.policy.route`'s business.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from edge.errors import Reason
from edge.policy.facts import Ask, Endpoint, Snapshot

RETRY_AFTER_MIN_S: Final = 1
RETRY_AFTER_MAX_S: Final = 30


class Wait(msgspec.Struct, frozen=True, gc=False):
    """It may wait, at most so long."""

    budget_ms: float


class Refuse(msgspec.Struct, frozen=True, gc=False):
    """It may not: why, and the seconds after which trying again makes sense."""

    reason: Reason
    retry_after_s: int


def verdict(ask: Ask, world: Snapshot, wait_ms: float, *, cold: bool) -> Wait | Refuse:
    """May `ask` join the queue for a wait that is predicted to take `wait_ms` (0: unknown)?

    `cold`: it waits for weights or for a worker that starts, at most min(deadline, max_cold_wait);
    else for a slot, at most min(deadline, max_wait).
    """
    again_s = retry_after_s(wait_ms)
    if ask.reject_if_busy:
        return Refuse(Reason.BUSY, again_s)
    if world.waiting >= world.max_waiting:
        return Refuse(Reason.QUEUE_FULL, again_s)
    budget_ms = min(world.max_cold_wait_ms if cold else world.max_wait_ms, ask.deadline_ms)
    if wait_ms > budget_ms:
        return Refuse(Reason.COLD_REFUSED if cold else Reason.SATURATED, again_s)
    return Wait(budget_ms)


def predicted_wait_ms(waiting: int, full: Sequence[Endpoint]) -> float:
    """Milliseconds until a request that joins the queue now gets a slot.

    `full` are the endpoints that are up and at their hard limit. One that has n requests with
    work_ms of device time in it, `parallel` at once, has answered them all in work_ms / parallel;
    by Little's law it frees n * parallel / work_ms slots per millisecond until then. `waiting + 1`
    slots are needed, and who waits takes the first that any endpoint frees:

        wait_ms = (waiting + 1) / sum(n * parallel / work_ms)

    An endpoint whose work is unknown (0) predicts nothing: the bound on the queue and the waiting
    budget still hold.
    """
    freed_per_ms = 0.0
    for endpoint in full:
        live = endpoint.live
        work_ms = endpoint.queued_ms + live.unseen_ms
        if work_ms > 0.0:
            freed_per_ms += (endpoint.in_flight + live.unseen) * endpoint.parallel / work_ms
    return (waiting + 1) / freed_per_ms if freed_per_ms > 0.0 else 0.0


def retry_after_s(predicted_ms: float) -> int:
    """Whole seconds for `Retry-After`: when what was predicted will have passed, 1 to 30."""
    return math.ceil(min(max(predicted_ms / 1000.0, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S))
