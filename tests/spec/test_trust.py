"""Whether the device is lost: what fails in a row, and what the example then says."""

import pytest

from edge.worker.trust import Trust

GOOD, BAD = "", "CUDA failure 719"
OK, FAILS = True, False

STORIES = [
    ("one failure is the request's", [FAILS], BAD, 0, 0),
    ("two are still in doubt", [FAILS, FAILS], BAD, 0, 0),
    ("three ask the example", [FAILS] * 3, GOOD, 1, 0),
    ("an example that fails too is a lost device", [FAILS] * 3, BAD, 1, 1),
    ("a success between them begins anew", [FAILS, FAILS, OK, FAILS, FAILS], BAD, 0, 0),
    ("a device that is well is asked again after as many", [FAILS] * 7, GOOD, 2, 0),
]


@pytest.mark.parametrize(
    ("sentence", "runs", "says", "asked", "lost"), STORIES, ids=[row[0] for row in STORIES]
)
def test_what_failures_mean(sentence, runs, says, asked, lost) -> None:
    examples, reasons = [], []

    def example() -> str:
        examples.append(says)
        return says

    trust = Trust(reasons.append)
    for succeeded in runs:
        if succeeded:
            trust.succeeded()
        else:
            trust.failed("minilm", "it failed", example)
    assert (len(examples), len(reasons)) == (asked, lost), sentence
    assert all("minilm (it failed)" in reason and BAD in reason for reason in reasons)
