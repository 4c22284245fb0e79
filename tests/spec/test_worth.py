"""What a file is worth on a disk: how often it is wanted, aged, times what fetching it again costs."""

import math

import pytest

from edge.policy.worth import (
    HALF_LIFE_PER_MODEL,
    HALF_LIFE_USES,
    SPARED_MS,
    Fresh,
    Uses,
    loss_per_byte_gained,
    refetch_s,
    worth,
)


def uses(*models, **more):
    made = Uses(**more)
    for model in models:
        made.used(model)
    return made


@pytest.mark.parametrize(
    ("sentence", "less", "more"),
    [
        ("wanted more often", (10, 1.0, 5.0), (10, 2.0, 5.0)),
        ("dearer to have again", (10, 1.0, 5.0), (10, 1.0, 6.0)),
        ("smaller for the same", (10, 1.0, 5.0), (9, 1.0, 5.0)),
        ("wanted at all", (1, 0.0, 60.0), (10**10, 0.001, 0.1)),
        ("a byte of an empty file is no division by zero", (0, 0.0, 1.0), (0, 1.0, 1.0)),
    ],
)
def test_worth(sentence, less, more):
    assert worth(*less).per_byte < worth(*more).per_byte, sentence


@pytest.mark.parametrize(
    ("sentence", "less", "more"),
    [
        ("as large as what is lacking: no byte lies idle", (1.0, 8, 8), (1.01, 8, 8)),
        ("smaller: all of it is used", (1.0, 8, 9), (1.0, 16, 9)),
        ("twice as large as needed: the rest is half a gain", (1.3, 8, 8), (1.0, 16, 8)),
        ("but no less than half", (1.0, 16, 8), (1.4, 8, 8)),
        ("never twice its worth, however much lies idle", (1.0, 10**12, 1), (2.0, 8, 8)),
        ("nothing in particular is lacking: it is its worth", (1.0, 10**12, math.inf), (1.01, 8, math.inf)),
        ("what is wanted by nobody costs nothing, of any size", (0.0, 10**12, 1), (1e-9, 1, 1)),
        ("an empty file is no division by zero", (0.0, 0, 0), (1.0, 1, 1)),
    ],
)
def test_bytes_beyond_those_needed_are_half_a_gain(sentence, less, more):
    assert loss_per_byte_gained(*less) < loss_per_byte_gained(*more), sentence


def test_it_comes_again_after_a_wait_and_at_a_rate():
    assert refetch_s(5_000_000, 1_000.0, 300.0) == pytest.approx(5.3)


def test_a_stranger_was_never_used():
    assert Uses().frequency("m") == 0.0


def test_uses_add_up_and_lose_half_after_so_many_of_others():
    made = uses("m", "m")
    made.find_room(0)
    assert 1.9 < made.frequency("m") <= 2.0
    before = made.frequency("m")
    for _ in range(int(HALF_LIFE_USES)):
        made.used("other")
    assert made.frequency("m") == pytest.approx(before / 2)


def test_where_more_models_find_room_uses_are_remembered_longer():
    small, large = uses("m", "other"), uses("m", "other")
    small.find_room(1)
    large.find_room(300)
    for n in range(500):
        small.used(f"{n}")
        large.used(f"{n}")
    assert small.frequency("m") == pytest.approx(0.5 ** (501 / (HALF_LIFE_USES + HALF_LIFE_PER_MODEL)))
    assert large.frequency("m") == pytest.approx(0.5 ** (501 / (HALF_LIFE_USES + 300 * HALF_LIFE_PER_MODEL)))


def test_until_something_had_to_go_all_that_are_remembered_found_room():
    made = uses("m", *(f"{n}" for n in range(300)))
    assert made.frequency("m") == pytest.approx(0.5 ** (300 / (HALF_LIFE_USES + 301 * HALF_LIFE_PER_MODEL)))


def test_only_so_many_are_remembered_and_the_one_used_longest_ago_is_forgotten():
    made = uses("a", "b", "a", "c", max_models=2)
    assert [model for model, _ in made.dump()] == ["a", "c"]
    assert made.frequency("b") == 0.0


def test_a_later_life_goes_on_where_this_one_stopped():
    made = uses("a", "b", "b")
    again = Uses(max_models=2)
    again.load([("older", 5.0), *made.dump()])
    assert again.dump() == [(model, pytest.approx(times)) for model, times in made.dump()]
    again.used("a")
    assert [model for model, _ in again.dump()] == ["b", "a"]


def test_what_is_new_in_the_catalogue_is_spared_for_an_hour():
    fresh = Fresh()
    fresh.published(["old"], 0.0)
    assert fresh(0.0) == frozenset()
    fresh.published(["old", "new"], 1_000.0)
    fresh.published(["old", "new"], 2_000.0)
    assert fresh(1_000.0 + SPARED_MS - 1.0) == {"new"}
    assert fresh(1_000.0 + SPARED_MS) == frozenset()
    fresh.published(["old"], 3_000.0)
    assert fresh(3_000.0) == frozenset(), "withdrawn again"
