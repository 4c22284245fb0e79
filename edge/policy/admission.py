"""How long would one more request wait? Pure; used before a request is let into the queue."""

from collections.abc import Sequence

from edge.policy.facts import Endpoint


def predicted_wait_ms(waiting: int, full: Sequence[Endpoint]) -> float:
    """Milliseconds until a request that joins the queue now gets a slot.

    `full` are the endpoints that are up and at their hard limit. By Little's law each frees
    `hard_limit / service_ms` slots per millisecond, and `waiting + 1` slots are needed.
    An endpoint that never answered yet (service 0) predicts nothing: the bound on the queue
    and the waiting budget still hold.
    """
    freed_per_ms = sum(e.hard_limit / e.service_ms for e in full if e.service_ms > 0.0)
    return (waiting + 1) / freed_per_ms if freed_per_ms > 0.0 else 0.0
