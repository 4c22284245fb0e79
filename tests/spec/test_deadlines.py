"""`deadlines.py`: each phase against its own limit, just before and at it."""

import pytest

from edge.http.deadlines import Phase, overdue, too_slow
from edge.limits import HttpLimits

LIMITS = HttpLimits(
    header_timeout_ms=10, idle_timeout_ms=20, linger_ms=30, write_timeout_ms=40, body_min_bytes_per_s=1000
)

PHASES = [
    ("headers", Phase.HEAD, 10),
    ("between requests", Phase.IDLE, 20),
    ("after the last answer", Phase.LINGER, 30),
    ("flushing", Phase.CLOSING, 40),
]


@pytest.mark.parametrize(("sentence", "phase", "limit_ms"), PHASES, ids=[row[0] for row in PHASES])
def test_a_phase_ends_at_its_limit(sentence: str, phase: Phase, limit_ms: int) -> None:
    assert not overdue(phase, limit_ms - 0.1, LIMITS), sentence
    assert overdue(phase, limit_ms, LIMITS), sentence


@pytest.mark.parametrize("phase", [Phase.REQUEST, Phase.CLOSED])
def test_a_request_and_a_closed_connection_have_no_deadline_here(phase: Phase) -> None:
    assert not overdue(phase, 1e9, LIMITS)


def test_a_body_has_a_floor_over_the_time_it_took() -> None:
    assert too_slow(499, 500, LIMITS)
    assert not too_slow(500, 500, LIMITS)
