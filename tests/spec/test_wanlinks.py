"""How a direction's conditions are said."""

from typing import Any

import pytest

from netlab.wanlinks import link_state, rate_text


@pytest.mark.parametrize(
    ("sentence", "pair", "text", "as_planned"),
    [
        ("as on the planet", {}, "45 ms", True),
        ("cut", {"cut": True}, "45 ms, cut", False),
        ("longer", {"one_way_ms": 90.5, "differs": {"one_way_ms": 90.5}}, "90.5 ms", False),
        ("lossy", {"differs": {"loss": 0.005, "reorder": 0.1}}, "45 ms, loss 0.5%, reorder 10%", False),
        (
            "narrow",
            {"differs": {"rate_bps": 1_500_000, "jitter_ms": 2.0}},
            "45 ms, jitter 2 ms, at most 1.5 Mbit/s",
            False,
        ),
        ("small", {"differs": {"mtu_bytes": 1280}}, "45 ms, MTU 1280", False),
        (
            "a hole",
            {"differs": {"mtu_bytes": 1280, "mtu_silent": True}, "cut": True},
            "45 ms, MTU 1280, which nobody is told, cut",
            False,
        ),
    ],
)
def test_text(sentence: str, pair: dict[str, Any], text: str, *, as_planned: bool) -> None:
    whole = {"cut": False, "one_way_ms": 45.0, "planet_one_way_ms": 45.0, "differs": {}, "frames": 3} | pair
    state = link_state("iad", "fra", whole)
    assert (state.text(), state.as_planned) == (text, as_planned), sentence
    assert (state.as_dict()["from"], state.as_dict()["to"], "origin" in state.as_dict()) == (
        "iad",
        "fra",
        False,
    )


@pytest.mark.parametrize(
    ("rate_bps", "text"),
    [
        (1_000_000_000, "1 Gbit/s"),
        (2_500_000, "2.5 Mbit/s"),
        (64_000, "64 kbit/s"),
        (999, "999 bit/s"),
        (0, "0 bit/s"),
    ],
)
def test_rate_text(rate_bps: int, text: str) -> None:
    assert rate_text(rate_bps) == text
