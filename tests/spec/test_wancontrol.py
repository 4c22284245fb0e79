"""The control protocol of the switch: every request and every refusal."""

import json
from typing import Any

import pytest

from netlab.wancontrol import answer
from netlab.wanfabric import Fabric, WanConfig, Wire, build


def fabric() -> Fabric:
    return build(WanConfig(control="/x", wires=(Wire("p", "q", 3.0),)))


def ask(request: object, built: Fabric | None = None) -> dict[str, Any]:
    line = request if isinstance(request, bytes) else json.dumps(request).encode()
    return answer(line, built or fabric(), lambda: {"unknown_frames": 4})


def test_stats_has_every_pair_and_the_sum_of_the_late() -> None:
    built = fabric()
    built.pairs["p", "q"].late, built.pairs["q", "p"].late, built.pairs["p", "q"].frames = 2, 3, 9
    said = ask({"op": "stats"}, built)
    assert said["engine"] == "afpacket"
    assert said["late_total"] == 5
    assert said["unknown_frames"] == 4
    assert said["pairs"][0] == {
        "from": "p",
        "to": "q",
        "one_way_ms": 3.0,
        "frames": 9,
        "bytes": 0,
        "dropped": 0,
        "late": 2,
        "cut": False,
    }
    assert said["pairs"][1]["from"] == "q"


def test_set_changes_one_direction() -> None:
    built = fabric()
    assert ask({"op": "set", "from": "p", "to": "q", "one_way_ms": 40}, built)["one_way_ms"] == 40.0
    assert built.pairs["p", "q"].one_way_ns == 40_000_000
    assert built.pairs["q", "p"].one_way_ns == 3_000_000


@pytest.mark.parametrize(
    ("sentence", "request_", "words"),
    [
        ("an op nobody knows", {"op": "explode"}, "unknown op 'explode'; stats, set and cut exist"),
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
        ("no delay", {"op": "set", "from": "p", "to": "q"}, "one_way_ms is 'None'"),
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
