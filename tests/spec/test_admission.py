"""Predicted waits: Little's law, and silence where nothing is known."""

import pytest

from edge.policy.admission import predicted_wait_ms
from edge.policy.facts import Endpoint, State


def full(service_ms, hard=4):
    return Endpoint("n/0", True, State.UP, hard, 2, hard, True, service_ms)


@pytest.mark.parametrize(
    ("sentence", "waiting", "endpoints", "expected"),
    [
        ("the first in line waits for one of four slots", 0, [full(100.0)], 25.0),
        ("each one ahead adds as much", 3, [full(100.0)], 100.0),
        ("two workers halve it", 3, [full(100.0), full(100.0)], 50.0),
        ("a worker that never answered predicts nothing", 3, [full(0.0)], 0.0),
        ("it does not hide what the other one knows", 0, [full(0.0), full(100.0)], 25.0),
    ],
)
def test_wait(sentence, waiting, endpoints, expected):
    assert predicted_wait_ms(waiting, endpoints) == pytest.approx(expected)
