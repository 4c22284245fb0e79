"""What `edge.policy.route.decide` keeps in every world, drawn at random."""

from hypothesis import given
from hypothesis import strategies as st

from edge.policy.decision import Hydrate, Queue, Serve, Shed, Spill
from edge.policy.facts import (
    Ask,
    Cold,
    Live,
    Mode,
    Rates,
    Snapshot,
    Standing,
    State,
    Tier,
)
from edge.policy.route import decide, explain
from tests.support.routes import DIGEST, LOADING, NOW, WARM, ask, at, world

ENDPOINTS = st.builds(
    at,
    st.sampled_from(
        [f"{pop}-{node}/{index}" for pop in ("iad", "fra", "nrt") for node in "ab" for index in (0, 1)]
    ),
    rtt_ms=st.floats(0.0, 300.0),
    region=st.sampled_from(("us", "eu", "ap")),
    state=st.sampled_from(State),
    standing=st.sampled_from(Standing),
    linked=st.booleans(),
    in_flight=st.integers(0, 200),
    queued_ms=st.floats(0.0, 5_000.0),
    arrivals_per_s=st.floats(0.0, 1_000.0),
    at_ms=st.floats(NOW - 30_000.0, NOW),
    models=st.sampled_from(({}, WARM, LOADING)),
    held=st.sampled_from(({}, {DIGEST: Tier.DISK})),
    used_bytes=st.sampled_from((0, 1 << 30)),
    rates=st.just(Rates()),
    live=st.builds(Live, st.integers(0, 200), st.integers(0, 200), st.floats(0.0, 5_000.0)),
)
WORLDS = st.builds(
    lambda ends, mode: world(*sorted(ends, key=lambda e: (not e.home, e.rtt_ms)), mode=mode),
    st.lists(ENDPOINTS, max_size=8, unique_by=lambda e: e.name),
    st.sampled_from(Mode),
)
ASKS = st.builds(
    ask,
    hops=st.sampled_from((0, 1)),
    confine=st.sampled_from((frozenset(), frozenset({"eu"}))),
    force=st.sampled_from((frozenset(), frozenset({"us"}), frozenset({"nrt"}))),
    prefer=st.sampled_from(((), ("eu",), ("mars", "ap"))),
    cold=st.sampled_from(Cold),
    reject_if_busy=st.booleans(),
    away=st.booleans(),
    session=st.sampled_from((None, 7)),
    deadline_ms=st.floats(1.0, 60_000.0),
    tried=st.sampled_from((frozenset(), frozenset({"iad-a"}))),
)


@given(ASKS, WORLDS, st.floats(0.0, 0.999))
def test_whatever_the_world_no_promise_is_broken(ask_: Ask, world_: Snapshot, draw: float) -> None:
    decision = decide(ask_, world_, draw)
    if isinstance(decision, Queue):
        assert 0.0 < decision.budget_ms <= ask_.deadline_ms
        return
    if isinstance(decision, Shed):
        assert decision.retry_after_s >= 1
        return
    chosen = {endpoint.name: endpoint for endpoint in world_.endpoints}[decision.target]
    assert chosen.linked
    assert chosen.state is State.UP
    assert chosen.node not in ask_.tried
    assert chosen.in_flight + chosen.live.unseen < chosen.hard_limit
    assert not ask_.confine or chosen.region in ask_.confine
    assert not ask_.force or chosen.region in ask_.force or chosen.pop in ask_.force
    assert not ask_.hops or chosen.here
    assert world_.mode is not Mode.NEVER or chosen.home
    assert isinstance(decision, Spill) is not chosen.home


@given(ASKS, WORLDS, st.floats(0.0, 0.999))
def test_what_is_left_out_for_speed_would_not_have_been_chosen(
    ask_: Ask, world_: Snapshot, draw: float
) -> None:
    """The scan of other POPs ends early; with every round trip made known it finds nothing better."""
    decision = decide(ask_, world_, draw)
    if not isinstance(decision, Spill) or world_.mode is not Mode.PREDICTED or ask_.prefer or ask_.session:
        return
    rows = explain(ask_, world_)
    candidates = [row for row in rows if not row.excluded and not row.endpoint.home]
    if candidates and decision.reason != "nobody-better":
        best_ms = min(row.terms.total for row in candidates)
        assert decision.score_ms <= best_ms + max(5.0, 0.05 * best_ms) + 1e-6


@given(ASKS, WORLDS, st.floats(0.0, 0.999))
def test_nobody_is_refused_while_somebody_who_may_be_chosen_has_room(
    ask_: Ask, world_: Snapshot, draw: float
) -> None:
    if world_.mode is not Mode.PREDICTED:
        return
    candidates = {row.endpoint.name for row in explain(ask_, world_) if not row.excluded}
    decision = decide(ask_, world_, draw)
    if isinstance(decision, Queue | Shed):
        assert not candidates or (ask_.hops and ask_.worker)
    elif decision.reason != "nobody-better":
        assert decision.target in candidates or ask_.prefer


@given(ASKS, WORLDS, st.floats(0.0, 0.999))
def test_nobody_is_driven_out_while_a_warm_copy_would_do(ask_: Ask, world_: Snapshot, draw: float) -> None:
    decision = decide(ask_, world_, draw)
    if ask_.prefer or ask_.hops or ask_.cold is Cold.WAIT or world_.mode is not Mode.PREDICTED:
        return
    rows = {row.endpoint.name: row for row in explain(ask_, world_)}
    chosen = rows[decision.target] if isinstance(decision, Serve | Hydrate | Spill) else None
    if chosen is None or chosen.endpoint.models or not chosen.endpoint.used_bytes:
        return
    warm = [row for row in rows.values() if not row.excluded and row.endpoint.models == WARM]
    assert not warm
