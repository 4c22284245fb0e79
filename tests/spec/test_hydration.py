"""Who would be served sooner, who would wait longer, and whether a load nobody waits for pays."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.policy.facts import Beacon, ModelBeacon, OnDevice, State, Tier, WorkerBeacon
from edge.policy.hydration import (
    INTENT_MS,
    MAX_AGE_MS,
    Candidate,
    Holding,
    Leave,
    Load,
    Needs,
    Room,
    Wanted,
    Worth,
    demand_for,
    judge,
    worth_of,
)

NOW_MS = 100_000.0
NEEDS = {"m": Needs(100)}


def wanted(per_s=1.0, far_ms=200.0, near_ms=20.0, age_ms=0.0):
    return Wanted(per_s, far_ms, near_ms, NOW_MS - age_ms)


def candidate(size=50, load_ms=1000.0, price_ms=0.0, **more):
    return Candidate("new", size, wanted(**more), load_ms, price_ms)


def holding(name, size=50, *, per_s=0.0, loss=0.0, copies=0, resident_ms=60_000.0, busy=False, pinned=False):
    return Holding(name, size, resident_ms, Worth(per_s, loss, copies), busy, pinned)


def verdict(which, *holdings, budget=100, loading=False, now_ms=NOW_MS):
    return judge(which, Room(budget, holdings, loading), now_ms, horizon_s=300.0, min_resident_s=30.0)


IDLE, OTHER = holding("idle"), holding("other", per_s=1.0, loss=10.0, copies=1)

JUDGEMENTS = [
    ("memory is free and somebody asks: load", candidate(), (), Load((), 180.0, 0.0)),
    ("exactly enough is free", candidate(), (holding("a", pinned=True),), Load((), 180.0, 0.0)),
    ("memory is free: a fifth of the load must be saved", candidate(per_s=0.001, load_ms=269.0), (), Load((), 0.18, 0.0)),
    ("less does not pay", candidate(per_s=0.001, load_ms=271.0), (), Leave("does-not-pay")),
    ("its bytes cost money", candidate(per_s=0.001, load_ms=100.0, price_ms=40.0), (), Leave("does-not-pay")),
    ("far is no worse", candidate(far_ms=20.0), (), Leave("no-gain")),
    ("nobody asks", candidate(per_s=0.0), (), Leave("no-gain")),
    ("larger than the device", candidate(size=101), (), Leave("too-large")),
    ("news of a second ago", candidate(age_ms=1000.0), (), Load((), 180.0, 0.0)),
    ("older news", candidate(age_ms=1001.0), (), Leave("stale")),
    ("one that nobody asks for leaves", candidate(), (IDLE, OTHER), Load(("idle",), 180.0, 0.0)),
    ("the one whose loss is least leaves", candidate(), (holding("dear", per_s=9.0, loss=90.0, copies=1), OTHER),
     Load(("other",), 180.0, 10.0)),
    ("per byte", candidate(), (holding("big", 60, per_s=1.0, loss=11.0, copies=1), holding("small", 40, per_s=1.0, loss=9.0, copies=1)),
     Load(("big",), 180.0, 11.0)),
    ("as many as needed", candidate(size=100), (IDLE, OTHER), Load(("idle", "other"), 180.0, 10.0)),
    ("none in vain", candidate(), (holding("tiny", 1), holding("big", 99, per_s=1.0, loss=1.0, copies=1)),
     Load(("big",), 180.0, 1.0)),
    ("none in vain, to the byte", candidate(), (holding("tiny", 10), holding("kept", 40, pinned=True), holding("big", 50, per_s=1.0, loss=1.0, copies=1)),
     Load(("big",), 180.0, 1.0)),
    ("the gain must be half as much again as the loss", candidate(per_s=0.1), (holding("a", 100, per_s=1.0, loss=11.9, copies=1),),
     Load(("a",), 18.0, 11.9)),
    ("less is dearer here", candidate(per_s=0.1), (holding("a", 100, per_s=1.0, loss=12.1, copies=1),), Leave("dearer-here")),
    ("what remains must pay for the load, whole", candidate(per_s=0.1, load_ms=2400.0), (holding("a", 100, per_s=1.0, loss=10.0, copies=1),),
     Leave("does-not-pay")),
    ("and does", candidate(per_s=0.1, load_ms=2399.0), (holding("a", 100, per_s=1.0, loss=10.0, copies=1),), Load(("a",), 18.0, 10.0)),
    ("and for the price", candidate(per_s=0.1, load_ms=2399.0, price_ms=2.0), (holding("a", 100, per_s=1.0, loss=10.0, copies=1),),
     Leave("does-not-pay")),
    ("the last copy of a model in demand stays", candidate(), (holding("a", 100, per_s=0.01, loss=0.0),), Leave("no-room")),
    ("the last copy of one that nobody asks for leaves", candidate(), (holding("a", 100),), Load(("a",), 180.0, 0.0)),
    ("one in use stays", candidate(), (holding("a", 100, busy=True),), Leave("no-room")),
    ("a pinned one stays", candidate(), (holding("a", 100, pinned=True),), Leave("no-room")),
    ("a newcomer stays", candidate(), (holding("a", 100, resident_ms=29_999.0),), Leave("no-room")),
    ("half a minute is enough", candidate(), (holding("a", 100, resident_ms=30_000.0),), Load(("a",), 180.0, 0.0)),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "which", "holdings", "expected"), JUDGEMENTS)
def test_judge(sentence, which, holdings, expected):
    found = verdict(which, *holdings)
    if isinstance(found, Load):
        found = Load(found.victims, pytest.approx(found.gain), found.loss)
    assert found == expected


def test_one_load_at_a_time():
    assert verdict(candidate(), loading=True) == Leave("loading")


holdings = st.lists(
    st.builds(
        Holding,
        st.uuids().map(str),
        st.integers(1, 60),
        st.floats(0, 60_000),
        st.builds(Worth, st.sampled_from([0.0, 0.1, 5.0]), st.floats(0, 100), st.integers(0, 2)),
        st.booleans(),
        st.booleans(),
    ),
    max_size=8,
)


@given(holdings, st.integers(1, 120), st.floats(0, 10), st.floats(0, 5000))
def test_whatever_it_loads_fits_pays_and_takes_no_last_copy(held, size, per_s, load_ms):
    found = verdict(candidate(size, load_ms, per_s=per_s), *held, budget=120)
    if isinstance(found, Leave):
        return
    gone = [one for one in held if one.digest in found.victims]
    for one in gone:
        assert not one.busy
        assert not one.pinned
        assert one.resident_ms >= 30_000.0
        assert one.worth.copies > 0 or one.worth.per_s == 0.0, "the last copy of a model in demand"
    used = sum(one.device_bytes for one in held if one not in gone)
    assert used + size <= 120
    assert found.loss == pytest.approx(sum(one.worth.loss for one in gone))
    assert found.gain > 1.5 * found.loss
    assert (found.gain - found.loss) * 300.0 > (load_ms if gone else 0.2 * load_ms)


def node(
    name,
    *,
    pop="",
    region="",
    rtts=(),
    demand=(),
    models=(),
    device=1000,
    used=0,
    state=State.UP,
    draining=False,
):
    """`models` maps digests to service ms, or to a whole ModelBeacon."""
    workers = (WorkerBeacon(state, 8, 16, device_bytes=device, used_bytes=used),) if device else ()
    told = {
        digest: what if isinstance(what, ModelBeacon) else ModelBeacon(Tier.DISK, {0: OnDevice(0.0, what)})
        for digest, what in dict(models).items()
    }
    return Beacon(
        node=name, pop=pop or name, region=region or name, boot=1, seq=1, draining=draining,
        workers=workers, models=told, demand=dict(demand), rtts_ms=dict(rtts),
    )  # fmt: skip


def news(*beacons, age_ms=100.0):
    return {beacon.node: (beacon, NOW_MS - age_ms) for beacon in beacons}


#: syd has no device; tyo is at 5 ms from nrt. iad is far from both and has the model.
SYD = node("syd", device=0, rtts={"nrt": 100.0, "iad": 200.0, "osa": 102.0}, demand={"m": 2.0})
TYO = node("tyo", device=0, rtts={"nrt": 5.0, "iad": 165.0}, demand={"m": 6.0})
IAD = node("iad", models={"m": 10.0}, rtts={"nrt": 160.0})
NRT = node("nrt", rtts={"iad": 160.0}, demand={"m": 1.0})


def near(me, *others, age_ms=100.0, needs=NEEDS):
    return demand_for(me, news(*others, age_ms=age_ms), NOW_MS, needs)


def wants(per_s, far_ms, near_ms, at_ms):
    """Of a model that takes 100 bytes."""
    return Wanted(per_s, far_ms, near_ms, at_ms, 100)


LARGE = ModelBeacon(workers={0: OnDevice(0.0, 10.0, device_bytes=900)})
ONE = wants(1.0, 170.0, 10.0, NOW_MS - 100.0)

DEMANDS = [
    ("its own front door asks for it", near(NRT, IAD), {"m": ONE}),
    ("an ingress without a device whose nearest this is", near(msgspec.structs.replace(NRT, demand={}), IAD, SYD),
     {"m": wants(2.0, 210.0, 110.0, NOW_MS - 100.0)}),
    ("several: sums, and means by demand", near(NRT, IAD, SYD, TYO),
     {"m": wants(9.0, (170 + 2 * 210 + 6 * 175) / 9, (10 + 2 * 110 + 6 * 15) / 9, NOW_MS - 100.0)}),
    ("nobody has it: a request loads it, not this", near(NRT), {}),
    ("it is here already", near(node("nrt", models={"m": 10.0}, rtts={"iad": 160.0}, demand={"m": 1.0}), IAD), {}),
    ("it is on its way here",
     near(node("nrt", models={"m": ModelBeacon(workers={0: OnDevice(50.0)})}, rtts={"iad": 160.0}, demand={"m": 1.0}), IAD), {}),
    ("the ingress does not know the way here", near(NRT, IAD, node("syd", device=0, rtts={"iad": 200.0}, demand={"m": 2.0})),
     {"m": ONE}),
    ("the ingress does not know the way to the copy", near(node("nrt", demand={"m": 1.0}), IAD), {}),
    ("another node is nearer", near(NRT, IAD, node("syd", device=0, rtts={"nrt": 100.0, "iad": 200.0, "per": 40.0}, demand={"m": 2.0}),
     node("per")), {"m": ONE}),
    ("the nearer one is too small", near(NRT, IAD, node("syd", device=0, rtts={"nrt": 100.0, "iad": 200.0, "per": 40.0}, demand={"m": 2.0}),
     node("per", device=99)), {"m": wants(3.0, (170 + 2 * 210) / 3, (10 + 2 * 110) / 3, NOW_MS - 100.0)}),
    ("the nearer one drains", near(NRT, IAD, TYO, node("tok", draining=True)),
     {"m": wants(7.0, (170 + 6 * 175) / 7, (10 + 6 * 15) / 7, NOW_MS - 100.0)}),
    ("this one drains", near(node("nrt", draining=True, rtts={"iad": 160.0}, demand={"m": 1.0}), IAD), {}),
    ("this one has no device", near(node("nrt", device=0, rtts={"iad": 160.0}, demand={"m": 1.0}), IAD), {}),
    ("its worker is down", near(node("nrt", state=State.DOWN, rtts={"iad": 160.0}, demand={"m": 1.0}), IAD), {}),
    ("it just fits here", near(NRT, IAD, needs={"m": Needs(1000)}), {"m": ONE._replace(device_bytes=1000)}),
    ("who has it says that it takes more than the catalogue knows", near(NRT, node("iad", models={"m": LARGE})),
     {"m": ONE._replace(device_bytes=900)}),
    ("and so much does not fit here", near(node("nrt", rtts={"iad": 160.0}, demand={"m": 1.0}, device=899), node("iad", models={"m": LARGE})), {}),
    ("it does not fit here", near(NRT, IAD, needs={"m": Needs(1001)}), {}),
    ("it may not run here", near(NRT, IAD, needs={"m": Needs(100, frozenset({"us"}))}), {}),
    ("it may run here", near(NRT, IAD, needs={"m": Needs(100, frozenset({"nrt"}))}), {"m": ONE}),
    ("not in the catalogue any more", near(NRT, IAD, needs={}), {}),
    ("a far copy that is on its way there counts", near(NRT, node("iad", models={"m": ModelBeacon(workers={0: OnDevice(500.0, 10.0)})})),
     {"m": ONE}),
    ("a far copy on a worker that is down does not", near(NRT, node("iad", models={"m": 10.0}, state=State.DOWN)), {}),
    ("a far copy that leaves does not", near(NRT, node("iad", models={"m": 10.0}, draining=True)), {}),
    ("the far node has it on disk only", near(NRT, node("iad", models={"m": ModelBeacon(Tier.DISK)})), {}),
    ("the best of two copies is far", near(node("nrt", rtts={"iad": 160.0, "sin": 70.0}, demand={"m": 1.0}), IAD, node("sin", models={"m": 10.0})),
     {"m": wants(1.0, 80.0, 10.0, NOW_MS - 100.0)}),
    ("a nearer copy on a slow device is not the best one", near(node("nrt", rtts={"iad": 160.0, "sin": 70.0}, demand={"m": 1.0}), IAD,
     node("sin", models={"m": 150.0})), {"m": ONE}),
    ("a copy beside it is near enough: nothing to gain",
     near(node("nrt", rtts={"iad": 160.0, "nrt-b": 0.0}, demand={"m": 1.0}), IAD, node("nrt-b", models={"m": 10.0})), {}),
    ("an ingress of long ago does not count", near(NRT, IAD) | demand_for(
        msgspec.structs.replace(NRT, demand={}), news(IAD) | news(SYD, age_ms=1001.0), NOW_MS, NEEDS), {"m": ONE}),
    ("a copy that is gone does not count", near(NRT, IAD, age_ms=3001.0), {}),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "found", "expected"), DEMANDS)
def test_demand(sentence, found, expected):
    assert set(found) == set(expected)
    for digest, told in expected.items():
        assert found[digest] == pytest.approx(told)


def test_a_copy_not_heard_of_for_a_second_is_no_ground_for_a_load():
    found = near(NRT, IAD, age_ms=MAX_AGE_MS + 1.0)
    assert verdict(Candidate("m", 100, found["m"], 1.0), budget=1000) == Leave("stale")


def test_of_nodes_as_near_exactly_one_is_elected():
    elected = set()
    for digest in map(str, range(20)):
        nodes = [node(f"nrt-{x}", rtts={"iad": 160.0}) for x in "abc"]
        door = node(
            "tyo",
            device=0,
            rtts={"nrt-a": 4.0, "nrt-b": 4.4, "nrt-c": 5.0, "iad": 165.0},
            demand={digest: 1.0},
        )
        iad = node("iad", models={digest: 10.0})
        takers = [
            me.node
            for me in nodes
            if demand_for(
                me, news(door, iad, *[n for n in nodes if n is not me]), NOW_MS, {digest: Needs(100)}
            )
        ]
        assert len(takers) == 1
        elected |= set(takers)
    assert len(elected) == 3, "and not always the same"


def test_of_nodes_as_near_one_with_free_memory_is_elected_before_a_full_one():
    door = node("tyo", device=0, rtts={"nrt-a": 4.0, "nrt-b": 4.4, "iad": 165.0}, demand={"m": 1.0})
    for full, free in [("nrt-a", "nrt-b"), ("nrt-b", "nrt-a")]:
        crowded, empty = node(full, used=950), node(free)
        assert near(empty, door, IAD, crowded)
        assert not near(crowded, door, IAD, empty)


def worth(me, *others, age_ms=100.0):
    return worth_of(me, news(*others, age_ms=age_ms), NOW_MS)["m"]


HOME = node("nrt", models={"m": 10.0}, rtts={"iad": 160.0}, demand={"m": 1.0})
LEAVING = ModelBeacon(Tier.DISK, {0: OnDevice(0.0, 10.0)}, evicting=True)

WORTHS = [
    ("the next copy is a round trip away", worth(HOME, IAD), Worth(1.0, 160.0, 1)),
    ("everybody who is served here waits longer", worth(HOME, IAD, SYD, TYO), Worth(9.0, 160.0 + 2 * 100 + 6 * 160, 1)),
    ("who is served elsewhere does not", worth(HOME, IAD, node("nyc", device=0, rtts={"nrt": 165.0, "iad": 6.0}, demand={"m": 4.0})),
     Worth(5.0, 160.0, 1)),
    ("who can't reach this node loses nothing", worth(HOME, IAD, node("nyc", device=0, rtts={"iad": 6.0}, demand={"m": 4.0})),
     Worth(5.0, 160.0, 1)),
    ("nobody asks for it", worth(msgspec.structs.replace(HOME, demand={}), IAD), Worth(0.0, 0.0, 1)),
    ("the last copy: somebody waits for a load", worth(HOME), Worth(1.0, 1000.0, 0)),
    ("which took so long", worth(msgspec.structs.replace(HOME, models={"m": ModelBeacon(workers={0: OnDevice(0.0, 10.0, 0.0, 400.0)})})),
     Worth(1.0, 400.0, 0)),
    ("a copy on news older than a second is none", worth(HOME, IAD, age_ms=1001.0), Worth(1.0, 1000.0, 0)),
    ("a copy that drains is none", worth(HOME, node("iad", models={"m": 10.0}, draining=True)), Worth(1.0, 1000.0, 0)),
    ("a second device of this node has it too",
     worth(msgspec.structs.replace(HOME, models={"m": ModelBeacon(workers={0: OnDevice(), 1: OnDevice()})})), Worth(1.0, 0.0, 1)),
    ("the other holder, of a lower name, means to evict: it yields", worth(HOME, node("iad", models={"m": LEAVING})), Worth(1.0, 160.0, 1)),
    ("the other holder, of a higher name, means to evict: it goes ahead", worth(HOME, node("sin", models={"m": LEAVING})), Worth(1.0, 1000.0, 0)),
    ("of two others that mean to evict one yields", worth(HOME, node("iad", models={"m": LEAVING}), node("ams", models={"m": LEAVING})),
     Worth(1.0, 1000.0, 1)),
    ("one stays, one means to evict", worth(HOME, IAD, node("sin", models={"m": LEAVING})), Worth(1.0, 160.0, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "found", "expected"), WORTHS)
def test_worth(sentence, found, expected):
    assert found == pytest.approx(expected)


def test_a_model_that_is_on_no_device_here_has_no_worth_here():
    assert worth_of(node("nrt", models={"m": ModelBeacon(Tier.DISK)}), news(IAD), NOW_MS) == {}


def test_the_intent_is_older_than_any_news_that_may_still_be_acted_upon():
    assert INTENT_MS > MAX_AGE_MS


@given(
    st.lists(st.sampled_from(["ams", "fra", "iad", "nrt", "sin"]), min_size=1, unique=True),
    st.sets(st.sampled_from(["ams", "fra", "iad", "nrt", "sin"])),
)
def test_whoever_means_to_evict_at_once_one_copy_stays(holders, intents):
    """Every holder that means to evict does so if its last look leaves it a copy to count on."""
    beacons = [node(name, models={"m": LEAVING if name in intents else 10.0}) for name in holders]
    gone = {
        me.node
        for me in beacons
        if me.node in intents and worth(me, *[one for one in beacons if one is not me]).copies > 0
    }
    assert gone < set(holders)
    assert len(gone) >= len(intents & set(holders)) - 1, "and nobody stays without need"
