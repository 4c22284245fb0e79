"""Which conditions can be, what changes when some are set, and what is refused in which words."""

from typing import Any

import pytest

from netlab.wanconditions import Conditions, ConfigError, changed, differing

PLANET = Conditions(one_way_ms=45.0)


@pytest.mark.parametrize(
    ("sentence", "wishes", "differs", "per_packet"),
    [
        ("a delay is no matter of packets", {"one_way_ms": 60}, {"one_way_ms": 60.0}, False),
        ("the planet's own delay is no difference", {"one_way_ms": 45}, {}, False),
        ("silence alone does nothing", {"mtu_silent": True}, {"mtu_silent": True}, False),
        ("loss", {"loss": 0.5}, {"loss": 0.5}, True),
        ("all of it lost", {"loss": 1}, {"loss": 1.0}, True),
        ("reorder", {"reorder": 0.001}, {"reorder": 0.001}, True),
        ("jitter", {"jitter_ms": 3}, {"jitter_ms": 3.0}, True),
        ("a rate", {"rate_bps": 1e6}, {"rate_bps": 1_000_000}, True),
        ("an MTU", {"mtu_bytes": 1280}, {"mtu_bytes": 1280}, True),
        ("nought is off", {"loss": 0, "jitter_ms": 0, "rate_bps": 0, "mtu_bytes": 0.0}, {}, False),
    ],
)
def test_changed(sentence: str, wishes: dict[str, Any], differs: dict[str, Any], *, per_packet: bool) -> None:
    now = changed(PLANET, wishes)
    assert differing(now, PLANET) == differs, sentence
    assert now.per_packet == per_packet, sentence


def test_what_is_not_named_stays() -> None:
    before = Conditions(one_way_ms=45.0, loss=0.1, mtu_bytes=1280)
    assert changed(before, {"loss": 0}) == Conditions(one_way_ms=45.0, mtu_bytes=1280)


@pytest.mark.parametrize(
    ("sentence", "wishes", "words"),
    [
        ("nothing", {}, "nothing to set; write one of one_way_ms, jitter_ms"),
        ("a name nobody knows", {"los": 0.1}, "'los' is no condition; there are one_way_ms"),
        ("a name without end", {"x" * 500: 0.1}, f"'{'x' * 40}' is no condition"),
        ("a loss in percent", {"loss": 5}, "loss is 5; write 0 to 1: a ratio"),
        ("a negative loss", {"loss": -0.1}, "loss is -0.1; write 0 to 1"),
        ("no number", {"loss": float("nan")}, "loss is nan"),
        ("no end", {"jitter_ms": float("inf")}, "jitter_ms is inf; write 0 to 10000"),
        ("a text", {"loss": "0.1"}, "loss is '0.1'; write a number"),
        ("nothing at all", {"rate_bps": None}, "rate_bps is 'None'; write a number"),
        ("a truth", {"loss": True}, "loss is 'True'; write a number"),
        ("a list", {"loss": [0.1]}, "write a number"),
        ("a rate too slow", {"rate_bps": 10}, "rate_bps is 10; write 8000 to 100000000000: bits per second"),
        ("half a bit", {"rate_bps": 8000.5}, "write a whole number"),
        ("a number past all", {"rate_bps": 10**400}, "rate_bps is too large"),
        ("an MTU that carries nothing", {"mtu_bytes": 100}, "mtu_bytes is 100; write 576 to 65535"),
        ("a silence in words", {"mtu_silent": "yes"}, "mtu_silent is 'yes'; write true or false"),
        ("a negative delay", {"one_way_ms": -1}, "one_way_ms: -1 ms is not a delay"),
    ],
)
def test_refused(sentence: str, wishes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        changed(PLANET, wishes)
    assert words in str(refusal.value), sentence
