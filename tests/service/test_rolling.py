"""A fleet is restarted, drained and overrun while people use it: nothing is lost, or it is said why."""

import statistics

import pytest

from netlab.clock import wait_until
from tests.support.crowd import crowd
from tests.support.fleet import Wanted, running_fleet
from tests.support.openloop import OpenLoop
from tests.support.rolling import EXPECT, EXPLAIN_EVERY, ROW, roll

CPU = ("device: cpu",)
REQUESTS = 5_000
REASONS = {"saturated", "queue-full", "queue-timeout"}


@pytest.fixture(scope="module")
def fleet():
    with running_fleet(
        Wanted("iad-a", "us"), Wanted("iad-b", "us", CPU), Wanted("fra-a", "eu", CPU)
    ) as nodes:
        for name in ("iad-b", "fra-a"):
            assert nodes[name].request("/run/identity", ROW, {"Edge-Cold": "wait"}).status == 200
        yield nodes


def test_a_rolling_restart_of_every_node_loses_nothing(fleet):
    rolled = roll(fleet, ("iad-a", "fra-a"), per_s=160, requests=REQUESTS)
    assert set(rolled.outcomes) == {"200"}, rolled
    assert rolled.outcomes.total() >= REQUESTS
    assert rolled.explained >= rolled.outcomes.total() / EXPLAIN_EVERY / 2, "enough were looked at"
    assert rolled.explained <= rolled.executions <= 1.1 * rolled.explained, rolled


def given(node):
    """Requests that other nodes sent to this one, whatever became of them."""
    lines = node.admin("/metrics").body.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("edge_forwarded_total"))


def test_a_drained_node_gets_nothing_new_and_comes_back(fleet):
    us, far = fleet["iad-a"], fleet["fra-a"]
    force = {"Edge-Prefer-Region": "eu"}
    assert us.request("/run/identity", ROW, force).headers["edge-served-by"] == "fra-a/0"
    with OpenLoop(us.port, "/run/identity", ROW.encode(), per_s=50, expect=EXPECT) as load:
        assert far.admin("/edge/drain", method="POST").json["phase"] == "drained"
        wait_until(
            lambda: us.request("/run/identity", ROW, force).headers["edge-served-by"] == "iad-b/0",
            "nothing goes to fra any more",
            within_s=3,
        )
        before = given(far)
        answers = [us.request("/run/identity", ROW, force) for _ in range(20)]
        assert {(one.status, one.headers["edge-served-by"]) for one in answers} == {(200, "iad-b/0")}
        assert given(far) == before > 0
        assert far.admin("/edge/undrain", method="POST").json["phase"] == "serving"
        wait_until(
            lambda: us.request("/run/identity", ROW, force).headers["edge-served-by"] == "fra-a/0",
            "fra is back",
            within_s=15,
        )
    assert set(load.outcomes) == {"200"}, load.outcomes


SMALL = ("device: cpu\nsoft_limit: 1\nhard_limit: 2",)
SHORT = "queue: {max_waiting: 2, max_wait_ms: 100}\n"


def test_overload_is_refused_at_once_with_its_reason_and_home_is_served_again_after():
    """64 users of a model of some milliseconds at four slots: 200, or 429 that says when to come again."""
    with running_fleet(
        Wanted("iad-a", "us", extra=SHORT),
        Wanted("iad-b", "us", SMALL, SHORT),
        Wanted("fra-a", "eu", SMALL, SHORT),
    ) as nodes:
        ingress = nodes["iad-a"]
        text = "word " * 120
        for name in ("iad-b", "fra-a"):
            assert nodes[name].request("/run/minilm", text, {"Edge-Cold": "wait"}).status == 200

        told = crowd(ingress.port, "/run/minilm", text.encode(), users=64, each=5)
        refused = [one for one in told if one.status != 200]
        assert refused
        assert {one.status for one in refused} == {429}
        assert {one.headers["edge-drop-reason"] for one in refused} <= REASONS
        assert all(1 <= int(one.headers["retry-after"]) <= 30 for one in refused)
        assert {one.headers["edge-served-by"] for one in told if one.status == 200} == {"iad-b/0", "fra-a/0"}
        at_once = [one for one in refused if one.headers["edge-drop-reason"] in ("saturated", "queue-full")]
        inside = [
            ingress.admin(f"/edge/explain/{one.headers['edge-request-id']}").json["took_ms"]
            for one in at_once[-200:]
        ]
        assert inside
        assert statistics.median(inside) <= 10.0, inside
        wait_until(
            lambda: ingress.request("/run/minilm", text).headers.get("edge-served-by") == "iad-b/0",
            "home again",
            within_s=2,
        )
