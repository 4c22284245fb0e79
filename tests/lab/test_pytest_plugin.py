"""The pytest plugin on a planet that runs already: a stranger's three lines work, and leave it as it was."""

import subprocess
import sys
from pathlib import Path

import pytest

from netlab.lab import Lab

pytestmark = pytest.mark.lab

THREE_LINES = """
def test_a_user_of_amsterdam_survives_its_withdrawal(well_planet):
    with well_planet.fail("ams-a/bird", "kill"):
        well_planet.city("lon").wait_until_served_by("fra", within_ms=5000)
"""


def test_three_lines_of_a_stranger(lab: Lab, tmp_path: Path) -> None:
    lab.wait_until_well(within_s=30)
    (tmp_path / "test_mine.py").write_text(THREE_LINES)
    before = lab.status()["processes"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        str(tmp_path),
        "--rootdir",
        str(tmp_path),
    ]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert "1 passed" in told.stdout, told.stdout
    after = Lab.running().status()["processes"]
    changed = {one["name"] for one, other in zip(after, before, strict=True) if one != other}
    assert changed == {"ams-a.bird"}
    assert Lab.running().faults() == []
