"""Each of the 36 faults 20 times: its tests in a run of their own, which brings its planet and takes it away."""

import subprocess
import sys

import pytest

from tests.support.catalogue import CATALOGUE, Row
from tests.support.lab import REPO
from tests.support.rounds import left_out

pytestmark = pytest.mark.soak

ROUNDS = 20
ROUND_S = 600.0


@pytest.mark.timeout(ROUNDS * ROUND_S)
@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: f"{row.number}-{row.fault.replace(' ', '_')}")
def test_again_and_again(row: Row) -> None:
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *row.tests]
    for round_ in range(1, ROUNDS + 1):
        told = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=ROUND_S, check=False)
        left = left_out(told.stdout)
        assert (told.returncode, left) == (0, ""), f"round {round_} of {row.fault}:\n{told.stdout[-6000:]}"
