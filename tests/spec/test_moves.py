"""What the fleet is told of a model on its way: an ETA when it sets out, and a better one as it comes."""

from types import SimpleNamespace
from typing import Any

import pytest

from edge.config import Worker
from edge.policy.facts import Rates, State, Tier
from edge.proxy.device import Book, Stage
from edge.proxy.estimates import Estimates
from edge.proxy.moves import Moves
from edge.wire.calls import Fetching
from tests.support.local import own

MIB = 1 << 20


def test_the_eta_follows_the_fetch():
    fetching: dict[str, Fetching] = {}
    endpoint = own(Worker(device="cpu"))
    endpoint.set_state(State.UP)
    holds: Any = SimpleNamespace(wake=lambda: None, give_back=lambda entry: None)
    moves = Moves(
        Book(1 << 30),
        holds,
        endpoint,
        nearest=lambda _: (Tier.ORIGIN, 40 * MIB),
        estimates=Estimates(Rates, lambda: fetching),
    )
    entry = moves.begin("a", "m", None)
    load_ms = moves.times.expect_ms("a", 40 * MIB)
    assert entry.expected_ms == pytest.approx(300.0 + 40 * MIB / Rates().origin + load_ms)
    assert endpoint.models["a"].eta_ms == pytest.approx(entry.expected_ms, abs=50.0)
    fetching["a"] = Fetching("a", 20 * MIB, 40 * MIB, 5.0 * MIB)
    moves.expect_fetches()
    assert endpoint.models["a"].eta_ms == pytest.approx(4_000.0 + load_ms, abs=50.0)
    first_ms = entry.expected_ms
    moves.to(entry, Stage.QUEUED)
    moves.expect_fetches()
    assert endpoint.models["a"].eta_ms < 1_000.0, "what is here is not fetched"
    assert entry.expected_ms == first_ms, "it is scored by what was said when it set out"
