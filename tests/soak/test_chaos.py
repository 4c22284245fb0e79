"""Ten minutes of chaos from each of five seeds: every request ends in one allowed way."""

from pathlib import Path

import pytest

from netlab import chaosrun
from netlab.lab import Lab
from tests.support.lab import say

pytestmark = pytest.mark.soak

SECONDS = 600.0
RATE = 25.0


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_every_request_ends_in_one_allowed_way(lab: Lab, tmp_path: Path, seed: int) -> None:
    lab.heal()
    wish = chaosrun.Wish(seed=seed, seconds=SECONDS, rate_per_s=RATE, history=tmp_path / "history.jsonl")
    found = chaosrun.run(lab, wish, say, lambda _: None).verdict
    assert found.good, "\n".join([*(p.what for p in found.problems[:5]), *found.timeline])
    assert found.asked >= 0.8 * SECONDS * RATE
    assert found.outcomes["200"] >= 0.5 * found.asked, "most were served"
