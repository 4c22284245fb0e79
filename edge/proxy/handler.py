"""The story of one inference request, from its head to its answer.

`route` is told in the order in which things happen: look at the world, decide, act, and on
failure ask the retry policy. It has no opinion of its own. The front door and the mesh
both call it; only the front door adds headers.
"""

from collections.abc import Callable
from typing import assert_never

import msgspec

from edge import clock
from edge.errors import EdgeError, Reason
from edge.fleet.snapshot import Fleet
from edge.policy import retry
from edge.policy.facts import Ask
from edge.policy.route import Queue, Serve, Shed, decide
from edge.proxy.slots import Slots
from edge.proxy.upstream import RequestBody, Upstream
from edge.wire import calls
from edge.wire.exchange import Reply


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """A request that was answered: the answer, and how it came about. Times in ms."""

    inferred: calls.Inferred
    reply: Reply
    target: str
    reason: str
    queued: bool
    route_ms: float
    queue_ms: float


class Handler:
    """Everything a request needs, wired once."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        slots: Slots,
        upstream: Upstream,
        draw: Callable[[], float],
        on_decision: Callable[[str], None],
    ) -> None:
        self._fleet = fleet
        self._slots = slots
        self._upstream = upstream
        self._draw = draw
        self._on_decision = on_decision
        self._budget = retry.Budget(at_ms=clock.now_ms())

    async def route(self, ask: Ask, call: calls.Infer, body: RequestBody) -> Outcome:
        """Run one request somewhere. Raises EdgeError with the reason the client is told.

        `ask.deadline_ms` counts from now and is shared by all attempts and waits.
        """
        started_ms = clock.now_ms()
        waited_ms, queued, attempt = 0.0, False, 1
        while True:
            decided_ms = clock.now_ms()
            left_ms = ask.deadline_ms - (decided_ms - started_ms)
            if left_ms <= 0.0:
                if queued:
                    # It may have been told of a slot that it will not take: tell the next one.
                    self._slots.freed()
                raise EdgeError(Reason.DEADLINE, "the deadline passed before the request could run")
            decision = decide(ask, self._fleet.current(ask.digest), self._draw())
            match decision:
                case Serve(target, reason):
                    self._on_decision(reason)
                    route_ms = clock.now_ms() - started_ms - waited_ms
                    try:
                        inferred, reply = await self._upstream.exchange(
                            target, call, body, deadline_ms=left_ms
                        )
                    except EdgeError as error:
                        if ask.hops and error.reason is not Reason.NO_ENDPOINT:
                            # The ingress decides; only "not loaded" is this node's own to mend.
                            raise
                        self._consider(error, attempt=attempt, body=body, left_ms=left_ms)
                        attempt += 1
                        continue
                    self._budget = self._budget.after_success()
                    return Outcome(inferred, reply, target, reason, queued, route_ms, waited_ms)
                case Queue(reason, budget_ms):
                    self._on_decision(reason)
                    queued = True
                    if waited_ms >= budget_ms or not await self._slots.wait(
                        min(budget_ms - waited_ms, left_ms)
                    ):
                        raise _waited_too_long(reason, budget_ms)
                    waited_ms += clock.now_ms() - decided_ms
                case Shed(shed, retry_after_s):
                    raise EdgeError(shed, _SHED[shed], retry_after_s=retry_after_s)
                case unreachable:
                    assert_never(unreachable)

    def _consider(self, error: EdgeError, *, attempt: int, body: RequestBody, left_ms: float) -> None:
        """Return when the request is to be tried again here; raise `error` when it is given up."""
        self._budget = self._budget.refilled(clock.now_ms())
        next_step = retry.after(
            error, attempt=attempt, body_held=body.repeatable, left_ms=left_ms, budget=self._budget
        )
        match next_step:
            case retry.Next.AGAIN_HERE:
                self._budget = self._budget.after_retry()
            case retry.Next.GIVE_UP:
                raise error
            case unreachable:
                assert_never(unreachable)


_SHED = {
    Reason.NO_ENDPOINT: "no worker of this POP can serve now",
    Reason.QUEUE_FULL: "every worker is busy and the queue is full",
    Reason.SATURATED: "every worker is busy and the wait would exceed its budget",
}


def _waited_too_long(reason: str, budget_ms: float) -> EdgeError:
    if reason == "starting":
        return EdgeError(Reason.NO_ENDPOINT, f"no worker came up within {budget_ms:.0f} ms", retry_after_s=2)
    return EdgeError(Reason.QUEUE_TIMEOUT, f"no worker was free within {budget_ms:.0f} ms", retry_after_s=2)
