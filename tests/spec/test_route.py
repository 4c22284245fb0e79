"""The whole specification of `edge.policy.route.decide`: one table, and what it explains.

The home POP is iad with the worker iad-b/0, `far` ones are other POPs' by their round trip.
"""

from typing import Any

import msgspec
import pytest

from edge.errors import Reason
from edge.policy.decision import Hydrate, Queue, Serve, Shed, Spill
from edge.policy.facts import (
    Ask,
    Cold,
    Live,
    Mode,
    OnDevice,
    Snapshot,
    Standing,
    State,
    Tier,
)
from edge.policy.route import decide, explain
from tests.support.routes import DIGEST, FRA, HOME, LOADING, NOW, NRT, ask, at, but, full, world

COLD_HOME = but(HOME, models={})
COLD_FRA = but(FRA, models={})
COLD_NRT = but(NRT, models={})
BUSY_HOME = but(HOME, live=Live(40, 40, 400.0))
FULL_HOME = but(HOME, **full())
FULL_FRA = but(FRA, **full())
FULL_NRT = but(NRT, **full())
#: Below their hard limits, and nobody may wait as long as they would take.
LATE_HOME = but(HOME, live=Live(40, 40, 2_500.0))
LATE_FRA = but(FRA, live=Live(40, 40, 4_500.0))
LATE_NRT = but(NRT, live=Live(40, 40, 9_000.0))
#: Cold, on the disk, quick to load; others are on the device.
QUICK = {"models": {}, "held": {DIGEST: Tier.DISK}}
CROWDED_HOME = but(HOME, **QUICK, used_bytes=1 << 30)
CROWDED_FRA = but(FRA, **QUICK, rtt_ms=8.0, used_bytes=1 << 30)
LARGE = {DIGEST: OnDevice(service_ms=10.0, device_bytes=300_000_000)}

TABLE: list[tuple[str, Ask, Snapshot, Any]] = [
    ("warm at home", ask(), world(HOME, FRA), Serve("iad-b/0", "warm-peer")),
    ("warm on this very node", ask(), world(at("iad-a/0"), FRA), Serve("iad-a/0", "warm")),
    ("cold here, warm at a peer POP: served far now", ask(), world(COLD_HOME, FRA), Spill("fra-a/0", "cold-here")),
    ("cold everywhere: brought home", ask(), world(COLD_HOME, COLD_FRA), Hydrate("iad-b/0", "cold")),
    (
        "cold here but on this node's disk, and far is farther than the load",
        ask(weights_bytes=1_000_000),
        world(but(COLD_HOME, held={DIGEST: Tier.DISK}), but(FRA, rtt_ms=200.0)),
        Hydrate("iad-b/0", "cold"),
    ),
    ("loading here, ready sooner than far", ask(), world(but(HOME, models=LOADING), FRA), Serve("iad-b/0", "loading")),
    ("no worker in this POP", ask(), world(FRA, NRT), Spill("fra-a/0", "none-here")),
    ("full here: the next best", ask(), world(FULL_HOME, FRA, NRT), Spill("fra-a/0", "full-here")),
    ("full here and there: the one after", ask(), world(FULL_HOME, FULL_FRA, NRT), Spill("nrt-a/0", "full-here")),
    ("above the soft limit, far is not clearly better", ask(), world(but(BUSY_HOME, live=Live(40, 40, 90.0)), FRA),
     Serve("iad-b/0", "above-soft-limit")),
    ("above the soft limit, far is clearly better", ask(), world(BUSY_HOME, FRA), Spill("fra-a/0", "full-here")),
    ("below the soft limit nobody leaves, however long the queue is said to be", ask(),
     world(but(HOME, live=Live(20, 20, 900.0)), FRA), Serve("iad-b/0", "warm-peer")),
    ("already away: stays away while far is better at all", ask(away=True),
     world(but(HOME, live=Live(40, 40, 95.0)), FRA), Spill("fra-a/0", "full-here")),
    ("already away: home as soon as it is no worse", ask(away=True),
     world(but(HOME, live=Live(40, 40, 80.0)), FRA), Serve("iad-b/0", "above-soft-limit")),
    ("home's worker is down: failover", ask(), world(but(HOME, state=State.DOWN), FRA),
     Spill("fra-a/0", "down-here", broken=True)),
    ("home's worker is starting: served far meanwhile", ask(), world(but(HOME, state=State.STARTING), FRA),
     Spill("fra-a/0", "down-here", broken=True)),
    ("home failed this request once: elsewhere", ask(tried=frozenset({"iad-b"})), world(HOME, FRA),
     Spill("fra-a/0", "failed-here", broken=True)),
    ("home drains: elsewhere", ask(), world(but(HOME, standing=Standing.DRAINING), FRA),
     Spill("fra-a/0", "draining-here")),
    ("home drains and nobody else is there: home", ask(), world(but(HOME, standing=Standing.DRAINING)),
     Serve("iad-b/0", "nobody-better")),
    ("everybody was given up: the least bad of them", ask(),
     world(but(FRA, standing=Standing.OUT), but(NRT, standing=Standing.OUT)), Spill("fra-a/0", "nobody-better")),
    ("given up and no link: nobody", ask(), world(but(FRA, standing=Standing.OUT, linked=False)),
     Shed(Reason.NO_ENDPOINT, 2)),
    ("a suspect is farther than it is", ask(), world(but(FRA, standing=Standing.SUSPECT), NRT),
     Spill("nrt-a/0", "none-here")),
    ("nobody at all", ask(), world(), Shed(Reason.NO_ENDPOINT, 2)),
    ("one hop is enough", ask(hops=1), world(FRA), Shed(Reason.NO_ENDPOINT, 2)),
    ("forwarded: served here, also when busy", ask(hops=1), world(at("iad-a/0", live=Live(40, 40, 400.0)), FRA),
     Serve("iad-a/0", "above-soft-limit")),
    ("forwarded while draining: served, the ingress did not know", ask(hops=1),
     world(at("iad-a/0", standing=Standing.DRAINING)), Serve("iad-a/0", "warm")),
    ("forwarded for the second worker", ask(hops=1, worker="iad-a/1"), world(at("iad-a/0"), at("iad-a/1")),
     Serve("iad-a/1", "warm")),
    ("forwarded for a worker that is down: the other one", ask(hops=1, worker="iad-a/1"),
     world(at("iad-a/0"), at("iad-a/1", state=State.DOWN)), Serve("iad-a/0", "warm")),
    ("forwarded as warm and it is not: refused", ask(hops=1, cold=Cold.REJECT), world(at("iad-a/0", models={})),
     Shed(Reason.COLD_REFUSED, 2)),
    ("forwarded to be loaded: loaded", ask(hops=1, cold=Cold.WAIT), world(at("iad-a/0", models={})),
     Hydrate("iad-a/0", "cold")),
    ("all full: wait", ask(), world(FULL_HOME, FULL_FRA), Queue("saturated", 2_000.0)),
    ("all full, less time than the budget", ask(deadline_ms=500.0), world(FULL_HOME), Queue("saturated", 500.0)),
    ("all full and the client will not wait", ask(reject_if_busy=True), world(FULL_HOME), Reason.BUSY),
    ("all full and so is the queue", ask(), world(FULL_HOME, waiting=256), Reason.QUEUE_FULL),
    ("a queue longer than anybody may wait", ask(), world(LATE_HOME), Shed(Reason.SATURATED, 3)),
    ("a queue longer than anybody may wait here: the next best", ask(), world(LATE_HOME, FRA, NRT),
     Spill("fra-a/0", "full-here")),
    ("below the soft limit nobody leaves, unless nobody may wait so long", ask(),
     world(but(HOME, live=Live(20, 20, 2_500.0)), FRA), Spill("fra-a/0", "full-here")),
    ("no time for the queue here, and none is needed there", ask(deadline_ms=300.0),
     world(but(HOME, live=Live(20, 20, 301.0)), FRA), Spill("fra-a/0", "full-here")),
    ("the near ones have no room, the far one does", ask(), world(LATE_HOME, LATE_FRA, NRT), Spill("nrt-a/0", "full-here")),
    ("of many, however far: one that has room", ask(),
     world(LATE_HOME, *[but(LATE_FRA, name=f"fra-{n}/0", node=f"fra-{n}", rtt_ms=90.0 + n) for n in range(20)], NRT),
     Spill("nrt-a/0", "full-here")),
    ("the near one lets nobody wait so long: one that is farther than that queue would take", ask(),
     world(but(FRA, live=Live(20, 20, 2_001.0)), but(NRT, rtt_ms=2_500.0)), Spill("nrt-a/0", "none-here")),
    ("too far for its deadline: refused at once", ask(deadline_ms=80.0), world(FRA, NRT), Shed(Reason.DEADLINE, 1)),
    ("forced to where it can't be in time: refused at once", ask(deadline_ms=100.0, force=frozenset({"ap"})),
     world(FRA, NRT), Shed(Reason.DEADLINE, 1)),
    ("home has no time for its queue, the others are too far", ask(deadline_ms=80.0),
     world(but(HOME, live=Live(20, 20, 81.0)), FRA), Shed(Reason.SATURATED, 1)),
    ("a small deadline stays at home", ask(deadline_ms=80.0), world(HOME, FRA), Serve("iad-b/0", "warm-peer")),
    ("a load nearby takes less than a queue far away", ask(), world(but(FRA, **QUICK), but(NRT, live=Live(20, 20, 300.0))),
     Spill("fra-a/0", "none-here")),
    ("behind many that would have to fetch it: one that has it on its disk", ask(),
     world(*[but(COLD_FRA, name=f"fra-{n}/0", node=f"fra-{n}", rtt_ms=90.0 + n) for n in range(20)], but(NRT, **QUICK)),
     Spill("nrt-a/0", "none-here")),
    ("the home that has room, though the other scores better", ask(),
     world(but(at("iad-c/0", rtt_ms=0.3), live=Live(20, 20, 2_001.0)), but(HOME, live=Live(40, 40, 1_990.0), models=LOADING)),
     Serve("iad-b/0", "loading")),
    ("nobody has room: refused until the soonest has", ask(), world(LATE_HOME, LATE_FRA, LATE_NRT),
     Shed(Reason.SATURATED, 3)),
    ("nobody has room, wherever the soonest is", ask(), world(but(HOME, live=Live(40, 40, 20_000.0)), LATE_FRA, LATE_NRT),
     Shed(Reason.SATURATED, 5)),
    ("one has no room and the other is full: wait for a slot, as if both were full", ask(), world(LATE_HOME, FULL_FRA),
     Queue("saturated", 2_000.0)),
    ("the same with a full queue: refused", ask(), world(LATE_HOME, FULL_FRA, waiting=256), Shed(Reason.QUEUE_FULL, 3)),
    ("refused until the soonest has room, not until a slot is free", ask(), world(LATE_HOME, but(FRA, live=Live(128, 128, 1e6))),
     Shed(Reason.SATURATED, 3)),
    ("forwarded to a queue longer than anybody may wait: refused, the ingress knows others", ask(hops=1, worker="iad-a/0"),
     world(at("iad-a/0", live=Live(40, 40, 2_500.0)), at("iad-a/1", **full())), Shed(Reason.SATURATED, 3)),
    ("never leaves the POP, and has no room", ask(), world(LATE_HOME, FRA, mode=Mode.NEVER), Shed(Reason.SATURATED, 3)),
    ("preferred region has no room: anywhere", ask(prefer=("ap",)), world(HOME, LATE_NRT), Serve("iad-b/0", "warm-peer")),
    ("confined to where there is no room: refused", ask(confine=frozenset({"eu"})), world(HOME, LATE_FRA),
     Shed(Reason.SATURATED, 5)),
    ("a load here takes longer than the deadline, a warm one is far", ask(deadline_ms=400.0, cold=Cold.WAIT),
     world(COLD_HOME, FRA), Spill("fra-a/0", "cold-here")),
    ("a load that is quick, into free memory", ask(), world(but(HOME, **QUICK), but(FRA, rtt_ms=400.0)),
     Hydrate("iad-b/0", "cold")),
    ("a load that is quick, and others would have to leave: served far", ask(),
     world(CROWDED_HOME, but(FRA, rtt_ms=400.0)), Spill("fra-a/0", "cold-here")),
    ("it seems to fit by its files; who has it says what it takes", ask(weights_bytes=1_000),
     world(but(CROWDED_HOME, used_bytes=(1 << 30) - 200_000_000), but(FRA, rtt_ms=400.0, models=LARGE)),
     Spill("fra-a/0", "cold-here")),
    ("it does fit", ask(weights_bytes=1_000),
     world(but(CROWDED_HOME, used_bytes=(1 << 30) - 400_000_000), but(FRA, rtt_ms=400.0, models=LARGE)),
     Hydrate("iad-b/0", "cold")),
    ("others must leave and nobody has it: somebody waits", ask(), world(CROWDED_HOME, CROWDED_FRA), Hydrate("iad-b/0", "cold")),
    ("others must leave, and who has it is full", ask(), world(CROWDED_HOME, FULL_FRA), Hydrate("iad-b/0", "cold")),
    ("others must leave, and who has it has no room", ask(), world(CROWDED_HOME, LATE_FRA), Hydrate("iad-b/0", "cold")),
    ("others must leave, and who has it may not be chosen", ask(force=frozenset({"us"})), world(CROWDED_HOME, FRA),
     Hydrate("iad-b/0", "cold")),
    ("others must leave where it would rather be: anywhere", ask(prefer=("us",)), world(CROWDED_HOME, FRA),
     Spill("fra-a/0", "cold-here")),
    ("others must leave, and the client said that it waits", ask(cold=Cold.WAIT), world(CROWDED_HOME, FRA),
     Hydrate("iad-b/0", "cold")),
    ("others must leave, and the ingress said so", ask(hops=1), world(but(CROWDED_HOME, here=True), FRA),
     Hydrate("iad-b/0", "cold")),
    ("others must leave, and the only one who has it is outside", ask(), world(CROWDED_HOME, FRA, mode=Mode.NEVER),
     Hydrate("iad-b/0", "cold")),
    ("others must leave next door: the one who has it", ask(), world(CROWDED_FRA, NRT), Spill("nrt-a/0", "none-here")),
    ("on its way here: nobody must leave any more", ask(), world(but(CROWDED_HOME, models=LOADING), FRA),
     Serve("iad-b/0", "loading")),
    ("starting at home and nobody else: wait within the cold budget", ask(),
     world(but(HOME, state=State.STARTING)), Queue("starting", 30_000.0)),
    ("cold, and bringing it takes longer than the deadline", ask(deadline_ms=1_000.0), world(COLD_HOME),
     Reason.COLD_REFUSED),
    ("Edge-Cold: wait stays home", ask(cold=Cold.WAIT), world(COLD_HOME, FRA), Hydrate("iad-b/0", "cold")),
    ("Edge-Cold: reject takes a warm one far away", ask(cold=Cold.REJECT), world(COLD_HOME, FRA),
     Spill("fra-a/0", "cold-here")),
    ("Edge-Cold: reject refuses when it is nowhere warm", ask(cold=Cold.REJECT), world(COLD_HOME, COLD_FRA),
     Shed(Reason.COLD_REFUSED, 2)),
    ("forced region", ask(force=frozenset({"eu"})), world(HOME, FRA), Spill("fra-a/0", "forced")),
    ("forced POP", ask(force=frozenset({"nrt"})), world(HOME, FRA, NRT), Spill("nrt-a/0", "forced")),
    ("forced region that nobody serves", ask(force=frozenset({"mars"})), world(HOME, FRA), Shed(Reason.REGION, 2)),
    ("preferred region", ask(prefer=("ap",)), world(HOME, FRA, NRT), Spill("nrt-a/0", "none-here")),
    ("preferred region is full: anywhere", ask(prefer=("ap",)), world(HOME, FULL_NRT), Serve("iad-b/0", "warm-peer")),
    ("second preference", ask(prefer=("mars", "eu")), world(HOME, FRA), Spill("fra-a/0", "none-here")),
    ("confined to another region", ask(confine=frozenset({"eu"})), world(HOME, FRA), Spill("fra-a/0", "confined")),
    ("confined, and that region is gone", ask(confine=frozenset({"eu"})), world(HOME, NRT), Shed(Reason.CONFINED, 2)),
    ("confined, and that region's worker is down", ask(confine=frozenset({"eu"})),
     world(HOME, but(FRA, state=State.DOWN)), Shed(Reason.CONFINED, 2)),
    ("confined and given up: never anywhere else", ask(confine=frozenset({"eu"})),
     world(but(HOME, standing=Standing.OUT)), Shed(Reason.CONFINED, 2)),
    ("larger than any device", ask(weights_bytes=1 << 40), world(COLD_HOME), Shed(Reason.NO_MEMORY, 2)),
    ("larger than this device, not than that", ask(weights_bytes=1 << 31), world(COLD_HOME, but(FRA, capacity_bytes=1 << 33)),
     Spill("fra-a/0", "too-small-here")),
    ("never leaves the POP", ask(), world(FULL_HOME, FRA, mode=Mode.NEVER), Queue("saturated", 2_000.0)),
    ("nearest is blind to load", ask(), world(BUSY_HOME, FRA, mode=Mode.NEAREST), Serve("iad-b/0", "nearest")),
    ("waterfall leaves at the soft limit, to the next nearest", ask(), world(BUSY_HOME, FRA, NRT, mode=Mode.WATERFALL),
     Spill("fra-a/0", "waterfall")),
    ("old news of a busy place grow worse", ask(),
     world(but(FRA, at_ms=NOW - 1_000.0, queued_ms=50.0, arrivals_per_s=200.0), NRT), Spill("nrt-a/0", "none-here")),
    ("old news of an idle place stay good", ask(), world(but(FRA, at_ms=NOW - 1_000.0, queued_ms=50.0), NRT),
     Spill("fra-a/0", "none-here")),
    ("what this node itself sent counts before the beacon shows it", ask(),
     world(but(FRA, live=Live(9, 9, 100.0)), NRT), Spill("nrt-a/0", "none-here")),
    ("money counts when it is told to", ask(reply_bytes=1 << 30, body_bytes=0),
     world(at("ewr-a/0", rtt_ms=20.0, bytes_per_ms=1e9), but(FRA, rtt_ms=1.0, bytes_per_ms=1e9), ms_per_usd=1e5, usd_per_gib=0.1),
     Spill("ewr-a/0", "none-here")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ask_", "world_", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_decide(ask_: Ask, world_: Snapshot, expected: Any) -> None:
    decision = decide(ask_, world_, 0.5)
    if isinstance(expected, Reason):
        assert isinstance(decision, Shed)
        assert decision.reason is expected
        assert 1 <= decision.retry_after_s <= 30
    elif isinstance(expected, Queue | Shed):
        assert decision == expected
    else:
        assert type(decision) is type(expected)
        assert isinstance(decision, Serve | Hydrate | Spill)
        assert (decision.target, decision.reason) == (expected.target, expected.reason)
        if isinstance(expected, Spill) and isinstance(decision, Spill):
            assert decision.broken is expected.broken


def test_an_endpoint_within_the_band_is_drawn_and_the_less_loaded_of_two_wins() -> None:
    crowd = world(
        *[
            at(f"iad-{letter}/0", rtt_ms=0.3, live=Live(load, 0, 0.0))
            for letter, load in zip("abcd", (3, 0, 9, 9), strict=True)
        ]
    )
    drawn = [decide(ask(), crowd, draw / 100.0) for draw in range(100)]
    chosen = {decision.target for decision in drawn if isinstance(decision, Serve)}
    assert "iad-b/0" in chosen
    assert len(chosen) > 1
    assert sum(isinstance(d, Serve) and d.target == "iad-b/0" for d in drawn) >= 45


def test_neighbours_elect_the_same_home_for_a_model_that_nobody_has() -> None:
    cold = [at(f"iad-{letter}/0", rtt_ms=0.3, models={}) for letter in "bcdefg"]
    elected = set()
    for draw in range(20):
        for order in (cold, cold[::-1]):
            decision = decide(ask(), world(*order), draw / 20.0)
            assert isinstance(decision, Hydrate)
            elected.add(decision.target)
    assert len(elected) == 1
    others = {decide(ask(digest=f"{n:064x}"), world(*cold), 0.0).target for n in range(64)}  # type: ignore[union-attr]
    assert len(others) == 6, "another model, another home"


def test_a_session_stays_where_it_was() -> None:
    crowd = [at(f"iad-{letter}/0", rtt_ms=0.3) for letter in "bcdefg"]
    for session in range(32):
        targets = set()
        for draw in range(10):
            decision = decide(ask(session=session), world(*crowd), draw / 10.0)
            assert isinstance(decision, Serve)
            targets.add(decision.target)
        assert len(targets) == 1


def test_the_runner_up_is_told() -> None:
    decision = decide(ask(), world(FRA, but(NRT, rtt_ms=92.0)), 0.0)
    assert isinstance(decision, Spill)
    assert {decision.target, decision.next} == {"fra-a/0", "nrt-a/0"}
    assert decision.next_ms > 0.0


def test_an_explanation_names_every_endpoint_and_why_it_was_not_a_candidate() -> None:
    rows = explain(ask(confine=frozenset({"us"})), world(COLD_HOME, FRA, FULL_NRT))
    assert rows[0].endpoint.name == "iad-b/0"
    assert {row.endpoint.name: row.excluded for row in rows} == {
        "iad-b/0": "",
        "fra-a/0": "confined",
        "nrt-a/0": "confined",
    }
    assert rows[0].terms.cold > 0.0
    assert rows[0].terms.total == pytest.approx(sum(msgspec.structs.astuple(rows[0].terms)))


def test_an_explanation_says_who_can_not_be_waited_for() -> None:
    slow = but(COLD_NRT, loader_wait_ms=40_000.0)
    rows = explain(ask(), world(CROWDED_HOME, LATE_FRA, slow, but(NRT, name="nrt-b/0", rtt_ms=170.0)))
    assert [(row.endpoint.name, row.excluded) for row in rows] == [
        ("nrt-b/0", ""),
        ("iad-b/0", "drives-out"),
        ("fra-a/0", "wait-too-long"),
        ("nrt-a/0", "load-too-long"),
    ]
    blind = explain(ask(), world(CROWDED_HOME, LATE_FRA, mode=Mode.NEAREST))
    assert {row.excluded for row in blind} == {""}, "the mode does not ask"
