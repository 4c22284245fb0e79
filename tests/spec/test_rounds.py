"""A run of tests that shows nothing does not count as one that passed."""

import pytest

from tests.support.rounds import left_out

SKIPPED = "SKIPPED [1] tests/support/lab.py:50: the lab needs models: run `make models`\n"


@pytest.mark.parametrize(
    ("sentence", "stdout", "left"),
    [
        ("all passed", "...   [100%]\n3 passed in 1.20s\n", ""),
        ("all passed, and took its time", "2 passed in 75.31s (0:01:15)\n", ""),
        ("with a frame around it", "==== 2 passed in 0.31s ====\n", ""),
        ("all skipped", f"s [100%]\n{SKIPPED}1 skipped in 0.51s\n", "1 skipped in 0.51s"),
        (
            "one skipped",
            f".s [100%]\n{SKIPPED}1 passed, 1 skipped in 0.51s\n",
            "1 passed, 1 skipped in 0.51s",
        ),
        ("one failed", "1 failed, 2 passed in 3.00s", "1 failed, 2 passed in 3.00s"),
        ("nothing found", "no tests ran in 0.01s", "no tests ran in 0.01s"),
        ("silence", "", "it said nothing"),
    ],
)
def test_what_was_left_out(sentence: str, stdout: str, left: str) -> None:
    assert left_out(stdout) == left, sentence
