"""Explanations: their fields are frozen, and they tell the moment of the decision, not the present."""

import pytest

from edge import clock
from edge.errors import EdgeError
from edge.fleet.snapshot import Fleet
from edge.policy.facts import Ask, Live
from edge.policy.route import decide
from edge.proxy.explain import MAX_REQUESTS, Kept, Ring, dry_run
from edge.proxy.handler import Step, Story
from tests.support.facts import a_node, a_worker

FIELDS = {
    "endpoint", "pop", "region", "score_ms", "net_ms", "queue_ms", "cold_ms", "exec_ms", "price_ms",
    "in_flight", "hard_limit", "standing", "age_ms", "why_not",
}  # fmt: skip


@pytest.fixture
def fleet() -> Fleet:
    made = Fleet(a_node(), changed=lambda: None)
    a_worker(made)
    return made


def an_ask() -> Ask:
    return Ask(model="m", digest="d" * 64, deadline_ms=30_000.0, body_bytes=10)


def kept(fleet: Fleet) -> Kept:
    ask, world = an_ask(), fleet.current(clock.now_ms())
    story = Story()
    lives = tuple([Live(e.live.in_flight, e.live.unseen, e.live.unseen_ms) for e in world.endpoints])
    story.steps.append(Step(world.now_ms, ask, world, lives, decide(ask, world, 0.0)))
    return Kept("m", "1", "hydrate", "iad-a/0", 200, 12.0, 0, story)


def test_the_fields_of_a_candidate_are_frozen(fleet: Fleet) -> None:
    told = dry_run(an_ask(), fleet.current(clock.now_ms()), 0.0, "1")
    assert set(told["candidates"][0]) == FIELDS
    assert told["decision"]["route"] == "hydrate"
    assert told["decision"]["target"] == "iad-a/0"


def test_an_explanation_tells_the_moment_of_the_decision(fleet: Fleet) -> None:
    ring = Ring()
    ring.put("r1", kept(fleet))
    fleet.begin("iad-a/0", 500.0)
    (step,) = ring.document("r1")["decisions"]
    assert step["candidates"][0]["queue_ms"] == 0.0
    assert step["candidates"][0]["in_flight"] == 0


def test_only_the_last_are_remembered(fleet: Fleet) -> None:
    ring, one = Ring(), kept(fleet)
    for number in range(MAX_REQUESTS + 1):
        ring.put(f"r{number}", one)
    assert ring.document(f"r{MAX_REQUESTS}")["served_by"] == "iad-a/0"
    with pytest.raises(EdgeError, match="no such request"):
        ring.document("r0")
