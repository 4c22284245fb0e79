"""The story of one inference request, from its head to its answer.

`infer` is told in the order in which things happen: look at the world, decide, act, and on
failure ask the retry policy. It has no opinion of its own. The front door and the mesh
both call it; only the front door adds headers.
"""

from collections.abc import Callable
from typing import Final, assert_never

import msgspec

from edge import clock
from edge.errors import EdgeError, Reason
from edge.fleet.snapshot import Fleet
from edge.policy import retry
from edge.policy.decision import Chosen, Decision, Hydrate, Queue, Serve, Shed, Spill
from edge.policy.facts import Ask, Live, Snapshot
from edge.policy.route import decide
from edge.proxy.slots import Slots
from edge.proxy.upstream import RequestBody, Upstream
from edge.wire import calls
from edge.wire.exchange import Reply

#: Decisions of one request that are remembered for its explanation.
MAX_STEPS: Final = 12


class Step(msgspec.Struct, frozen=True, gc=False):
    """One look at the world and what came of it. `lives` are the counts of that moment, by endpoint."""

    at_ms: float
    ask: Ask
    world: Snapshot
    lives: tuple[Live, ...]
    decision: Decision
    failed: str = ""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """A request that was answered: the answer, and how it came about. Times in ms.

    `route` is the word for it: serve, hydrate, queue (it waited first), spill or failover.
    """

    inferred: calls.Inferred
    reply: Reply
    chosen: Chosen
    route: str
    route_ms: float
    queue_ms: float
    hop_ms: float


class Story:
    """What is kept of one request while it runs: its decisions, for whoever asks later why."""

    __slots__ = ("executions", "place", "steps", "waited_ms")

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.executions = 0
        self.place = 0
        self.waited_ms = 0.0


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

    async def infer(self, ask: Ask, call: calls.Infer, body: RequestBody, story: Story) -> Outcome:
        """Run one request somewhere. Raises EdgeError with the reason the client is told.

        `ask.deadline_ms` counts from now and is shared by all attempts and waits.
        """
        started_ms, whole_ms = clock.now_ms(), ask.deadline_ms
        queued, tries = False, 0
        failed: EdgeError | None = None
        while True:
            decided_ms = clock.now_ms()
            left_ms = whole_ms - (decided_ms - started_ms)
            if left_ms <= 0.0:
                if queued:
                    # It may have been told of a slot that it will not take: tell the next one.
                    self._slots.freed()
                raise EdgeError(Reason.DEADLINE, "the deadline passed before the request could run")
            if tries or queued:
                ask = msgspec.structs.replace(ask, deadline_ms=left_ms)
            world = self._fleet.current(decided_ms)
            decision = decide(ask, world, self._draw())
            if len(story.steps) < MAX_STEPS:
                lives = tuple(
                    [Live(e.live.in_flight, e.live.unseen, e.live.unseen_ms) for e in world.endpoints]
                )
                story.steps.append(Step(decided_ms, ask, world, lives, decision))
            match decision:
                case Serve() | Hydrate() | Spill():
                    tries += 1
                    self._on_decision(decision.reason)
                    route_ms = clock.now_ms() - started_ms - story.waited_ms
                    try:
                        inferred, reply, hop_ms = await self._upstream.exchange(
                            decision, ask, call, body, deadline_ms=left_ms
                        )
                    except EdgeError as error:
                        failed = error
                        left_ms = whole_ms - (clock.now_ms() - started_ms)
                        ask = self._consider(error, decision, ask, body, left_ms, story, tries)
                        continue
                    story.executions += 1
                    self._budget = self._budget.after_success()
                    self._fleet.learned.went(ask.digest, away=isinstance(decision, Spill))
                    route = "queue" if queued else _word(decision)
                    return Outcome(inferred, reply, decision, route, route_ms, story.waited_ms, hop_ms)
                case Queue(reason, budget_ms):
                    self._on_decision(reason)
                    waited_ms = story.waited_ms
                    story.place = story.place or self._slots.place()
                    if waited_ms >= budget_ms or not await self._slots.wait(
                        min(budget_ms - waited_ms, left_ms), story.place
                    ):
                        raise _waited_too_long(reason, budget_ms)
                    queued = True
                    story.waited_ms += clock.now_ms() - decided_ms
                case Shed(shed, retry_after_s):
                    self._on_decision(str(shed))
                    if failed is not None:
                        # Nobody else is left: what went wrong says more than that.
                        raise failed
                    raise EdgeError(shed, _SHED[shed], retry_after_s=retry_after_s, retryable=True)
                case unreachable:
                    assert_never(unreachable)

    def _consider(
        self,
        error: EdgeError,
        chosen: Chosen,
        ask: Ask,
        body: RequestBody,
        left_ms: float,
        story: Story,
        tries: int,
    ) -> Ask:
        """The ask to decide again with; raises `error` when the request is given up."""
        if story.steps:
            story.steps[-1] = msgspec.structs.replace(
                story.steps[-1], failed=f"{error.reason}: {error.message}"
            )
        if ask.hops and error.reason is not Reason.NO_ENDPOINT:
            # The ingress decides; only "not loaded" is this node's own to mend.
            raise error
        if not error.retryable:
            story.executions += 1
        self._budget = self._budget.refilled(clock.now_ms())
        next_step = retry.after(
            error,
            attempt=tries,
            executions=story.executions,
            body_held=body.repeatable,
            left_ms=left_ms,
            estimate_ms=chosen.score_ms,
            budget=self._budget,
        )
        node = chosen.target.rpartition("/")[0]
        own = node == self._fleet.node
        match next_step:
            case retry.Next.AGAIN_HERE:
                self._budget = self._budget.after_retry()
                return ask
            case retry.Next.ELSEWHERE:
                if retry.costs_token(error):
                    self._budget = self._budget.after_retry()
                if error.reason is Reason.COLD_REFUSED and node not in self._refused_once(ask, story):
                    # It told that the model is not there: now that this is known, it may still be the best.
                    return ask
                if own and error.retryable and error.reason not in retry.OF_THE_NODE | retry.OF_THE_DEVICE:
                    # A worker of this node that is away says so by its state; its siblings may serve.
                    return ask
                whole_node = not own or error.reason in retry.OF_THE_NODE
                return msgspec.structs.replace(ask, tried=ask.tried | {node if whole_node else chosen.target})
            case retry.Next.GIVE_UP:
                raise error
            case unreachable:
                assert_never(unreachable)

    @staticmethod
    def _refused_once(ask: Ask, story: Story) -> set[str]:
        """Nodes that refused this request before its last attempt."""
        return {
            step.decision.target.rpartition("/")[0]
            for step in story.steps[:-1]
            if isinstance(step.decision, Chosen) and step.failed
        }


def _word(decision: Chosen) -> str:
    """The route's name in header and metric."""
    if isinstance(decision, Spill):
        return "failover" if decision.broken else "spill"
    return "hydrate" if isinstance(decision, Hydrate) else "serve"


_SHED = {
    Reason.NO_ENDPOINT: "no worker can serve now",
    Reason.QUEUE_FULL: "every worker is busy and the queue is full",
    Reason.SATURATED: "every worker is busy and the wait would exceed its budget",
    Reason.BUSY: "every worker is busy, and the request asked not to wait",
    Reason.CONFINED: "no worker is up in the regions to which this model is confined",
    Reason.REGION: "no worker is up in the regions or POPs that the request demands",
    Reason.COLD_REFUSED: "the model is on no device, and bringing it takes longer than the request may wait",
    Reason.NO_MEMORY: "the model is larger than any device",
    Reason.DEADLINE: "every worker that could serve is farther away than the deadline allows",
}


def _waited_too_long(reason: str, budget_ms: float) -> EdgeError:
    if reason == "starting":
        token, text = Reason.NO_ENDPOINT, f"no worker came up within {budget_ms:.0f} ms"
    else:
        token, text = Reason.QUEUE_TIMEOUT, f"no worker was free within {budget_ms:.0f} ms"
    return EdgeError(token, text, retryable=True, retry_after_s=2)
