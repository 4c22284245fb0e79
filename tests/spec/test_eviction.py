"""Who leaves the device so that another fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.policy.eviction import Resident, plan


def resident(name, size, used_at=0.0, busy=False):
    return Resident(name, size, used_at, busy)


@pytest.mark.parametrize(
    ("sentence", "residents", "need", "budget", "expected"),
    [
        ("room is there", [resident("a", 40)], 50, 100, ()),
        ("an empty device", [], 100, 100, ()),
        ("larger than the device", [], 101, 100, None),
        ("the one not used for the longest leaves", [resident("a", 60, 2), resident("b", 40, 1)], 40, 100, ("b",)),
        ("as many as needed, no more", [resident("a", 30, 1), resident("b", 30, 2), resident("c", 40, 3)], 50, 100,
         ("a", "b")),
        ("one in use stays", [resident("a", 60, 1, busy=True), resident("b", 40, 2)], 40, 100, ("b",)),
        ("all in use: it does not fit now", [resident("a", 60, 1, busy=True)], 50, 100, None),
        ("over budget already", [resident("a", 120, 1)], 50, 100, ("a",)),
    ],
)  # fmt: skip
def test_plan(sentence, residents, need, budget, expected):
    assert plan(residents, need_bytes=need, budget_bytes=budget) == expected


residents = st.lists(
    st.builds(Resident, st.uuids().map(str), st.integers(1, 50), st.floats(0, 9), st.booleans()), max_size=8
)


@given(residents, st.integers(1, 120), st.integers(1, 120))
def test_after_the_plan_it_fits_and_nobody_in_use_left(held, need, budget):
    victims = plan(held, need_bytes=need, budget_bytes=budget)
    busy = {one.digest for one in held if one.busy}
    if victims is None:
        assert need > budget - sum(one.device_bytes for one in held if one.busy)
    else:
        assert not busy & set(victims)
        assert sum(one.device_bytes for one in held if one.digest not in victims) + need <= budget
