"""`poplab chaos` on the planet: users ask, things break by a seed, and every request ends as promised."""

import json
from pathlib import Path

import pytest

from netlab import chaoshistory, chaosrun, state
from netlab.lab import Lab
from tests.support.lab import poplab, say

pytestmark = pytest.mark.lab

#: Breaks a worker, a node and a router's BIRD, two of them at a time.
SEED = 341
SECONDS = 12.0
RATE = 20.0


def test_every_request_ends_in_one_allowed_way(lab: Lab, tmp_path: Path) -> None:
    lab.heal()
    wish = chaosrun.Wish(seed=SEED, seconds=SECONDS, rate_per_s=RATE, history=tmp_path / "history.jsonl")
    report = chaosrun.run(lab, wish, say, lambda _: None)
    found = report.verdict
    assert found.good, "\n".join([*(p.what for p in found.problems[:5]), *found.timeline])
    assert not report.interrupted
    assert len(report.planned) == 3
    assert found.asked >= 0.8 * SECONDS * RATE
    assert found.outcomes["200"] <= found.executions <= found.bound
    events = chaoshistory.read(wish.history)
    assert {(e.target, e.how) for e in events if e.what == "healed"} == {
        (one.target, one.how) for one in report.planned
    }
    taken = {event.id for event in events if event.what == "taken"}
    right = {event.id for event in events if event.what == "ended" and event.outcome == "200"}
    assert len(right - taken) <= 0.05 * len(right), "the workers told what they ran"
    for node in lab.topology.nodes:
        assert "chaos" not in (state.node_home(node.name) / "node.yaml").read_text()


@pytest.mark.usefixtures("lab")
def test_a_dry_run_tells_the_plan_and_breaks_nothing() -> None:
    plans = [poplab("chaos", "--seed", "7", "--minutes", "5", "--dry-run", "--json") for _ in range(2)]
    assert [plan.returncode for plan in plans] == [0, 0], plans[0].stderr
    assert plans[0].stdout == plans[1].stdout
    assert len(json.loads(plans[0].stdout)["faults"]) > 5
    assert json.loads(poplab("faults", "--json").stdout)["faults"] == []
