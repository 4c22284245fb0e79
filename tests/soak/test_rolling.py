"""A fleet is restarted over and over while 10^5 requests are made: none fails, hardly any runs twice."""

import pytest

from tests.support.fleet import Wanted, running_fleet
from tests.support.rolling import EXPLAIN_EVERY, ROW, roll

pytestmark = pytest.mark.soak

REQUESTS = 100_000
CPU = ("device: cpu",)


def test_a_rolling_restart_of_every_node_loses_nothing() -> None:
    with running_fleet(
        Wanted("iad-a", "us"), Wanted("iad-b", "us", CPU), Wanted("fra-a", "eu", CPU)
    ) as fleet:
        for name in ("iad-b", "fra-a"):
            assert fleet[name].request("/run/identity", ROW, {"Edge-Cold": "wait"}).status == 200
        rolled = roll(fleet, ("iad-a", "fra-a"), per_s=75, requests=REQUESTS)
    assert set(rolled.outcomes) == {"200"}, rolled
    assert rolled.outcomes.total() >= REQUESTS
    assert rolled.explained >= rolled.outcomes.total() / EXPLAIN_EVERY / 2, "enough were looked at"
    assert rolled.explained <= rolled.executions <= 1.1 * rolled.explained, rolled
