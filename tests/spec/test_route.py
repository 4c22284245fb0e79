"""The whole specification of `decide`. First column: the sentence. Then the ask, the world, the decision."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import Reason
from edge.policy.facts import Ask, Endpoint, Snapshot, State
from edge.policy.route import RETRY_AFTER_S, Queue, Serve, Shed, decide

HOME, PEER = "iad-a/0", "iad-b"


def endpoint(name=HOME, *, load=0, warm=True, state=State.UP, soft=2, hard=4, service_ms=10.0):
    return Endpoint(name, "/" in name, state, load, soft, hard, warm, service_ms)


def world(*endpoints, waiting=0, max_waiting=10):
    return Snapshot(endpoints, waiting, max_waiting, 2000.0, 30_000.0)


def ask(*, deadline_ms=10_000.0, hops=0):
    return Ask("bert", "d1", deadline_ms, 100, hops)


NOBODY = Shed(Reason.NO_ENDPOINT, RETRY_AFTER_S)

RULES = [
    ("no endpoint at all: refuse", ask(), world(), NOBODY),
    ("the only worker is down: refuse", ask(), world(endpoint(state=State.DOWN)), NOBODY),
    ("warm and idle here: serve here", ask(), world(endpoint()), Serve(HOME, "warm")),
    ("cold here: serve here, it is loaded", ask(), world(endpoint(warm=False)), Serve(HOME, "cold")),
    ("no worker here, a peer has one: serve there", ask(), world(endpoint(PEER)), Serve(PEER, "warm-peer")),
    ("warm peer before cold home", ask(), world(endpoint(warm=False), endpoint(PEER)), Serve(PEER, "warm-peer")),
    ("all else equal: here", ask(), world(endpoint(PEER), endpoint()), Serve(HOME, "warm")),
    ("less loaded first", ask(), world(endpoint(load=1), endpoint(PEER)), Serve(PEER, "warm-peer")),
    (
        "below the soft limit before warm",
        ask(),
        world(endpoint(load=2), endpoint(PEER, warm=False)),
        Serve(PEER, "cold"),
    ),
    ("above the soft limit is still served", ask(), world(endpoint(load=3)), Serve(HOME, "above-soft-limit")),
    (
        "one that starts is passed over for one that is up",
        ask(),
        world(endpoint(state=State.STARTING), endpoint(PEER, load=3)),
        Serve(PEER, "above-soft-limit"),
    ),
    ("one hop is enough: a peer of a peer is not asked", ask(hops=1), world(endpoint(PEER)), NOBODY),
    ("forwarded here: served here", ask(hops=1), world(endpoint(PEER), endpoint(load=3)),
     Serve(HOME, "above-soft-limit")),
    ("at the hard limit: wait", ask(), world(endpoint(load=4)), Queue("saturated", 2000.0)),
    ("the deadline shortens the wait", ask(deadline_ms=50.0), world(endpoint(load=4)), Queue("saturated", 50.0)),
    (
        "the queue is full: refuse",
        ask(),
        world(endpoint(load=4), waiting=10),
        Shed(Reason.QUEUE_FULL, RETRY_AFTER_S),
    ),
    (
        "no queue wanted: refuse",
        ask(),
        world(endpoint(load=4), max_waiting=0),
        Shed(Reason.QUEUE_FULL, RETRY_AFTER_S),
    ),
    (
        "the wait would exceed its budget: refuse at once",
        ask(),
        world(endpoint(load=4, service_ms=4000.0), waiting=3),
        Shed(Reason.SATURATED, RETRY_AFTER_S),
    ),
    (
        "a worker that starts is waited for, with the longer budget",
        ask(),
        world(endpoint(state=State.STARTING)),
        Queue("starting", 10_000.0),
    ),
    (
        "the cold budget bounds it too",
        ask(deadline_ms=60_000.0),
        world(endpoint(state=State.STARTING)),
        Queue("starting", 30_000.0),
    ),
    (
        "too many wait for a worker that starts",
        ask(),
        world(endpoint(state=State.STARTING), waiting=10),
        Shed(Reason.QUEUE_FULL, RETRY_AFTER_S),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "wish", "now", "expected"), RULES, ids=[rule[0] for rule in RULES])
def test_rule(sentence, wish, now, expected):
    assert decide(wish, now, 0.0) == expected


def test_ties_are_drawn():
    pair = world(endpoint("n/0"), endpoint("n/1"))
    assert decide(ask(), pair, 0.0) == Serve("n/0", "warm")
    assert decide(ask(), pair, 0.99) == Serve("n/1", "warm")


endpoints = st.builds(
    Endpoint,
    st.sampled_from(["n/0", "n/1", "p", "q"]),
    st.booleans(),
    st.sampled_from(State),
    st.integers(0, 9),
    st.integers(1, 4),
    st.integers(4, 8),
    st.booleans(),
    st.floats(0.0, 1e5),
)


@given(
    st.lists(endpoints, max_size=5),
    st.integers(0, 12),
    st.integers(0, 2),
    st.floats(0.0, 1.0, exclude_max=True),
)
def test_nothing_is_sent_where_it_may_not_go(candidates, waiting, hops, draw):
    decision = decide(ask(hops=hops), world(*candidates, waiting=waiting), draw)
    if isinstance(decision, Serve):
        chosen = [e for e in candidates if e.name == decision.target]
        assert any(e.state is State.UP and e.in_flight < e.hard_limit for e in chosen)
        assert hops == 0 or any(e.home for e in chosen)
    elif isinstance(decision, Queue):
        assert waiting < 10
        assert 0.0 < decision.budget_ms <= 10_000.0
