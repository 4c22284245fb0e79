"""Why a request ran where it ran, for whoever asks: a bounded memory, and a dry run.

Each decision is kept as the values that it was made from; the terms of every candidate are
worked out again, by the same formula, only when somebody asks.
"""

from collections import OrderedDict
from typing import Any, Final

import msgspec

from edge.errors import EdgeError, Reason, Source
from edge.policy.decision import Chosen, Decision, Queue, Shed, Spill
from edge.policy.facts import Ask, Live, Snapshot
from edge.policy.route import decide, explain
from edge.proxy.handler import Step, Story

#: Requests that are remembered; the endpoints they saw are shared between them.
MAX_REQUESTS: Final = 512
SCHEMA_VERSION: Final = 1


class Kept(msgspec.Struct, frozen=True, gc=False):
    """One request: what became of it, and every decision on the way."""

    model: str
    version: str
    route: str
    served_by: str
    status: int
    took_ms: float
    wall_ms: int
    story: Story


class Ring:
    """The last MAX_REQUESTS inference requests of this front door, by request id."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def put(self, request_id: str, kept: Kept) -> None:
        """Remember one; the oldest is forgotten. A client may give an id again: the later one stands."""
        self._kept[request_id] = kept
        self._kept.move_to_end(request_id)
        if len(self._kept) > MAX_REQUESTS:
            self._kept.popitem(last=False)

    def document(self, request_id: str) -> dict[str, Any]:
        """The explanation of a request. Raises EdgeError(UNKNOWN_PATH) when it is not remembered."""
        kept = self._kept.get(request_id)
        if kept is None:
            raise EdgeError(
                Reason.UNKNOWN_PATH,
                f"no such request; the last {MAX_REQUESTS} that came in at this node are remembered",
                source=Source.DOWNSTREAM,
            )
        return {
            "schema_version": SCHEMA_VERSION,
            "request_id": request_id,
            "model": kept.model,
            "version": kept.version,
            "route": kept.route,
            "served_by": kept.served_by,
            "status": kept.status,
            "took_ms": round(kept.took_ms, 3),
            "wall_ms": kept.wall_ms,
            "waited_ms": round(kept.story.waited_ms, 3),
            "executions": kept.story.executions,
            "decisions": [
                {"after_ms": round(step.at_ms - kept.story.steps[0].at_ms, 3), **_step(step)}
                for step in kept.story.steps
            ],
        }


def dry_run(ask: Ask, world: Snapshot, draw: float, version: str) -> dict[str, Any]:
    """What would be decided now, and every candidate with its score; changes nothing and runs nothing."""
    decision = decide(ask, world, draw)
    lives = tuple([endpoint.live for endpoint in world.endpoints])
    return {
        "schema_version": SCHEMA_VERSION,
        "model": ask.model,
        "version": version,
        **_step(Step(world.now_ms, ask, world, lives, decision)),
    }


def _step(step: Step) -> dict[str, Any]:
    """One decision and the candidates as they were when it was made."""
    then = msgspec.structs.replace(
        step.world,
        endpoints=tuple(
            [
                msgspec.structs.replace(endpoint, live=Live(live.in_flight, live.unseen, live.unseen_ms))
                for endpoint, live in zip(step.world.endpoints, step.lives, strict=True)
            ]
        ),
    )
    found: dict[str, Any] = {
        "decision": told(step.decision),
        "deadline_ms": round(step.ask.deadline_ms, 1),
        "waiting": then.waiting,
        "mode": str(then.mode),
        "candidates": [
            {
                "endpoint": row.endpoint.name,
                "pop": row.endpoint.pop,
                "region": row.endpoint.region,
                "score_ms": round(row.terms.total, 3),
                **{
                    f"{name}_ms": round(value, 3) for name, value in msgspec.structs.asdict(row.terms).items()
                },
                "in_flight": row.endpoint.in_flight + row.endpoint.live.unseen,
                "hard_limit": row.endpoint.hard_limit,
                "standing": str(row.endpoint.standing),
                "age_ms": 0.0 if row.endpoint.here else round(then.now_ms - row.endpoint.at_ms, 1),
                "why_not": row.excluded or _why_not(row.endpoint.name, step.decision),
            }
            for row in explain(step.ask, then)
        ],
    }
    if step.failed:
        found["failed"] = step.failed
    return found


def told(decision: Decision) -> dict[str, Any]:
    """A decision as JSON tells it."""
    match decision:
        case Queue(reason, budget_ms):
            return {"route": "queue", "reason": reason, "budget_ms": round(budget_ms, 1)}
        case Shed(reason, retry_after_s):
            return {"route": "shed", "reason": str(reason), "retry_after_s": retry_after_s}
        case _:
            return {
                "route": route_word(decision),
                "target": decision.target,
                "reason": decision.reason,
                "score_ms": round(decision.score_ms, 3),
                "next": decision.next,
                "next_ms": round(decision.next_ms, 3),
            }


def route_word(decision: Chosen) -> str:
    """serve | hydrate | spill | failover."""
    if isinstance(decision, Spill):
        return "failover" if decision.broken else "spill"
    return type(decision).__name__.lower()


def _why_not(name: str, decision: Decision) -> str:
    if isinstance(decision, Chosen):
        return "" if decision.target == name else "not-better"
    return ""
