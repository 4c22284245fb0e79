"""How many ranges, whose turn, which chunk twice, whom to wait for: all of `edge.policy.fetch_plan`."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.policy.fetch_plan import (
    AGAIN_MS,
    AGED_MS,
    DRIP_MS,
    LEAST_PATIENCE_MS,
    MISSES,
    MOST,
    PROGRESS_MS,
    REST,
    SEATS,
    STALL_MS,
    START,
    TALK_MS,
    Copy,
    Growing,
    Seat,
    Width,
    after_window,
    is_late,
    left_ms,
    may_take,
    worth_twice,
)

MIB = 1 << 20


# --- how many lanes


@pytest.mark.parametrize(
    ("sentence", "before", "rate", "full", "after"),
    [
        ("at first more are tried, by half", Width(), 100.0, True, Width(6, 4, 100.0, True, True)),
        (
            "the window after a change is not believed",
            Width(6, 4, 100.0, True, True),
            999.0,
            True,
            Width(6, 4, 100.0, True, False),
        ),
        (
            "half of what they could bring is a gain",
            Width(6, 4, 100.0),
            125.0,
            True,
            Width(9, 6, 125.0, True, True),
        ),
        (
            "less is none: they are given back, and it rests",
            Width(6, 4, 100.0),
            124.0,
            True,
            Width(4, 4, 100.0, False, True, REST),
        ),
        ("no step leads beyond the most", Width(13, 9, 100.0), 200.0, True, Width(16, 13, 200.0, True, True)),
        ("at the most it rests", Width(16, 13, 100.0), 200.0, True, Width(16, 16, 200.0, False, False, REST)),
        (
            "after the first failure steps are of one",
            Width(4, 4, 100.0, False),
            110.0,
            True,
            Width(5, 4, 110.0, False, True),
        ),
        (
            "with a lane free nothing is learned, nor in the window after it",
            Width(6, 4, 100.0),
            999.0,
            False,
            Width(6, 4, 100.0, True, True),
        ),
        ("a rest ends", Width(4, 4, 100.0, False, False, 2), 90.0, True, Width(4, 4, 100.0, False, False, 1)),
        (
            "when less than half still comes, what was added is halved",
            Width(12, 12, 100.0, False, False, 2),
            49.0,
            True,
            Width(6, 4, 0.0, False, True, REST),
        ),
        (
            "but never below the start",
            Width(5, 5, 100.0, False, False, 2),
            49.0,
            True,
            Width(4, 4, 0.0, False, True, REST),
        ),
        (
            "where it has not been added to, a slow link is a slow link",
            Width(4, 4, 100.0, False, False, 2),
            1.0,
            True,
            Width(4, 4, 100.0, False, False, 1),
        ),
    ],
)
def test_width(sentence: str, before: Width, rate: float, full: bool, after: Width) -> None:
    assert after_window(before, rate, full=full) == after, sentence


def settled(rate: Callable[[int], float], windows: int, most: int = MOST) -> list[int]:
    """Widths over time where so many lanes bring so much."""
    width, seen = Width(), []
    for _ in range(windows):
        width = after_window(width, rate(width.lanes), full=True, most=most)
        seen.append(width.lanes)
    return seen


@pytest.mark.parametrize(
    ("sentence", "rate", "least", "most"),
    [
        ("each lane brings as much: all of them, soon", lambda lanes: 10.0 * lanes, MOST, MOST),
        ("the link is full with one: hardly more than at the start", lambda lanes: 100.0, START, START + 1),
        ("the link is full with nine: about so many", lambda lanes: min(10.0 * lanes, 90.0), 8, 12),
        ("more lanes hurt: not one too many for long", lambda lanes: 100.0 / lanes, START, START + 1),
    ],
)
def test_the_width_finds_what_the_links_give(
    sentence: str, rate: Callable[[int], float], least: int, most: int
) -> None:
    for lanes in settled(rate, 60)[20:]:
        assert least <= lanes <= most, sentence


@given(
    rates=st.lists(st.floats(0, 1e9), max_size=80),
    full=st.lists(st.booleans(), max_size=80),
    most=st.integers(1, 64),
)
def test_the_width_stays_within_its_bounds(rates: list[float], full: list[bool], most: int) -> None:
    width = Width()
    for rate, was_full in zip(rates, full, strict=False):
        width = after_window(width, rate, full=was_full, most=most)
        assert START <= width.lanes <= max(START, most)
        assert START <= width.base <= width.lanes


# --- which fetch


BIG, SMALL = 8_000 * MIB, 50 * MIB


@pytest.mark.parametrize(
    ("sentence", "me", "others", "width", "mine"),
    [
        ("alone, as many as there are", Seat(BIG, 3), [], 4, True),
        ("and no more", Seat(BIG, 4), [], 4, False),
        ("every fetch has one, however full it is", Seat(BIG, 0), [Seat(SMALL, 4, True)], 4, True),
        ("but of many fetches only a few at a time", Seat(BIG, 0), [Seat(BIG, 1)] * SEATS, 4, False),
        ("as long as lanes are scarce", Seat(BIG, 0), [Seat(MIB, 1)] * SEATS, 16, True),
        ("so they are where smaller ones want them", Seat(BIG, 0), [Seat(MIB, 3, True)] * SEATS, 16, False),
        (
            "who has aged gets one beside smaller ones",
            Seat(BIG, 0, True, AGED_MS),
            [Seat(MIB, 1, True)] * SEATS,
            4,
            True,
        ),
        ("not a moment before", Seat(BIG, 0, True, AGED_MS - 1), [Seat(MIB, 1, True)] * SEATS, 4, False),
        (
            "of the aged only a few at a time",
            Seat(BIG, 0, True, AGED_MS),
            [Seat(BIG, 1, True, AGED_MS)] * SEATS,
            4,
            False,
        ),
        (
            "the oldest first",
            Seat(BIG, 0, True, AGED_MS),
            [*[Seat(BIG, 1, True, AGED_MS)] * (SEATS - 1), Seat(2 * BIG, 0, True, AGED_MS + 1)],
            4,
            False,
        ),
        (
            "who has aged takes no seat from those that lack least",
            Seat(SMALL, 0, True),
            [*[Seat(BIG, 1, True, AGED_MS)] * SEATS, Seat(MIB, 1)],
            4,
            True,
        ),
        (
            "a free lane is kept for who has aged",
            Seat(SMALL, 3),
            [Seat(BIG, 0, True, AGED_MS)],
            4,
            False,
        ),
        ("a smaller one than all of them besides", Seat(SMALL, 0), [Seat(BIG, 1)] * SEATS, 4, True),
        (
            "a place that is free goes to the smallest that wait",
            Seat(BIG, 0),
            [Seat(BIG, 1), *[Seat(SMALL, 0, True)] * (SEATS - 1)],
            16,
            False,
        ),
        ("the smaller one waits, so the larger gets no more", Seat(BIG, 1), [Seat(SMALL, 2, True)], 4, False),
        ("the smaller one has all it can use", Seat(BIG, 1), [Seat(SMALL, 2)], 4, True),
        ("a larger one that waits is no hindrance", Seat(SMALL, 2), [Seat(BIG, 1, True)], 4, True),
        ("beyond the width while a larger one holds lanes", Seat(SMALL, 2), [Seat(BIG, 4, True)], 4, True),
        ("but not more than a whole width", Seat(SMALL, 4), [Seat(BIG, 4, True)], 4, False),
        (
            "not beyond it if the larger one is down to its one",
            Seat(SMALL, 3),
            [Seat(BIG, 1, True)],
            4,
            False,
        ),
        (
            "nor if the smallest is another that waits",
            Seat(SMALL, 1),
            [Seat(BIG, 4), Seat(MIB, 1, True)],
            4,
            False,
        ),
        ("of two equals the one that asks", Seat(BIG, 1), [Seat(BIG, 1, True)], 4, True),
        ("equals do not go beyond the width for one another", Seat(BIG, 1), [Seat(BIG, 4, True)], 4, False),
    ],
)
def test_turn(sentence: str, me: Seat, others: list[Seat], width: int, mine: bool) -> None:
    assert may_take(me, others, width) is mine, sentence


@given(
    lefts=st.lists(st.integers(1, 1 << 34), min_size=1, max_size=8),
    width=st.integers(1, 16),
    asks=st.lists(st.integers(0, 7), max_size=100),
)
def test_lanes_are_bounded_and_nobody_starves(lefts: list[int], width: int, asks: list[int]) -> None:
    seats = [Seat(left, 0, True) for left in lefts]
    for ask in [*asks, *range(len(seats))]:
        if ask < len(seats) and may_take(seats[ask], seats[:ask] + seats[ask + 1 :], width):
            seats[ask] = seats[ask]._replace(running=seats[ask].running + 1)
    assert sum(seat.running for seat in seats) <= 2 * width + SEATS + 1
    assert sum(seat.running > 0 for seat in seats) >= min(SEATS, len(seats))
    while seats:
        # Those that have lanes end; of the others there is always one whose turn it is.
        seats = [seat for seat in seats if not seat.running]
        seats = [
            seat._replace(running=int(may_take(seat, seats[:at] + seats[at + 1 :], width)))
            for at, seat in enumerate(seats)
        ]
        assert not seats or any(seat.running for seat in seats)


# --- which chunk twice


def copy(**changed: float) -> Copy:
    """8 MiB at half way, on time."""
    return Copy(8 * MIB, 4 * MIB, 100.0, 1.0, 4 * MIB, 100.0, 200.0)._replace(**changed)  # type: ignore[arg-type] # numbers


TYPICAL = [8 * MIB / 200.0]
QUICK_MS = 4 * 200.0


@pytest.mark.parametrize(
    ("sentence", "seen", "rates", "nearer", "late"),
    [
        ("on time", copy(), TYPICAL, True, False),
        ("silent for two seconds", copy(silent_ms=STALL_MS), TYPICAL, False, True),
        (
            "silent for less, and only a farther one could help",
            copy(silent_ms=STALL_MS - 1),
            TYPICAL,
            False,
            False,
        ),
        (
            "silent for as long as some chunks take, and one as near could",
            copy(silent_ms=QUICK_MS),
            TYPICAL,
            True,
            True,
        ),
        ("silent for a moment", copy(silent_ms=QUICK_MS - 1), TYPICAL, True, False),
        (
            "a moment is never shorter than a hiccup of the machine",
            copy(silent_ms=LEAST_PATIENCE_MS - 1),
            [1e9],
            True,
            False,
        ),
        ("silent, and nothing was measured yet", copy(silent_ms=STALL_MS - 1), [], True, False),
        (
            "a quarter of the median over three seconds",
            copy(window_ms=DRIP_MS, window_bytes=0.25 * TYPICAL[0] * DRIP_MS - 1),
            TYPICAL,
            False,
            True,
        ),
        (
            "just more than that",
            copy(window_ms=DRIP_MS, window_bytes=0.25 * TYPICAL[0] * DRIP_MS + 1),
            TYPICAL,
            False,
            False,
        ),
        ("not yet for three seconds", copy(window_ms=DRIP_MS - 1, window_bytes=1), TYPICAL, False, False),
        (
            "long enough if one as near could help",
            copy(window_ms=QUICK_MS, window_bytes=1),
            TYPICAL,
            True,
            True,
        ),
        (
            "the median counts, not the best",
            copy(window_ms=DRIP_MS, window_bytes=100 * DRIP_MS),
            [90.0, 100.0, 1e9],
            False,
            False,
        ),
        ("less than the least at all", copy(window_ms=DRIP_MS, window_bytes=64 * DRIP_MS), [], False, True),
    ],
)
def test_late(sentence: str, seen: Copy, rates: list[float], nearer: bool, late: bool) -> None:
    assert is_late(seen, rates, 65.0, nearer=nearer) is late, sentence


@pytest.mark.parametrize(
    ("sentence", "seen", "left"),
    [
        ("on time: what was believed", copy(), 100.0),
        ("a little over it: any moment now", copy(age_ms=250.0), 0.0),
        ("overdue: at the rate seen", copy(age_ms=400.0), 400.0),
        ("overdue and nothing came", copy(age_ms=400.0, got_bytes=0), math.inf),
    ],
)
def test_what_is_left(sentence: str, seen: Copy, left: float) -> None:
    assert left_ms(seen) == left, sentence
    assert worth_twice(seen, left - 1.0) or left in (0.0, math.inf)
    assert not worth_twice(seen, left)


# --- whom to wait for


def test_a_source_that_grows_is_asked_again_in_turn_and_not_without_end() -> None:
    growing = Growing(progress_ms=1_000.0)
    for index in range(MISSES):
        assert growing.ask_at_ms(index) == 0.0, "at once"
        growing.refused(index, 1_000.0)
    assert growing.ask_at_ms(MISSES) == 1_000.0 + AGAIN_MS, "it is asked for nothing else meanwhile"
    growing.refused(7, 2_000.0)
    assert (growing.ask_at_ms(7), growing.ask_at_ms(8)) == (2_000.0 + AGAIN_MS, 1_000.0 + AGAIN_MS)
    growing.gave(7, 2_001.0)
    assert growing.ask_at_ms(7) <= 2_001.0


@pytest.mark.parametrize(
    ("sentence", "act", "at_ms", "reserves"),
    [
        ("at first it is given time", lambda growing: None, PROGRESS_MS - 1, True),
        ("then it is not waited for", lambda growing: None, PROGRESS_MS, False),
        ("refusals are no progress", lambda growing: growing.refused(1, 1_500.0), PROGRESS_MS, False),
        ("a chunk is", lambda growing: growing.gave(1, 1_500.0), 1_500.0 + PROGRESS_MS - 1, True),
        (
            "so are bytes that it tells of",
            lambda growing: growing.grew(1_500.0),
            1_500.0 + PROGRESS_MS - 1,
            True,
        ),
    ],
)
def test_a_source_that_gets_on_is_waited_for(
    sentence: str, act: Callable[[Growing], None], at_ms: float, reserves: bool
) -> None:
    growing = Growing(progress_ms=0.0)
    act(growing)
    assert growing.reserves(at_ms) is reserves, sentence


@pytest.mark.parametrize(
    ("sentence", "right_ms", "until_ms"),
    [
        ("one that only talks is waited for so long in all", None, TALK_MS),
        ("a right chunk gives it as long again", 40_000.0, 40_000.0 + TALK_MS),
    ],
)
def test_talk_alone_holds_nobody_back_without_end(
    sentence: str, right_ms: float | None, until_ms: float
) -> None:
    growing = Growing(progress_ms=0.0)
    if right_ms is not None:
        growing.gave(3, right_ms)
    for at_ms, reserves in ((until_ms - 1.0, True), (until_ms, False)):
        growing.grew(at_ms)
        assert growing.reserves(at_ms) is reserves, sentence
