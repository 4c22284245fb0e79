"""Again here, or give up: the table, and the budget that keeps retries from storming."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import EdgeError, Reason
from edge.policy.retry import BUDGET_CAP, Budget, Next, after

FULL = Budget(10.0)


def failure(*, retryable):
    return EdgeError(Reason.LINK_LOST, "gone", retryable=retryable)


@pytest.mark.parametrize(
    ("sentence", "error", "attempt", "held", "left_ms", "budget", "expected"),
    [
        ("nothing ran: again", failure(retryable=True), 1, True, 100.0, FULL, Next.AGAIN_HERE),
        ("a second time too", failure(retryable=True), 2, True, 100.0, FULL, Next.AGAIN_HERE),
        ("three executions are enough", failure(retryable=True), 3, True, 100.0, FULL, Next.GIVE_UP),
        ("it may have run: never", failure(retryable=False), 1, True, 100.0, FULL, Next.GIVE_UP),
        (
            "the body was streamed: nothing to send",
            failure(retryable=True),
            1,
            False,
            100.0,
            FULL,
            Next.GIVE_UP,
        ),
        ("no time left", failure(retryable=True), 1, True, 0.0, FULL, Next.GIVE_UP),
        ("no token left", failure(retryable=True), 1, True, 100.0, Budget(0.9), Next.GIVE_UP),
    ],
)
def test_after(sentence, error, attempt, held, left_ms, budget, expected):
    assert after(error, attempt=attempt, body_held=held, left_ms=left_ms, budget=budget) is expected


def test_time_and_successes_fill_the_budget_and_retries_empty_it():
    budget = Budget(0.0, 0.0).refilled(1000.0)
    assert budget.tokens == 2.0
    assert budget.after_success().tokens == pytest.approx(2.1)
    assert budget.after_retry().tokens == 1.0
    assert budget.refilled(500.0).tokens == 2.0, "a clock that steps back gives nothing"


@given(st.lists(st.sampled_from(["success", "retry", "second"]), max_size=2000))
def test_retries_stay_within_a_tenth_of_successes_plus_two_per_second(history):
    budget, now_ms, retries, successes = Budget(), 0.0, 0, 0
    for event in history:
        if event == "success":
            budget, successes = budget.after_success(), successes + 1
        elif event == "second":
            now_ms += 1000.0
            budget = budget.refilled(now_ms)
        elif budget.tokens >= 1.0:
            budget, retries = budget.after_retry(), retries + 1
    assert retries <= 2.0 + 0.1 * successes + 2.0 * now_ms / 1000.0 + 1e-6
    assert budget.tokens <= BUDGET_CAP
