"""The pytest plugin on an empty machine: it brings a planet, breaks it, heals it, and takes it away."""

import subprocess
import sys
from pathlib import Path

import pytest

from netlab import netns, state

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("no_lab")]

LINES = """
def test_who_answers(planet):
    assert planet.city("lon").get("/pop").pop == "ams"

def test_a_user_of_london_survives_amsterdam(well_planet):
    with well_planet.fail("ams-a", "kill"):
        well_planet.city("lon").wait_until_served_by("fra", within_ms=5000)
    assert well_planet.node("ams-a").up
"""


def test_it_comes_and_goes_with_the_tests(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(LINES)
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
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert "2 passed" in told.stdout, told.stdout
    assert (state.read(), netns.names()) == (None, [])
