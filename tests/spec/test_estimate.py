"""The whole specification of edge/policy/estimate.py: lines are learned, forgotten, and never absurd."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.policy.estimate import (
    LEAST_BYTES,
    Guess,
    Seen,
    after,
    doubted_ms,
    error_ratio,
    estimate,
    expect_ms,
    guess_of,
    shared_bytes,
)
from edge.policy.facts import Rates, Tier
from edge.policy.score import FETCH_FIXED_MS, REGION_FIXED_MS

MIB = 1 << 20
GUESS = Guess(300.0, 20_000.0)


def seen(*observations: tuple[float, float]) -> Seen:
    """(MiB, ms), oldest first."""
    known = Seen()
    for mib, ms in observations:
        known = after(known, int(mib * MIB), ms)
    return known


def test_nothing_seen_is_the_guess():
    assert expect_ms(Seen(), 10 * MIB, GUESS) == pytest.approx(300.0 + 10 * MIB / 20_000.0, rel=0.02)


#: A source of 100 ms and 20 ms per MiB.
LINE = [(mib, 100.0 + 20.0 * mib) for mib in (5, 50, 10, 80, 20)]
CASES = [
    ("a line is found, also for sizes that were never seen", LINE, 100, 2_100.0, 0.03),
    ("and for small ones, where the fixed part is most of it", LINE, 1, 120.0, 0.2),
    ("one observation moves the guess near it", [(10, 1_000.0)], 10, 1_000.0, 0.05),
    ("only the newest count where a source changed", [*LINE * 3, *[(mib, 2 * ms) for mib, ms in LINE * 6]], 100, 4_200.0, 0.1),
    ("what was small and waited says little of many bytes", [(0.25, 2_000.0)] * 8, 90, 7_500.0, 0.35),
    ("noise that would be less than no time is a mere rate", [(10, 10.0), (20, 100.0)] * 5, 10, 25.0, 0.8),
    ("noise in which more takes less is a mere rate", [(10, 100.0), (20, 50.0)] * 5, 40, 130.0, 0.5),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "told", "mib", "ms", "rel"), CASES, ids=[row[0] for row in CASES])
def test_what_was_seen_is_expected_again(sentence, told, mib, ms, rel):
    assert expect_ms(seen(*told), mib * MIB, GUESS) == pytest.approx(ms, rel=rel), sentence


@pytest.mark.parametrize(
    ("sentence", "age_s", "expected_ms", "hoped_ms", "ms"),
    [
        ("what was seen last is believed", 9, 60_000.0, 4_000.0, 60_000.0),
        ("what exceeds the hope halves with time", 30, 60_000.0, 4_000.0, 7_500.0),
        ("down to the hope", 3_600, 60_000.0, 4_000.0, 4_000.0),
        ("what is better than hoped stays", 3_600, 1_000.0, 4_000.0, 1_000.0),
    ],
)
def test_who_was_slow_once_is_not_slow_for_ever(sentence, age_s, expected_ms, hoped_ms, ms):
    assert doubted_ms(expected_ms, hoped_ms, age_s * 1_000.0) == ms, sentence


@pytest.mark.parametrize(("moved", "ms"), [(LEAST_BYTES - 1, 10.0), (MIB, 0.0), (MIB, -1.0)])
def test_what_tells_nothing_teaches_nothing(moved, ms):
    assert after(Seen(), moved, ms) == Seen()


@given(
    st.lists(st.tuples(st.integers(LEAST_BYTES, 1 << 40), st.floats(0.01, 1e7)), max_size=30),
    st.integers(0, 1 << 40),
    st.floats(0.001, 1e6),
)
def test_it_is_never_less_than_no_time(observations, size_bytes, rate):
    known = Seen()
    for moved, ms in observations:
        known = after(known, moved, ms)
    assert 0.0 <= expect_ms(known, size_bytes, Guess(300.0, rate)) < float("inf")


@pytest.mark.parametrize(
    ("sentence", "own", "others", "expected"),
    [
        ("alone", 10, [], 10),
        ("another as large doubles it", 10, [10], 20),
        ("of a larger one only as much as this one has", 10, [1_000], 20),
        ("of a smaller one what it has left", 10, [4, 3], 17),
        ("one that is done and more costs nothing", 10, [0, -5], 10),
    ],
)
def test_a_path_is_shared_fairly(sentence, own, others, expected):
    assert shared_bytes(own, others) == expected, sentence


@pytest.mark.parametrize(
    ("sentence", "wait_ms", "seconds"),
    [
        ("a fetch, then the load", 0.0, {Tier.DISK: 0.05, Tier.REGION: 0.25, Tier.ORIGIN: 3.05}),
        ("a wait passes meanwhile", 1_000.0, {Tier.DISK: 1.05, Tier.REGION: 1.05, Tier.ORIGIN: 3.05}),
    ],
)
def test_each_source_has_its_seconds(sentence, wait_ms, seconds):
    fetches_ms = {Tier.DISK: 0.0, Tier.REGION: 200.0, Tier.ORIGIN: 3_000.0}
    assert estimate(fetches_ms, wait_ms=wait_ms, load_ms=50.0) == seconds, sentence


@pytest.mark.parametrize(
    ("source", "guess"),
    [
        (Tier.REGION, Guess(REGION_FIXED_MS, 3.0)),
        (Tier.FAR, Guess(FETCH_FIXED_MS, 4.0)),
        (Tier.ORIGIN, Guess(FETCH_FIXED_MS, 5.0)),
        (Tier.DISK, Guess(FETCH_FIXED_MS, 5.0)),
    ],
)
def test_each_source_has_its_guess_and_what_is_no_better_known_is_the_origin(source, guess):
    assert guess_of(source, Rates(region=3.0, far=4.0, origin=5.0)) == guess


@pytest.mark.parametrize(
    ("expected", "took", "ratio"), [(80.0, 100.0, 0.2), (120.0, 100.0, 0.2), (5.0, 0.0, 5_000.0)]
)
def test_an_error_is_a_ratio_of_the_truth(expected, took, ratio):
    assert error_ratio(expected, took) == pytest.approx(ratio)
