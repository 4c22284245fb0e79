"""Who leaves the device so that another fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.policy.eviction import Resident, plan

NOW_MS = 100_000.0


def resident(name, size, used_at=0.0, busy=False, **more):
    return Resident(name, size, used_at, busy, **more)


def wanted(name, size, per_s, reload_ms=100.0, **more):
    return Resident(name, size, 0.0, False, demand_per_s=per_s, reload_ms=reload_ms, **more)


@pytest.mark.parametrize(
    ("sentence", "residents", "need", "budget", "expected"),
    [
        ("room is there", [resident("a", 40)], 50, 100, ()),
        ("an empty device", [], 100, 100, ()),
        ("larger than the device", [], 101, 100, None),
        ("the one not used for the longest leaves", [resident("a", 60, 2), resident("b", 40, 1)], 40, 100, ("b",)),
        ("as many as needed, no more", [resident("a", 30, 1), resident("b", 30, 2), resident("c", 40, 3)], 50, 100,
         ("a", "b")),
        ("one that turns out not to be needed stays", [resident("a", 10, 1), resident("b", 60, 2)], 50, 70, ("b",)),
        ("not even when it then fits exactly", [resident("a", 10, 1), resident("b", 50, 2)], 50, 60, ("b",)),
        ("one in use stays", [resident("a", 60, 1, busy=True), resident("b", 40, 2)], 40, 100, ("b",)),
        ("all in use: it does not fit now", [resident("a", 60, 1, busy=True)], 50, 100, None),
        ("over budget already", [resident("a", 120, 1)], 50, 100, ("a",)),
        ("a pinned one stays", [resident("a", 60, 1, pinned=True), resident("b", 40, 2)], 40, 100, ("b",)),
        ("all pinned: it does not fit", [resident("a", 60, 1, pinned=True)], 50, 100, None),
        ("less in demand leaves first", [wanted("a", 50, 2.0), wanted("b", 50, 1.0)], 50, 100, ("b",)),
        ("sooner back leaves first", [wanted("a", 50, 1.0, 900.0), wanted("b", 50, 1.0, 100.0)], 50, 100, ("b",)),
        ("larger for the same use leaves first", [wanted("a", 40, 1.0), wanted("b", 60, 1.0)], 40, 100, ("b",)),
        ("nobody asks for it: first of all", [wanted("a", 50, 0.01), resident("b", 50, 9.0)], 50, 100, ("b",)),
        ("one that came a moment ago stays", [resident("a", 50, 1, resident_since_ms=NOW_MS - 29_999), resident("b", 50, 2)],
         50, 100, ("b",)),
        ("unless nothing else is left", [resident("a", 50, 1, resident_since_ms=NOW_MS - 29_999), resident("b", 50, 2, busy=True)],
         50, 100, ("a",)),
        ("half a minute is enough", [resident("a", 50, 1, resident_since_ms=NOW_MS - 30_000), resident("b", 50, 2)],
         50, 100, ("a",)),
    ],
)  # fmt: skip
def test_plan(sentence, residents, need, budget, expected):
    assert plan(residents, need_bytes=need, budget_bytes=budget, now_ms=NOW_MS) == expected


def test_without_the_time_nobody_is_new():
    young = resident("a", 50, 1, resident_since_ms=NOW_MS)
    assert plan([young, resident("b", 50, 2)], need_bytes=50, budget_bytes=100) == ("a",)


residents = st.lists(
    st.builds(
        Resident,
        st.uuids().map(str),
        st.integers(1, 50),
        st.floats(0, 9),
        st.booleans(),
        demand_per_s=st.floats(0, 100),
        reload_ms=st.floats(0, 10_000),
        pinned=st.booleans(),
        resident_since_ms=st.floats(0, NOW_MS),
    ),
    max_size=8,
)


@given(residents, st.integers(1, 120), st.integers(1, 120))
def test_after_the_plan_it_fits_and_nobody_left_who_may_not(held, need, budget):
    victims = plan(held, need_bytes=need, budget_bytes=budget, now_ms=NOW_MS)
    stay = {one.digest for one in held if one.busy or one.pinned}
    if victims is None:
        assert need > budget - sum(one.device_bytes for one in held if one.digest in stay)
        return
    assert not stay & set(victims)
    used = sum(one.device_bytes for one in held if one.digest not in victims)
    assert used + need <= budget
    assert all(used + need + one.device_bytes > budget for one in held if one.digest in victims), (
        "none in vain"
    )
