"""Again here, elsewhere, or give up: the table, and the budget that keeps retries from storming."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import STATUS, EdgeError, Reason
from edge.policy.retry import BUDGET_CAP, MAX_EXECUTIONS, MAX_TRIES, TABLE, Budget, Next, after, costs_token

FULL = Budget(10.0)
EMPTY = Budget(0.9)
AGAIN, ELSEWHERE, GIVE_UP = Next.AGAIN_HERE, Next.ELSEWHERE, Next.GIVE_UP


def refused(reason):
    return EdgeError(reason, "not here", retryable=True)


def ran(reason):
    return EdgeError(reason, "gone", retryable=False)


def what(
    failure, *, attempt=1, executions=None, body=True, left=1000.0, estimate=100.0, budget=FULL, begun=False
):
    if executions is None:
        executions = attempt if not failure.retryable else attempt - 1
    return after(
        failure,
        attempt=attempt,
        executions=executions,
        body_held=body,
        left_ms=left,
        estimate_ms=estimate,
        budget=budget,
        first_byte_sent=begun,
    )


RULES = [
    ("not sent: elsewhere", refused(Reason.LINK_LOST), {}, ELSEWHERE),
    ("that costs no token", refused(Reason.LINK_LOST), {"budget": EMPTY}, ELSEWHERE),
    ("refused as full: elsewhere", refused(Reason.SATURATED), {"budget": EMPTY}, ELSEWHERE),
    ("refused as draining: elsewhere", refused(Reason.DRAINING), {"budget": EMPTY}, ELSEWHERE),
    ("refused as cold: elsewhere", refused(Reason.COLD_REFUSED), {"budget": EMPTY}, ELSEWHERE),
    ("a refusal is soon repeated: no estimate needed", refused(Reason.BUSY), {"left": 1.0}, ELSEWHERE),
    ("seven refusals: there may be an eighth node", refused(Reason.BUSY), {"attempt": 7, "executions": 0}, ELSEWHERE),
    ("eight are enough", refused(Reason.BUSY), {"attempt": 8, "executions": 0}, GIVE_UP),
    ("refused after it may have run twice", refused(Reason.BUSY), {"attempt": 3, "executions": 2}, ELSEWHERE),
    ("refused after it may have run three times", refused(Reason.BUSY), {"attempt": 4, "executions": 3}, GIVE_UP),
    ("not loaded after all: it is loaded there now", refused(Reason.NO_ENDPOINT), {}, AGAIN),
    ("no token for that: elsewhere", refused(Reason.NO_ENDPOINT), {"budget": EMPTY}, ELSEWHERE),
    ("not loaded a second time: elsewhere", refused(Reason.NO_ENDPOINT), {"attempt": 2}, ELSEWHERE),
    ("lost after it was sent: inference is pure, once elsewhere", ran(Reason.LINK_LOST), {}, ELSEWHERE),
    ("its worker died: once elsewhere", ran(Reason.WORKER_LOST), {}, ELSEWHERE),
    ("it kills workers: two are enough", ran(Reason.WORKER_LOST), {"attempt": 2}, GIVE_UP),
    ("its worker died after a refusal: still once", ran(Reason.WORKER_LOST), {"attempt": 2, "executions": 1}, ELSEWHERE),
    ("lost, and no token", ran(Reason.LINK_LOST), {"budget": EMPTY}, GIVE_UP),
    ("lost, and one token", ran(Reason.LINK_LOST), {"budget": Budget(1.0)}, ELSEWHERE),
    ("lost, and another would come too late", ran(Reason.LINK_LOST), {"left": 99.0}, GIVE_UP),
    ("lost, and another would come just in time", ran(Reason.LINK_LOST), {"left": 100.0}, ELSEWHERE),
    ("it failed on that copy: once on another", ran(Reason.INFER_FAILED), {}, ELSEWHERE),
    ("the weights could not be had there", refused(Reason.ORIGIN_DOWN), {}, ELSEWHERE),
    ("a load elsewhere costs a token", refused(Reason.ORIGIN_DOWN), {"budget": EMPTY}, GIVE_UP),
    ("weights that three nodes can't get: enough", refused(Reason.ORIGIN_DOWN), {"attempt": 3, "executions": 0}, GIVE_UP),
    ("refused, as all of that node's workers in the region are gone", refused(Reason.CONFINED), {"budget": EMPTY}, ELSEWHERE),
    ("the deadline passed", ran(Reason.DEADLINE), {"left": 0.0}, GIVE_UP),
    ("the worker's deadline passed and too little is left", ran(Reason.DEADLINE), {"left": 50.0}, GIVE_UP),
    ("the worker's deadline passed and there is time", ran(Reason.DEADLINE), {}, ELSEWHERE),
    ("the body was streamed: nothing to send", refused(Reason.LINK_LOST), {"body": False}, GIVE_UP),
    ("no time left", refused(Reason.LINK_LOST), {"left": 0.0}, GIVE_UP),
    ("the client has a byte of the answer: never", refused(Reason.LINK_LOST), {"begun": True}, GIVE_UP),
    ("the client has a byte of the answer, lost: never", ran(Reason.LINK_LOST), {"begun": True}, GIVE_UP),
    ("the input is wrong everywhere", ran(Reason.BAD_INPUT), {}, GIVE_UP),
    ("the client's own limit", refused(Reason.RATE_LIMITED), {}, GIVE_UP),
    ("a loop", ran(Reason.LOOP), {}, GIVE_UP),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "failure", "more", "expected"), RULES)
def test_after(sentence, failure, more, expected):
    assert what(failure, **more) is expected


def test_no_4xx_but_full_is_ever_repeated():
    repeated = {reason for reason, _ in TABLE if 400 <= STATUS[reason] < 500}
    assert repeated == {Reason.SATURATED, Reason.QUEUE_FULL, Reason.QUEUE_TIMEOUT, Reason.BUSY}


@pytest.mark.parametrize(
    ("sentence", "failure", "expected"),
    [
        ("a refusal costs nothing", refused(Reason.SATURATED), False),
        ("nor does what was not sent", refused(Reason.LINK_LOST), False),
        ("nor a second look elsewhere", refused(Reason.NO_ENDPOINT), False),
        ("what may have run does", ran(Reason.LINK_LOST), True),
        ("and what another node would fetch", refused(Reason.ORIGIN_DOWN), True),
        ("what is never repeated costs nothing", ran(Reason.BAD_INPUT), False),
    ],
)
def test_going_elsewhere_costs_a_token_where_it_may_cost_an_execution_or_a_fetch(sentence, failure, expected):
    assert costs_token(failure) is expected


failures = st.builds(
    lambda reason, retryable: EdgeError(reason, "x", retryable=retryable),
    st.sampled_from(Reason),
    st.booleans(),
)


@given(st.lists(failures, min_size=20, max_size=20), st.floats(0.0, 100.0))
def test_whatever_fails_few_executions_and_few_tries(history, tokens):
    """The accounting is the handler's: what is not retryable may have run."""
    budget, executions, tries = Budget(tokens), 0, 0
    for failure in history:
        tries += 1
        executions += not failure.retryable
        step = what(failure, attempt=tries, executions=executions, budget=budget)
        if step is GIVE_UP:
            break
        if step is AGAIN or costs_token(failure):
            budget = budget.after_retry()
    assert executions <= MAX_EXECUTIONS
    assert tries <= MAX_TRIES
    assert budget.tokens >= 0.0


def test_time_and_successes_fill_the_budget_and_retries_empty_it():
    budget = Budget(0.0, 0.0).refilled(1000.0)
    assert budget.tokens == 2.0
    assert budget.after_success().tokens == pytest.approx(2.1)
    assert budget.after_retry().tokens == 1.0
    assert budget.refilled(500.0).tokens == 2.0, "a clock that steps back gives nothing"
    assert Budget(BUDGET_CAP).after_success().tokens == BUDGET_CAP


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
