"""The whole specification of edge/worker/batch.py."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.worker.batch import ENOUGH, FORGET_AFTER, Cost, Group, Waiting


@dataclass
class Ask:
    name: str
    arrived_ms: float = 0.0
    due_ms: float = 1e9
    items: int = 1
    abandoned: bool = False


def learned(law: Callable[[int], float], sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)) -> Cost:
    """A cost that has seen `law` often enough at each size."""
    cost = Cost()
    for size in sizes:
        for _ in range(ENOUGH):
            cost.observe(size, law(size))
    return cost


def group(law: Callable[[int], float] = lambda b: 1.0 + 0.1 * b, max_batch: int = 64) -> Group:
    made = Group(max_batch)
    made.cost = learned(law)
    return made


def taken(waiting: Waiting[Ask], now_ms: float = 100.0) -> tuple[list[str], list[str], list[str]]:
    batch, late, gone, _ = waiting.take(now_ms)
    return [one.name for one in batch], [one.name for one in late], [one.name for one in gone]


CAPS = [
    ("a fixed part shared by all makes larger better", lambda b: 10.0 + 0.1 * b, 64, 64),
    ("the manifest's limit holds", lambda b: 10.0 + 0.1 * b, 20, 20),
    ("no fixed part: nothing to gain, one at a time", lambda b: 2.0 * b, 64, 1),
    ("dearer together (magika): one at a time", lambda b: b * (1.0 + 0.01 * b), 64, 1),
    ("gains up to 8, then loses (a wide MLP)", lambda b: (1.0 + 0.2 * b) * (1.0 if b < 16 else 3.0), 64, 15),
    ("one bucket that gains nothing is passed over", lambda b: b * (1.0 if b < 4 else 0.5), 64, 7),
]


@pytest.mark.parametrize(("sentence", "law", "max_batch", "cap"), CAPS, ids=[case[0] for case in CAPS])
def test_cap(sentence: str, law: Callable[[int], float], max_batch: int, cap: int) -> None:
    assert learned(law).cap(max_batch) == cap


def test_a_new_model_starts_alone_and_doubles() -> None:
    cost = Cost()
    caps = []
    for _ in range(4):
        caps.append(cost.cap(64))
        for _ in range(ENOUGH):
            cost.observe(cost.cap(64), 5.0)
    assert caps == [1, 3, 7, 15]


def test_prediction() -> None:
    assert Cost().predict_ms(1) is None
    cost = learned(lambda b: 3.0 + 0.5 * b)
    assert cost.predict_ms(1) == pytest.approx(3.5)
    assert cost.predict_ms(100) == pytest.approx(53.0)
    alone = learned(lambda b: 2.0 * b, sizes=(1,))
    assert alone.predict_ms(5) == pytest.approx(10.0), "with one point the fixed part is unknown: assume none"


def test_one_slow_run_changes_nothing() -> None:
    cost = learned(lambda b: 1.0 + 0.1 * b)
    before = cost.predict_ms(8)
    cost.observe(8, 500.0)
    assert cost.predict_ms(8) == pytest.approx(before)
    assert cost.cap(64) == 64


def test_what_was_not_run_for_long_is_tried_again() -> None:
    cost = learned(lambda b: 2.0 * b)
    assert cost.cap(64) == 1
    for _ in range(FORGET_AFTER + 1):
        cost.observe(1, 2.0)
    assert cost.cap(64) == 3
    for _ in range(ENOUGH):
        cost.observe(3, 2.2)
    for _ in range(30):
        cost.observe(1, 2.0)
    assert cost.cap(64) == 7, "it has learned to batch: the next bucket is tried"


CASES = [
    ("nobody waits", [], [], [], []),
    ("one runs at once, alone", [Ask("a")], ["a"], [], []),
    ("all that wait share a run", [Ask("a"), Ask("b"), Ask("c")], ["a", "b", "c"], [], []),
    ("late work never starts", [Ask("a", due_ms=99.0), Ask("b")], ["b"], ["a"], []),
    ("due now is late", [Ask("a", due_ms=100.0)], [], ["a"], []),
    ("who has left is forgotten", [Ask("a"), Ask("b", abandoned=True), Ask("c")], ["a", "c"], [], ["b"]),
    ("items count, not requests", [Ask("a", items=40), Ask("b", items=30)], ["a"], [], []),
    ("items fill up to the cap", [Ask("a", items=40), Ask("b", items=24)], ["a", "b"], [], []),
    (
        "a deadline that all together would miss keeps the batch small",
        [Ask("a"), Ask("b", due_ms=101.35), Ask("c"), Ask("d")],
        ["a", "b", "c"],
        [],
        [],
    ),
    (
        "who would be late even alone does not make the others run alone",
        [Ask("a", due_ms=100.5), Ask("b"), Ask("c")],
        ["a", "b", "c"],
        [],
        [],
    ),
]


@pytest.mark.parametrize(
    ("sentence", "asks", "batch", "late", "gone"), CASES, ids=[case[0] for case in CASES]
)
def test_take(sentence: str, asks: list[Ask], batch: list[str], late: list[str], gone: list[str]) -> None:
    waiting: Waiting[Ask] = Waiting()
    one = group()
    for ask in asks:
        waiting.put(one, ask)
    assert taken(waiting) == (batch, late, gone)
    assert waiting.count == len(asks) - len(batch) - len(late) - len(gone)


def test_a_request_above_the_cap_runs_alone() -> None:
    waiting: Waiting[Ask] = Waiting()
    one = group(lambda b: 2.0 * b)
    waiting.put(one, Ask("big", items=32))
    waiting.put(one, Ask("small"))
    assert taken(waiting)[0] == ["big"]
    assert taken(waiting)[0] == ["small"]


def test_groups_never_mix_and_the_oldest_goes_first() -> None:
    waiting: Waiting[Ask] = Waiting()
    busy, rare = group(lambda b: 1.0 + 0.1 * b, max_batch=2), group()
    for index in range(4):
        waiting.put(busy, Ask(f"busy{index}", arrived_ms=float(index)))
    waiting.put(rare, Ask("rare", arrived_ms=1.5))
    assert taken(waiting)[0] == ["busy0", "busy1"]
    assert taken(waiting)[0] == ["rare"], "a busy model must not starve a rare one"
    assert taken(waiting)[0] == ["busy2", "busy3"]
    assert taken(waiting) == ([], [], [])


def test_a_group_of_the_late_only_is_passed_over() -> None:
    waiting: Waiting[Ask] = Waiting()
    waiting.put(group(), Ask("late", due_ms=1.0))
    waiting.put(group(), Ask("good", arrived_ms=5.0))
    assert taken(waiting) == (["good"], ["late"], [])


asks = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(1, 9), st.sampled_from([50.0, 101.0, 105.0, 1e9]), st.booleans()
    ),
    max_size=60,
)


@settings(max_examples=30, deadline=None)
@given(asks)
def test_everyone_is_taken_exactly_once_and_in_order(wishes: list[tuple[int, int, float, bool]]) -> None:
    waiting: Waiting[Ask] = Waiting()
    groups = [group(lambda b: 0.1 + 0.01 * b, max_batch=8), group(lambda b: 1.0 * b), Group(16), Group(1)]
    for index, (of, items, due_ms, abandoned) in enumerate(wishes):
        waiting.put(groups[of], Ask(f"{of}:{index}", float(index), due_ms, items, abandoned))
    seen: list[str] = []
    while waiting.count:
        batch, late, gone, _ = waiting.take(100.0)
        assert all(not ask.abandoned and ask.due_ms > 100.0 for ask in batch)
        assert all(ask.due_ms <= 100.0 for ask in late)
        assert all(ask.abandoned for ask in gone)
        assert len({ask.name.split(":")[0] for ask in batch}) <= 1, "one group per execution"
        assert [ask.arrived_ms for ask in batch] == sorted(ask.arrived_ms for ask in batch)
        assert sum(ask.items for ask in batch) <= 16 or len(batch) == 1
        seen += [ask.name for ask in (*batch, *late, *gone)]
    assert len(seen) == len(set(seen)) == len(wishes)
    assert taken(waiting) == ([], [], [])
