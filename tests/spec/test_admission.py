"""Predicted waits by Little's law, silence where nothing is known, and two waiting budgets."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import Reason
from edge.policy.admission import Refuse, Wait, predicted_wait_ms, retry_after_s, verdict
from edge.policy.facts import Ask, Endpoint, Live, Snapshot, State


def far(work_ms, n=4, *, parallel=1.0, unseen=0, unseen_ms=0.0):
    return Endpoint(
        name="n/0",
        node="n",
        pop="p",
        region="r",
        here=False,
        home=False,
        state=State.UP,
        hard_limit=n + unseen,
        in_flight=n,
        queued_ms=work_ms,
        parallel=parallel,
        live=Live(unseen, unseen, unseen_ms),
    )


def here(work_ms, n=4):
    """All of an own worker's load is in `live`."""
    return far(0.0, 0, unseen=n, unseen_ms=work_ms)


@pytest.mark.parametrize(
    ("sentence", "waiting", "endpoints", "expected"),
    [
        ("the first in line waits for one of four slots", 0, [far(400.0)], 100.0),
        ("each one ahead adds as much", 3, [far(400.0)], 400.0),
        ("two workers halve it", 3, [far(400.0), far(400.0)], 200.0),
        ("a device that runs two at once halves it", 3, [far(400.0, parallel=2.0)], 200.0),
        ("an own worker, whose load is counted here", 0, [here(400.0)], 100.0),
        ("what was sent since the last beacon counts", 0, [far(300.0, 3, unseen=1, unseen_ms=100.0)], 100.0),
        ("a worker of unknown load predicts nothing", 3, [far(0.0)], 0.0),
        ("it does not hide what the other one knows", 0, [far(0.0), far(400.0)], 100.0),
        ("a slow one hardly helps", 0, [far(400.0), far(39_600.0)], 99.0),
        ("nobody", 3, [], 0.0),
    ],
)
def test_wait(sentence, waiting, endpoints, expected):
    assert predicted_wait_ms(waiting, endpoints) == pytest.approx(expected)


def ask(deadline_ms=60_000.0, *, reject_if_busy=False):
    return Ask(
        model="bert", digest="d1", deadline_ms=deadline_ms, body_bytes=100, reject_if_busy=reject_if_busy
    )


def world(waiting=0):
    return Snapshot(now_ms=0.0, endpoints=(), waiting=waiting, max_waiting=10)


@pytest.mark.parametrize(
    ("sentence", "wish", "waiting", "wait_ms", "cold", "expected"),
    [
        ("a slot soon: wait", ask(), 0, 100.0, False, Wait(2000.0)),
        ("a slot, nobody knows when: wait", ask(), 0, 0.0, False, Wait(2000.0)),
        ("a slot just within the budget: wait", ask(), 0, 2000.0, False, Wait(2000.0)),
        ("a slot too late: refused at once", ask(), 0, 2001.0, False, Refuse(Reason.SATURATED, 3)),
        ("the deadline is the budget", ask(500.0), 0, 400.0, False, Wait(500.0)),
        (
            "later than the deadline: refused at once",
            ask(500.0),
            0,
            501.0,
            False,
            Refuse(Reason.SATURATED, 1),
        ),
        ("a cold start may take longer", ask(), 0, 20_000.0, True, Wait(30_000.0)),
        ("not that long", ask(), 0, 31_000.0, True, Refuse(Reason.COLD_REFUSED, 30)),
        (
            "a cold start later than the deadline",
            ask(5000.0),
            0,
            6000.0,
            True,
            Refuse(Reason.COLD_REFUSED, 6),
        ),
        ("one place left", ask(), 9, 100.0, False, Wait(2000.0)),
        ("the queue is full", ask(), 10, 100.0, False, Refuse(Reason.QUEUE_FULL, 1)),
        ("the queue is full, for cold ones too", ask(), 10, 100.0, True, Refuse(Reason.QUEUE_FULL, 1)),
        ("it asked not to wait", ask(reject_if_busy=True), 0, 100.0, False, Refuse(Reason.BUSY, 1)),
    ],
)
def test_verdict(sentence, wish, waiting, wait_ms, cold, expected):
    assert verdict(wish, world(waiting), wait_ms, cold=cold) == expected


@pytest.mark.parametrize(
    ("predicted_ms", "expected"),
    [(0.0, 1), (999.0, 1), (1000.0, 1), (1001.0, 2), (29_500.0, 30), (1e9, 30), (math.inf, 30), (-5.0, 1)],
)
def test_retry_after_is_between_one_and_thirty_whole_seconds(predicted_ms, expected):
    assert retry_after_s(predicted_ms) == expected


@given(st.floats(1.0, 100_000.0), st.floats(0.0, 100_000.0), st.integers(0, 20), st.booleans())
def test_nobody_is_let_in_to_wait_beyond_a_budget(deadline_ms, wait_ms, waiting, cold):
    match verdict(ask(deadline_ms), world(waiting), wait_ms, cold=cold):
        case Wait(budget_ms):
            assert wait_ms <= budget_ms <= deadline_ms
            assert waiting < 10
        case Refuse(_, again_s):
            assert 1 <= again_s <= 30
