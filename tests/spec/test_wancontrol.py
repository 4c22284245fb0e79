"""The control protocol of the switch: every request and every refusal."""

import json
from typing import Any

import pytest

from netlab.wanconditions import Conditions
from netlab.wancontrol import answer
from netlab.wanfabric import Fabric, WanConfig, Wire, build
from netlab.wanfate import Why


def fabric() -> Fabric:
    return build(WanConfig(control="/x", wires=(Wire("p", "q", 3.0),)))


def ask(request: object, built: Fabric | None = None) -> dict[str, Any]:
    line = request if isinstance(request, bytes) else json.dumps(request).encode()
    return answer(line, built or fabric(), lambda: {"unknown_frames": 4})


def test_stats_has_every_pair_and_the_sum_of_the_late() -> None:
    built = fabric()
    built.pairs["p", "q"].late, built.pairs["q", "p"].late, built.pairs["p", "q"].frames = 2, 3, 9
    built.pairs["p", "q"].drop(Why.LOSS, 7)
    said = ask({"op": "stats"}, built)
    assert said["engine"] == "afpacket"
    assert said["late_total"] == 5
    assert said["unknown_frames"] == 4
    assert said["pairs"][0] == {
        "from": "p",
        "to": "q",
        "one_way_ms": 3.0,
        "planet_one_way_ms": 3.0,
        "differs": {},
        "cut": False,
        "frames": 9,
        "packets": 0,
        "bytes": 0,
        "dropped": 7,
        "dropped_by": {"loss": 7},
        "reordered": 0,
        "late": 2,
    }
    assert said["pairs"][1]["from"] == "q"


def test_set_changes_one_direction() -> None:
    built = fabric()
    assert ask({"op": "set", "from": "p", "to": "q", "one_way_ms": 40}, built)["one_way_ms"] == 40.0
    assert built.pairs["p", "q"].one_way_ns == 40_000_000
    assert built.pairs["q", "p"].one_way_ns == 3_000_000


def test_set_changes_what_it_names_and_reset_takes_all_back() -> None:
    built = fabric()
    ask({"op": "set", "from": "p", "to": "q", "loss": 0.5, "rate_bps": 9e6}, built)
    said = ask({"op": "set", "from": "p", "to": "q", "one_way_ms": 4, "mtu_silent": True}, built)
    assert said["differs"] == {"one_way_ms": 4.0, "loss": 0.5, "rate_bps": 9_000_000, "mtu_silent": True}
    assert ask({"op": "stats"}, built)["pairs"][0]["differs"] == said["differs"]
    assert built.pairs["p", "q"].per_packet
    ask({"op": "cut", "from": "p", "to": "q", "cut": True}, built)
    said = ask({"op": "reset", "from": "p", "to": "q"}, built)
    assert (said["differs"], said["cut"], said["one_way_ms"]) == ({}, False, 3.0)
    assert not built.pairs["p", "q"].per_packet
    assert built.pairs["p", "q"].wish == Conditions(one_way_ms=3.0)


@pytest.mark.parametrize(
    ("sentence", "request_", "words"),
    [
        ("an op nobody knows", {"op": "explode"}, "unknown op 'explode'; stats, set, cut and reset exist"),
        ("no op", {}, "unknown op 'None'"),
        ("an op that is a list", {"op": ["stats"]}, "unknown op"),
        ("not an object", [1], "unknown op"),
        ("not JSON", b"{", "not JSON"),
        ("not text", b"\xff\xfe\xfd", "not JSON"),
        ("nested without end", b"[" * 4000, "not JSON"),
        (
            "a pair that is none",
            {"op": "set", "from": "p", "to": "p", "one_way_ms": 1},
            "no pair from 'p' to 'p'",
        ),
        ("a name that can't be hashed", {"op": "set", "from": [], "to": {}, "one_way_ms": 1}, "no pair"),
        ("a reset of no pair", {"op": "reset", "from": "p"}, "no pair from 'p' to 'None'"),
        (
            "nothing to set",
            {"op": "set", "from": "p", "to": "q"},
            "nothing to set; write one of one_way_ms, jitter",
        ),
        (
            "one of two wrong",
            {"op": "set", "from": "p", "to": "q", "one_way_ms": 9, "loss": 2},
            "loss is 2; write 0 to 1",
        ),
        (
            "a condition nobody knows",
            {"op": "set", "from": "p", "to": "q", "los": 1},
            "'los' is no condition",
        ),
        ("a delay in words", {"op": "set", "from": "p", "to": "q", "one_way_ms": "1"}, "write a number"),
        (
            "a delay that is a bool",
            {"op": "set", "from": "p", "to": "q", "one_way_ms": True},
            "write a number",
        ),
        ("a negative delay", {"op": "set", "from": "p", "to": "q", "one_way_ms": -1}, "-1 ms is not a delay"),
        ("a delay that is no number", b'{"op":"set","from":"p","to":"q","one_way_ms":NaN}', "nan ms"),
        (
            "a delay past floats",
            b'{"op":"set","from":"p","to":"q","one_way_ms":1' + b"0" * 400 + b"}",
            "large",
        ),
    ],
)
def test_refused(sentence: str, request_: object, words: str) -> None:
    built = fabric()
    assert words in ask(request_, built)["error"], sentence
    assert built.pairs["p", "q"].one_way_ns == 3_000_000
