"""The lines netem is made with, as tc-netem(8) writes them. No kernel has read them here."""

import pytest

from netlab import netemplan
from netlab.wanconditions import Conditions
from netlab.wanfabric import Lan, WanConfig, Wire, build

MACS = {"w-a": "02:00:00:00:00:01", "w-b": "02:00:00:00:00:02", "w-c": "02:00:00:00:00:03"}
CONFIG = WanConfig(
    control="/x",
    lan=Lan(ports=tuple(MACS), macs=MACS, one_way_ms={a: {b: 45.0 for b in MACS if b != a} for a in MACS}),
    wires=(Wire("c-nyc", "a-nyc", 3.0),),
)
FABRIC = build(CONFIG)


@pytest.mark.parametrize(
    ("sentence", "wish", "cut", "line"),
    [
        ("a delay", Conditions(one_way_ms=45), False, "netem limit 45000 delay 45ms rate 0bit"),
        ("no delay", Conditions(), False, "netem limit 10000 delay 0ms rate 0bit"),
        (
            "jitter",
            Conditions(one_way_ms=1, jitter_ms=2.5),
            False,
            "netem limit 10000 delay 1ms 2.5ms rate 0bit",
        ),
        ("loss", Conditions(loss=0.005), False, "netem limit 10000 delay 0ms loss random 0.5% rate 0bit"),
        (
            "a cut loses all",
            Conditions(loss=0.005),
            True,
            "netem limit 10000 delay 0ms loss random 100% rate 0bit",
        ),
        (
            "reorder",
            Conditions(one_way_ms=1, reorder=0.1),
            False,
            "netem limit 10000 delay 1ms reorder 10% rate 0bit",
        ),
        ("reorder needs a delay", Conditions(reorder=0.1), False, "netem limit 10000 delay 0ms rate 0bit"),
        (
            "a rate bounds its queue",
            Conditions(one_way_ms=20, rate_bps=12_000_000),
            False,
            "netem limit 120 delay 20ms rate 12000000bit",
        ),
        ("but not to nothing", Conditions(rate_bps=8000), False, "netem limit 16 delay 0ms rate 8000bit"),
    ],
)
def test_netem(sentence: str, wish: Conditions, line: str, *, cut: bool) -> None:
    assert netemplan.netem(wish, cut=cut) == line, sentence


def test_bridges_join_the_segment_and_each_wire() -> None:
    assert netemplan.bridges(CONFIG) == [
        "link add lan type bridge mcast_snooping 0",
        "link set lan up",
        "link set w-a master lan",
        "link set w-b master lan",
        "link set w-c master lan",
        "link add wire0 type bridge mcast_snooping 0",
        "link set wire0 up",
        "link set c-nyc master wire0",
        "link set a-nyc master wire0",
    ]


def test_every_directed_pair_has_a_netem_of_its_own() -> None:
    lines = netemplan.qdiscs(CONFIG, FABRIC)
    assert lines[:3] == [
        "qdisc add dev w-a root handle 1: htb default 0",
        "class add dev w-a parent 1: classid 1:3 htb rate 100gbit quantum 60000",
        "filter add dev w-a parent 1: protocol all prio 3 u32 match ether src 02:00:00:00:00:02 classid 1:3",
    ]
    made = [line for line in lines if " netem " in line]
    assert len({line.partition(" netem ")[0] for line in made}) == len(made) == len(FABRIC.pairs)
    assert "qdisc add dev w-a parent 1:3 handle 30: netem limit 45000 delay 45ms rate 0bit" in made
    assert "qdisc add dev a-nyc root handle 1: netem limit 10000 delay 3ms rate 0bit" in made


def test_a_change_names_the_pair_s_own() -> None:
    assert netemplan.change(CONFIG, FABRIC.pairs["w-c", "w-a"]).startswith(
        "qdisc change dev w-a parent 1:4 handle 40: netem "
    )


def test_counters_come_from_the_pair_s_own() -> None:
    told = [
        {"dev": "w-a", "kind": "htb", "handle": "1:", "packets": 99},
        {"dev": "w-a", "kind": "netem", "handle": "30:", "packets": 5, "bytes": 700, "drops": 2},
        {"dev": "a-nyc", "kind": "netem", "handle": "1:"},
        {"dev": "lo", "kind": "noqueue"},
    ]
    found = [(pair.origin, pair.to, *rest) for pair, *rest in netemplan.counters(CONFIG, FABRIC, told)]
    assert found == [("w-b", "w-a", 5, 700, 2), ("c-nyc", "a-nyc", 0, 0, 0)]


def test_what_netem_cannot() -> None:
    assert "netem knows no MTU; start the planet with --wan-engine afpacket" in netemplan.refused(
        Conditions(mtu_bytes=1280)
    )
    assert netemplan.refused(Conditions(loss=0.5)) == ""
