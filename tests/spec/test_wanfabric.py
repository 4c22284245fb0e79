"""The fabric: which pairs carry a frame, and which configs are refused with what words."""

import json
from typing import Any

import pytest

from netlab.wanconditions import Conditions, ConfigError, changed, one_way_ns
from netlab.wanfabric import MAX_PORTS, Fabric, build, read_config, takers
from netlab.wanfate import Lane

IAD, FRA, NRT = "02:00:00:00:01:01", "02:00:00:00:02:01", "02:00:00:00:03:01"
DELAYS = {
    "w-iad": {"w-fra": 45, "w-nrt": 80},
    "w-fra": {"w-iad": 45, "w-nrt": 115},
    "w-nrt": {"w-iad": 80, "w-fra": 115},
}

RATE_AND_JITTER = Conditions(one_way_ms=45, rate_bps=8_000, jitter_ms=1.0)


def planet(**changes: Any) -> dict[str, Any]:
    lan = {
        "ports": ["w-iad", "w-fra", "w-nrt"],
        "macs": {"w-iad": IAD, "w-fra": FRA, "w-nrt": NRT},
        "one_way_ms": DELAYS,
    }
    whole = {
        "control": "/run/wan.sock",
        "lan": lan,
        "wires": [{"a": "c-nyc", "b": "a-nyc", "one_way_ms": 3.0}],
    }
    for path, value in changes.items():
        room = whole
        *rooms, last = path.split("__")
        for name in rooms:
            room = room[name]  # type: ignore[assignment]
        room[last] = value
    return whole


def fabric(**changes: Any) -> Fabric:
    return build(read_config(json.dumps(planet(**changes)).encode()))


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


@pytest.mark.parametrize(
    ("sentence", "port", "destination", "to"),
    [
        ("a router's MAC goes to its port alone", "w-iad", FRA, ["w-fra"]),
        ("broadcast goes to every other port", "w-iad", "ff:ff:ff:ff:ff:ff", ["w-fra", "w-nrt"]),
        ("IPv6 multicast goes to every other port", "w-fra", "33:33:00:00:00:01", ["w-iad", "w-nrt"]),
        ("a MAC nobody has goes nowhere", "w-iad", "02:00:00:00:09:09", []),
        ("a port's own MAC does not come back", "w-iad", IAD, []),
        ("a wire carries whatever it is given", "c-nyc", "02:00:00:00:09:09", ["a-nyc"]),
        ("a wire works from its other end", "a-nyc", "ff:ff:ff:ff:ff:ff", ["c-nyc"]),
    ],
)
def test_takers(sentence: str, port: str, destination: str, to: list[str]) -> None:
    assert [pair.to for pair in takers(fabric().routes[port], mac(destination))] == to, sentence


def test_each_direction_has_its_own_pair_and_delay() -> None:
    built = fabric(lan__one_way_ms=DELAYS | {"w-fra": {"w-iad": 60, "w-nrt": 115}})
    assert built.pairs["w-iad", "w-fra"].wish.one_way_ms == 45
    assert built.pairs["w-fra", "w-iad"].wish.one_way_ms == 60
    assert built.pairs["c-nyc", "a-nyc"].one_way_ns == built.pairs["a-nyc", "c-nyc"].one_way_ns == 3_000_000
    assert len(built.pairs) == 8


def test_each_pair_draws_for_itself_and_the_same_again() -> None:
    def draws(built: Fabric) -> dict[tuple[str, str], list[float]]:
        return {key: [pair.draw() for _ in range(3)] for key, pair in built.pairs.items()}

    first = draws(fabric())
    assert draws(fabric()) == first
    assert len({tuple(each) for each in first.values()}) == len(first)
    assert draws(fabric(seed=2)) != first


def test_a_fabric_of_wires_alone_is_one() -> None:
    wires = {"control": "/x", "wires": [{"a": "p", "b": "q", "one_way_ms": 0}]}
    assert set(build(read_config(json.dumps(wires).encode())).routes) == {"p", "q"}


@pytest.mark.parametrize(
    ("sentence", "changes", "words"),
    [
        (
            "a missing direction",
            {"lan__one_way_ms": DELAYS | {"w-nrt": {"w-iad": 80}}},
            r"one_way_ms\[w-nrt\]\[w-fra\]",
        ),
        ("a negative delay", {"wires": [{"a": "p", "b": "q", "one_way_ms": -1}]}, "wire p - q: -1.0 ms"),
        ("a delay past the bound", {"wires": [{"a": "p", "b": "q", "one_way_ms": 60001}]}, "60001.0 ms"),
        (
            "a port in two places",
            {"wires": [{"a": "w-iad", "b": "q", "one_way_ms": 1}]},
            "w-iad is used twice",
        ),
        ("a port without MAC", {"lan__macs": {"w-iad": IAD, "w-fra": FRA}}, r"macs\[w-nrt\]"),
        (
            "a MAC that is none",
            {"lan__macs": {"w-iad": "zz", "w-fra": FRA, "w-nrt": NRT}},
            r"macs\[w-iad\]: 'zz'",
        ),
        ("a multicast MAC", {"lan__macs": {"w-iad": "01:00:00:00:00:01"}}, r"macs\[w-iad\]"),
        (
            "one MAC for two",
            {"lan__macs": {"w-iad": IAD, "w-fra": IAD, "w-nrt": NRT}},
            "two ports have one MAC",
        ),
        (
            "a path as a name",
            {"wires": [{"a": "../x", "b": "q", "one_way_ms": 1}]},
            "'../x' is no interface name",
        ),
        ("a name too long", {"wires": [{"a": "p" * 16, "b": "q", "one_way_ms": 1}]}, "is no interface name"),
        ("an unknown field", {"wires": [{"a": "p", "b": "q", "one_way_ms": 1, "loss": 1}]}, "loss"),
        ("a wrong type", {"control": 5}, r"control"),
        ("nothing to join", {"lan": {}, "wires": []}, "no ports"),
        ("a queue too small", {"queue_bytes": 10}, "queue_bytes: 10"),
        (
            "too many ports",
            {"wires": [{"a": f"p{n}", "b": f"q{n}", "one_way_ms": 1} for n in range(MAX_PORTS)]},
            "at most",
        ),
    ],
)
def test_refused(sentence: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fabric(**changes)


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_config_is_said_to_be_none(text: bytes) -> None:
    with pytest.raises(ConfigError, match="not a WAN config"):
        read_config(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.001])
def test_what_is_no_delay(value: float) -> None:
    with pytest.raises(ConfigError, match="here"):
        one_way_ns(value, "here")


@pytest.mark.parametrize(
    ("sentence", "first", "then", "lane"),
    [
        ("another loss leaves queue and order", RATE_AND_JITTER, {"loss": 0.1}, Lane(9, 7)),
        ("another rate leaves the queue", RATE_AND_JITTER, {"rate_bps": 9_000}, Lane(9, 7)),
        ("no rate, no queue", RATE_AND_JITTER, {"rate_bps": 0}, Lane(0, 7)),
        ("no jitter, no order to keep", RATE_AND_JITTER, {"jitter_ms": 0.0}, Lane(9, 0)),
    ],
)
def test_a_change_lifts_only_what_it_names(
    sentence: str, first: Conditions, then: dict[str, float], lane: Lane
) -> None:
    pair = fabric().pairs["w-iad", "w-fra"]
    pair.become(first)
    pair.lane = Lane(9, 7)
    pair.become(changed(first, then))
    assert pair.lane == lane, sentence
