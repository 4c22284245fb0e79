"""A fleet is restarted, drained and overrun while people use it: nothing is lost, or it is said why."""

import concurrent.futures
import json
import statistics

import pytest

from netlab.clock import now_s, wait_until
from tests.support.fleet import Wanted, running_fleet, wait_until_joined
from tests.support.openloop import OpenLoop

ROW = json.dumps({"input": [[1.0] * 16]})
EXPECT = b'"y":[[1.0,'
CPU = ("device: cpu",)
REASONS = {"saturated", "queue-full", "queue-timeout"}


@pytest.fixture(scope="module")
def fleet():
    with running_fleet(
        Wanted("iad-a", "us"), Wanted("iad-b", "us", CPU), Wanted("fra-a", "eu", CPU)
    ) as nodes:
        for name in ("iad-b", "fra-a"):
            assert nodes[name].request("/run/identity", ROW, {"Edge-Cold": "wait"}).status == 200
        yield nodes


def executions(nodes):
    """Requests that workers of these nodes were given, whoever asked."""
    total = 0.0
    for node in nodes:
        for line in node.admin("/metrics").body.decode().splitlines():
            if (line.startswith("edge_forwarded_total") and 'outcome="refused"' not in line) or (
                line.startswith("edge_requests_total") and f'served_by="{node.name}/' in line
            ):
                total += float(line.rsplit(" ", 1)[1])
    return total


def restarted(node):
    tree = node.state["tree"]
    return not tree.get("restarting") and all(child["up"] and child["ready"] for child in tree["children"])


def roll(node):
    """Restart every child of a node, one after another, as `popctl restart --wait` does."""
    before = {child["role"]: child["pid"] for child in node.state["tree"]["children"]}
    assert node.admin("/edge/restart", method="POST").status == 200

    def over():
        try:
            tree = node.state["tree"]
        except (OSError, ValueError, KeyError):
            return False
        after = {child["role"]: child["pid"] for child in tree["children"]}
        return restarted(node) and all(after[role] != pid for role, pid in before.items())

    wait_until(over, f"{node.name} was restarted", within_s=60)
    assert not node.state["tree"].get("restart_problem")


def test_a_rolling_restart_of_every_node_loses_nothing(fleet):
    us, eu = fleet["iad-a"], fleet["fra-a"]
    with (
        OpenLoop(us.port, "/run/identity", ROW.encode(), per_s=60, expect=EXPECT) as at_us,
        OpenLoop(eu.port, "/run/identity", ROW.encode(), per_s=60, expect=EXPECT) as at_eu,
    ):
        wait_until(lambda: at_us.asked > 50 and at_eu.asked > 50, "both are asked", within_s=10)
        for node in fleet.values():
            roll(node)
            for other in fleet.values():
                wait_until_joined(other, 2, within_s=20)
    asked = at_us.outcomes + at_eu.outcomes
    assert set(asked) == {"200"}, asked
    assert asked["200"] >= 300


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

        def ask(_):
            began_s = now_s()
            answer = ingress.request("/run/minilm", text)
            return answer, (now_s() - began_s) * 1000.0

        with concurrent.futures.ThreadPoolExecutor(64) as users:
            answers = list(users.map(ask, range(512)))
        refused = [(answer, ms) for answer, ms in answers if answer.status != 200]
        assert refused
        assert {answer.status for answer, _ in refused} == {429}
        assert {answer.headers["edge-drop-reason"] for answer, _ in refused} <= REASONS
        assert all(1 <= int(answer.headers["retry-after"]) <= 30 for answer, _ in refused)
        assert {answer.headers["edge-served-by"] for answer, _ in answers if answer.status == 200} == {
            "iad-b/0",
            "fra-a/0",
        }
        inside = [
            float(row["took_ms"])
            for row in (
                ingress.admin(f"/edge/explain/{answer.headers['edge-request-id']}").json
                for answer, _ in refused[-40:]
                if answer.headers["edge-drop-reason"] in ("saturated", "queue-full")
            )
        ]
        assert inside
        assert statistics.median(inside) <= 10.0, inside
        wait_until(
            lambda: ingress.request("/run/minilm", text).headers.get("edge-served-by") == "iad-b/0",
            "home again",
            within_s=2,
        )
