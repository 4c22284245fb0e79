"""From whom the next bytes should come: the whole specification of `edge.weights.sources`."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.weights.sources import (
    EWMA,
    MAX_PENALTY_MS,
    MAX_SITES,
    MEASURED_BYTES,
    ORIGIN,
    PENALTY_MS,
    PRIOR,
    Kind,
    Moved,
    Site,
    Speed,
    Speeds,
    after_delivery,
    after_failure,
    expected_ms,
)

MIB = 1 << 20
NEAR, OTHER = Site(Kind.REGION, "fra-a"), Site(Kind.REGION, "ams-a")
FAR, FARTHER = Site(Kind.FAR, "iad-a", 90.0), Site(Kind.FAR, "nrt-a", 240.0)
ALL = (ORIGIN, FARTHER, FAR, OTHER, NEAR)
NOW = 1_000_000.0


def measured(*known: tuple[Site, float]) -> Speeds:
    """Sites that delivered 8 MiB at so many bytes per ms."""
    speeds = Speeds()
    for site, rate in known:
        speeds.delivered(site, 8 * MIB, 8 * MIB / rate)
    return speeds


def failing(speeds: Speeds, site: Site, *, wrong_bytes: bool = False) -> Speeds:
    speeds.failed(site, NOW - 10, wrong_bytes=wrong_bytes)
    return speeds


@pytest.mark.parametrize(
    ("sentence", "speeds", "busy", "order"),
    [
        (
            "nobody was measured: region, then far by distance, then the origin",
            Speeds(),
            {},
            (OTHER, NEAR, FAR, FARTHER, ORIGIN),
        ),
        (
            "the region comes first even when the origin is faster",
            measured((NEAR, 10_000), (OTHER, 20_000), (ORIGIN, 900_000)),
            {},
            (OTHER, NEAR, ORIGIN, FAR, FARTHER),
        ),
        (
            "of two in the region the faster one",
            measured((NEAR, 90_000), (OTHER, 40_000)),
            {},
            (NEAR, OTHER, FAR, FARTHER, ORIGIN),
        ),
        (
            "unless it is busy: two chunks there take longer than one here",
            measured((NEAR, 90_000), (OTHER, 50_000)),
            {NEAR: [NOW]},
            (OTHER, NEAR, FAR, FARTHER, ORIGIN),
        ),
        (
            "far and origin compete by what was measured",
            measured((FAR, 5_000), (FARTHER, 8_000), (ORIGIN, 6_000)),
            {},
            (OTHER, NEAR, FARTHER, ORIGIN, FAR),
        ),
        (
            "who was never tried is tried before one that is known to be slow",
            measured((FAR, 5_000), (FARTHER, 5_001)),
            {},
            (OTHER, NEAR, ORIGIN, FARTHER, FAR),
        ),
        (
            "one who is tried for the first time is not given more before that ended",
            measured((OTHER, 1.0)),
            {NEAR: [NOW]},
            (OTHER, NEAR, FAR, FARTHER, ORIGIN),
        ),
        (
            "two who are both tried for the first time share",
            Speeds(),
            {NEAR: [NOW], OTHER: [NOW, NOW]},
            (NEAR, OTHER, FAR, FARTHER, ORIGIN),
        ),
        (
            "what has been under way for long tells more than what was measured",
            measured((NEAR, 90_000), (OTHER, 80_000)),
            {NEAR: [NOW - 10_000], OTHER: [NOW, NOW, NOW]},
            (OTHER, NEAR, FAR, FARTHER, ORIGIN),
        ),
        (
            "who failed is asked last, also when it is of the region",
            failing(Speeds(), NEAR),
            {},
            (OTHER, FAR, FARTHER, ORIGIN, NEAR),
        ),
        (
            "of those who failed the one that is forgiven first",
            failing(failing(Speeds(), OTHER), NEAR, wrong_bytes=True),
            {},
            (FAR, FARTHER, ORIGIN, OTHER, NEAR),
        ),
    ],
)
def test_order(sentence: str, speeds: Speeds, busy: dict[Site, list[float]], order: tuple[Site, ...]) -> None:
    assert speeds.ranked(ALL, 8 * MIB, busy, NOW) == order, sentence


@pytest.mark.parametrize(
    ("sentence", "before", "moved_bytes", "took_ms", "after"),
    [
        ("the first measurement is believed", Speed(), MIB, 10.0, Speed(MIB / 10)),
        ("later ones move the mean", Speed(1000.0), MIB, MIB / 2000.0, Speed(1000.0 + EWMA * 1000.0)),
        ("a small piece says nothing of the rate", Speed(1000.0), MEASURED_BYTES - 1, 1.0, Speed(1000.0)),
        ("a delivery forgives all failures", Speed(0.0, 5, NOW), 1, 1.0, Speed()),
        ("no time at all is no division by zero", Speed(), MIB, 0.0, Speed(MIB / 0.001)),
    ],
)
def test_after_a_delivery(
    sentence: str, before: Speed, moved_bytes: int, took_ms: float, after: Speed
) -> None:
    assert after_delivery(before, moved_bytes, took_ms) == pytest.approx(after), sentence


def test_the_penalty_doubles_up_to_its_bound_and_keeps_the_rate() -> None:
    speed, penalties = Speed(123.0), []
    for _ in range(100):
        speed = after_failure(speed, NOW)
        penalties.append(speed.shunned_until_ms - NOW)
    assert penalties[:3] == [PENALTY_MS, 2 * PENALTY_MS, 4 * PENALTY_MS]
    assert penalties[-1] == MAX_PENALTY_MS
    assert speed.bytes_per_ms == 123.0
    assert after_failure(Speed(), NOW, weight=4).shunned_until_ms == NOW + 8 * PENALTY_MS


def test_a_distance_counts_until_the_site_was_measured() -> None:
    assert expected_ms(FAR, Speed(), MIB) == 90.0 + MIB / PRIOR[Kind.FAR]
    assert expected_ms(FAR, Speed(2_000.0), MIB) == MIB / 2_000.0


def test_the_rate_of_a_class_is_that_of_fetches_that_came_from_it() -> None:
    speeds = Speeds()
    assert speeds.rate(Kind.REGION, 0.0) == 0.0
    speeds.fetched(Moved({Kind.REGION: 95 * MIB, Kind.FAR: 0, Kind.ORIGIN: 5 * MIB}), 950.0, 0.0)
    assert speeds.rate(Kind.REGION, 0.0) == 95 * MIB / 950.0
    speeds.fetched(Moved({Kind.REGION: 5 * MIB, Kind.FAR: 5 * MIB, Kind.ORIGIN: 0}), 10.0, 0.0)
    assert (speeds.rate(Kind.FAR, 0.0), speeds.rate(Kind.ORIGIN, 0.0)) == (0.0, 0.0)
    speeds.fetched(Moved({Kind.REGION: 0, Kind.FAR: 0, Kind.ORIGIN: MIB}), 2_000.0, 0.0)
    assert speeds.rate(Kind.ORIGIN, 0.0) == 0.0, "of a small one, most is waiting"
    speeds.fetched(Moved(), 10.0, 0.0)
    assert speeds.rate(Kind.ORIGIN, 0.0) == 0.0


def test_who_was_overtaken_is_measured_and_not_forgiven() -> None:
    speeds = failing(measured((NEAR, 1_000.0)), NEAR)
    shunned = speeds.of(NEAR).shunned_until_ms
    speeds.lost(NEAR, MIB, MIB / 100.0)
    assert speeds.of(NEAR) == Speed(pytest.approx(1_000.0 - EWMA * 900.0), 1, shunned)  # type: ignore[arg-type] # a float, nearly
    speeds.lost(OTHER, MEASURED_BYTES - 1, 1.0)
    assert speeds.of(OTHER) == Speed()


@pytest.mark.parametrize(
    ("sentence", "by", "total", "outside", "farthest"),
    [
        ("nothing moved", {}, 0, 0, None),
        ("within the region", {Kind.REGION: 5}, 5, 0, Kind.REGION),
        ("mostly within, one piece from afar", {Kind.REGION: 5, Kind.FAR: 1}, 6, 1, Kind.FAR),
        ("from everywhere", {Kind.REGION: 5, Kind.FAR: 1, Kind.ORIGIN: 2}, 8, 3, Kind.ORIGIN),
    ],
)
def test_what_moved(
    sentence: str, by: dict[Kind, int], total: int, outside: int, farthest: Kind | None
) -> None:
    moved = Moved().plus(Moved({kind: by.get(kind, 0) for kind in Kind}))
    assert (moved.total_bytes, moved.outside_bytes, moved.farthest) == (total, outside, farthest), sentence
    assert moved.plus(moved).since(moved) == moved


def test_names_are_remembered_up_to_a_bound() -> None:
    speeds = measured((NEAR, 5_000.0))
    for number in range(MAX_SITES):
        speeds.delivered(Site(Kind.FAR, f"n{number}"), MIB, 1.0)
    assert speeds.of(NEAR) == Speed()
    assert speeds.of(Site(Kind.FAR, "n0")) != Speed()


sites = st.builds(
    Site, st.sampled_from([Kind.REGION, Kind.FAR]), st.sampled_from("abcdef"), st.floats(0, 1000)
)
deeds = st.lists(
    st.tuples(sites, st.sampled_from(["good", "bad", "wrong"]), st.integers(0, 1 << 40), st.floats(0, 1e9))
)


@given(deeds=deeds, asked=st.sets(sites), wanted=st.integers(1, 1 << 40), now_ms=st.floats(0, 1e12))
def test_everybody_is_ranked_once_whatever_happened(
    deeds: list[tuple[Site, str, int, float]], asked: set[Site], wanted: int, now_ms: float
) -> None:
    speeds = Speeds()
    for site, deed, count, ms in deeds:
        if deed == "good":
            speeds.delivered(site, count, ms)
        else:
            speeds.failed(site, ms, wrong_bytes=deed == "wrong")
    order = speeds.ranked([*asked, ORIGIN], wanted, {}, now_ms)
    assert set(order) == asked | {ORIGIN}
    assert len(order) == len(asked) + 1
    for site in order:
        assert math.isfinite(expected_ms(site, speeds.of(site), wanted))


@pytest.mark.parametrize(
    ("what", "rates", "after_s", "believed"),
    [
        ("a measurement is believed as it is", [1000.0], 1, 1000.0),
        ("slower than the best, it is believed for ten seconds", [1000.0, 10.0], 9, 703.0),
        (
            "then it doubles with each ten seconds in which nobody tries",
            [100.0, 1.0, 1.0, 1.0],
            19,
            2 * 34.957,
        ),
        ("the best of three and more is all that is hoped for", [100.0, 100.0, 1.0], 300, 100.0),
        ("the only one known may have met a bad moment", [1000.0], 30, 8000.0),
        ("of fewer, what is believed of the unmeasured", [1000.0], 300, PRIOR[Kind.ORIGIN]),
        ("after ten minutes nothing is known", [1000.0], 600, 0.0),
    ],
)
def test_who_was_slow_once_is_not_slow_for_ever(
    what: str, rates: list[float], after_s: float, believed: float
) -> None:
    speeds = Speeds()
    for rate in rates:
        speeds.fetched(Moved({Kind.REGION: 0, Kind.FAR: 0, Kind.ORIGIN: 100 * MIB}), 100 * MIB / rate, 0.0)
    assert speeds.rate(Kind.ORIGIN, after_s * 1000.0) == pytest.approx(believed), what
