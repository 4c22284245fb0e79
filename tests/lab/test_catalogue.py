"""Each of the 36 faults has a number, an expected outcome and a test that exists."""

import subprocess
import sys

import pytest

from tests.support.catalogue import CATALOGUE, Row, paths
from tests.support.lab import REPO


@pytest.fixture(scope="module")
def ids() -> list[str]:
    """Every test of the files that the catalogue names, as pytest collects them now."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-p",
        "no:cacheprovider",
        *paths(*CATALOGUE),
    ]
    told = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=100, check=False)
    assert told.returncode == 0, told.stdout[-2000:]
    return told.stdout.splitlines()


def test_the_numbers_are_whole() -> None:
    assert [row.number for row in CATALOGUE] == list(range(1, 37))


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: f"{row.number}-{row.fault.replace(' ', '_')}")
def test_each_fault_is_a_test(row: Row, ids: list[str]) -> None:
    assert row.tests
    for test in row.tests:
        assert any(one == test or one.startswith((f"{test}[", f"{test}::")) for one in ids), f"{test} is gone"
