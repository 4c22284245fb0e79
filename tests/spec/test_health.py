"""Silence and the breaker: when a node may be chosen, as dialogues and as a table."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import Reason
from edge.policy.facts import Standing
from edge.policy.health import (
    OPEN_MAX_MS,
    OPEN_MIN_MS,
    PROBE_MS,
    SLOW_START_MS,
    TRANSITIONS,
    WINDOW,
    Breaker,
    Event,
    Health,
    Limits,
    at,
    blamed,
    failed,
    forgotten,
    heard,
    sent,
    standing,
    succeeded,
)

LIMITS = Limits(suspect_ms=1500.0, unroutable_ms=3000.0, forget_ms=30_000.0)
ACTS = {"+": succeeded, "-": failed, ">": sent, "h": heard}


def play(script, h=None, now_ms=0.0):
    """`+` success, `-` failure, `>` sent, `h` heard, a number: so many ms pass (the node is heard all along)."""
    h = heard(Health(), now_ms) if h is None else h
    for word in script.split():
        if word.isdigit():
            now_ms += float(word)
            h = heard(h, now_ms)
            continue
        for act in word:
            h = ACTS[act](h, now_ms)
    return h, now_ms


def stands(h, now_ms, draining=False):
    return standing(h, now_ms, LIMITS, draining=draining)


DIALOGUES = [
    ("just heard of: good", "", Breaker.CLOSED, Standing.GOOD),
    ("two failures in a row are bad luck", "--", Breaker.CLOSED, Standing.GOOD),
    ("three in a row open it", "---", Breaker.OPEN, Standing.OUT),
    ("a success between starts the count again", "--+--", Breaker.CLOSED, Standing.GOOD),
    ("half of the last twenty open it", "-+-+-+-+-+-+-+-+-+" + "+-", Breaker.OPEN, Standing.OUT),
    ("half of fewer than twenty do not", "-+-+-+-+-+-+-+-+-", Breaker.CLOSED, Standing.GOOD),
    ("failures older than twenty outcomes are forgotten", "-+-+-+-+" + "+" * 20 + "-+-+-+-+", Breaker.CLOSED, Standing.GOOD),
    ("it stays open for a second", "--- 999", Breaker.OPEN, Standing.OUT),
    ("then one request may try", "--- 1000", Breaker.READY, Standing.SUSPECT),
    ("while it tries, no other may", "--- 1000 >", Breaker.PROBING, Standing.OUT),
    ("its success closes; suspect while starting slowly", "--- 1000 >+", Breaker.CLOSED, Standing.SUSPECT),
    ("ten seconds later it is good", "--- 1000 >+ 10000", Breaker.CLOSED, Standing.GOOD),
    ("its failure opens again", "--- 1000 >-", Breaker.OPEN, Standing.OUT),
    ("for twice as long", "--- 1000 >- 1999", Breaker.OPEN, Standing.OUT),
    ("and not longer", "--- 1000 >- 2000", Breaker.READY, Standing.SUSPECT),
    ("a try without an outcome: another may after five seconds", "--- 1000 > 5000", Breaker.READY, Standing.SUSPECT),
    ("a try that takes less is awaited", "--- 1000 > 4999", Breaker.PROBING, Standing.OUT),
    ("successes of before do not close it", "--- +++", Breaker.OPEN, Standing.OUT),
    ("failures of before do not prolong it", "--- 900 --- 100", Breaker.READY, Standing.SUSPECT),
    ("one failure while starting slowly opens again", "--- 1000 >+ 9999 -", Breaker.OPEN, Standing.OUT),
    ("longer than before", "--- 1000 >+ 9999 - 1999", Breaker.OPEN, Standing.OUT),
    ("one failure after that does not", "--- 1000 >+ 10000 -", Breaker.CLOSED, Standing.GOOD),
    ("a success after that makes the next opening short again", "--- 1000 >+ 10000 + --- 1000", Breaker.READY, Standing.SUSPECT),
    ("however many came before", "--- 1000 >+" + "+" * 20 + " 10000 + --- 1000", Breaker.READY, Standing.SUSPECT),
    ("an outcome counts as the try's even if nobody told that it was sent", "--- 1000 +", Breaker.CLOSED, Standing.SUSPECT),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "script", "breaker", "expected"), DIALOGUES)
def test_breaker(sentence, script, breaker, expected):
    h, now_ms = play(script)
    assert (at(h, now_ms), stands(h, now_ms)) == (breaker, expected)


@pytest.mark.parametrize(
    ("sentence", "silent_ms", "draining", "expected"),
    [
        ("fresh", 0.0, False, Standing.GOOD),
        ("a missed heartbeat or two", 1499.0, False, Standing.GOOD),
        ("silent: suspect", 1500.0, False, Standing.SUSPECT),
        ("silent for too long: out", 3000.0, False, Standing.OUT),
        ("it drains: it says so itself", 0.0, True, Standing.DRAINING),
        ("it drains and is silent: takes nothing new", 1500.0, True, Standing.DRAINING),
        ("drained and gone: out", 3000.0, True, Standing.OUT),
    ],
)
def test_silence(sentence, silent_ms, draining, expected):
    assert stands(heard(Health(), 100.0), 100.0 + silent_ms, draining) is expected


def test_never_heard_of_is_out_and_has_nothing_to_be_forgotten():
    assert stands(Health(), 0.0) is Standing.OUT
    assert not forgotten(Health(), 1e12, LIMITS)


def test_forgotten_after_half_a_minute_of_silence():
    h = heard(Health(), 100.0)
    assert not forgotten(h, 30_099.0, LIMITS)
    assert forgotten(h, 30_100.0, LIMITS)


def test_old_news_do_not_make_it_older():
    assert heard(heard(Health(), 100.0), 50.0).heard_ms == 100.0


def test_a_restarted_process_may_be_tried_at_once_and_starts_slowly():
    h, now_ms = play("--- 10")
    h = heard(h, now_ms, new_boot=True)
    assert stands(h, now_ms) is Standing.SUSPECT
    assert stands(succeeded(h, now_ms), now_ms) is Standing.SUSPECT
    assert stands(failed(h, now_ms), now_ms + OPEN_MIN_MS) is Standing.OUT, "and its failure is not its first"


@pytest.mark.parametrize(
    ("sentence", "ready_for_ms", "tried", "breaker", "expected"),
    [
        ("nobody has tried it yet", 9_999.0, False, Breaker.READY, Standing.SUSPECT),
        (
            "nobody has tried it for ten seconds, and it speaks",
            10_000.0,
            False,
            Breaker.CLOSED,
            Standing.SUSPECT,
        ),
        ("somebody is trying it now", 10_000.0, True, Breaker.PROBING, Standing.OUT),
    ],
)
def test_who_speaks_and_is_not_tried_is_on_probation_in_the_end(
    sentence, ready_for_ms, tried, breaker, expected
):
    h, now_ms = play("---")
    now_ms += OPEN_MIN_MS + ready_for_ms
    if tried:
        h = sent(h, now_ms)
    h = heard(h, now_ms)
    assert (at(h, now_ms), stands(h, now_ms)) == (breaker, expected), sentence
    if breaker is Breaker.CLOSED:
        good = heard(h, now_ms + 10_000.0)
        assert stands(good, now_ms + 10_000.0) is Standing.GOOD
        again = failed(h, now_ms)
        assert (again.breaker, again.open_for_ms) == (Breaker.OPEN, 2 * OPEN_MIN_MS)


def test_failures_of_the_process_before_do_not_count():
    h = heard(play("--")[0], 0.0, new_boot=True)
    assert failed(h, 0.0).breaker is Breaker.CLOSED


def test_openings_double_up_to_half_a_minute():
    h, now_ms = play("---")
    lengths = [h.open_for_ms]
    for _ in range(6):
        now_ms = h.open_until_ms
        h = failed(sent(h, now_ms), now_ms)
        lengths.append(h.open_for_ms)
    assert lengths == [1000, 2000, 4000, 8000, 16_000, OPEN_MAX_MS, OPEN_MAX_MS]


@pytest.mark.parametrize("reason", list(Reason))
def test_only_what_the_node_did_wrong_is_blamed_on_it(reason):
    expected = reason in {Reason.LINK_LOST, Reason.PROTOCOL, Reason.INTERNAL, Reason.INFER_FAILED}
    assert blamed(reason) is expected


def test_the_table_is_whole():
    assert set(TRANSITIONS) == set(itertools.product(Breaker, Event))
    for state in Breaker:
        reachable = {state}
        for _ in Breaker:
            reachable |= {to for (of, _), to in TRANSITIONS.items() if of in reachable}
        assert Breaker.CLOSED in reachable, f"{state} can never be left for good"


scripts = st.lists(st.tuples(st.sampled_from("+->h"), st.integers(0, 40_000)), max_size=60)


@given(scripts)
def test_whatever_happens_it_may_be_tried_again_soon_and_one_success_closes(script):
    h, now_ms = heard(Health(), 0.0), 0.0
    for act, after_ms in script:
        now_ms += after_ms
        h = ACTS[act](h, now_ms)
        assert h.open_until_ms <= now_ms + OPEN_MAX_MS
        assert h.seen <= WINDOW
        assert h.window < 1 << WINDOW
    now_ms += max(OPEN_MAX_MS, PROBE_MS)
    h = heard(h, now_ms)
    assert stands(h, now_ms) is not Standing.OUT
    h = succeeded(sent(h, now_ms), now_ms)
    assert at(h, now_ms) is Breaker.CLOSED
    now_ms += SLOW_START_MS
    assert stands(heard(h, now_ms), now_ms) is Standing.GOOD


@given(scripts)
def test_successes_alone_never_open_it(script):
    h, now_ms = Health(), 0.0
    for _, after_ms in script:
        now_ms += after_ms
        h = succeeded(sent(h, now_ms), now_ms)
    assert h.breaker is Breaker.CLOSED
