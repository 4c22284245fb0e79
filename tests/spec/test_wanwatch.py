"""When a measurement is void, and what a window counts."""

import pytest

from netlab.wanwatch import Counters, Seen, Watch, counted


@pytest.mark.parametrize(
    ("sentence", "seen", "ratio", "void"),
    [
        ("nothing crossed", Seen(0, 0), 0.0, False),
        ("none late", Seen(1000, 0), 0.0, False),
        ("one in a hundred is the bound", Seen(1000, 10), 0.01, False),
        ("more than that", Seen(1000, 11), 0.011, True),
        ("two of few are a hiccup", Seen(10, 2), 0.2, False),
        ("three are not", Seen(10, 3), 0.3, True),
    ],
)
def test_void(sentence: str, seen: Seen, ratio: float, *, void: bool) -> None:
    assert (seen.late_ratio, seen.void) == (pytest.approx(ratio), void), sentence


def test_a_window_counts_from_its_beginning_to_its_end() -> None:
    totals = iter([(10, 1), (20, 2), (50, 9), (70, 9)])
    watch = Watch(lambda: next(totals))  # made at (10, 1)
    with watch:  # (20, 2)
        assert watch.seen() == Seen(30, 7)
    assert watch.seen() == Seen(50, 7)
    assert watch.void


def test_a_window_may_stay_open() -> None:
    totals = iter([(0, 0), (100, 0), (300, 5)])
    watch = Watch(lambda: next(totals))
    assert not watch.void
    assert watch.void


def test_counters_are_the_fabric_s_own() -> None:
    pair = {
        "from": "w-a",
        "to": "w-b",
        "frames": 1,
        "packets": 3,
        "bytes": 9,
        "dropped": 2,
        "dropped_by": {"loss": 2},
        "reordered": 0,
        "late": 1,
    }
    assert counted(pair) == Counters(
        frames=1, packets=3, bytes=9, dropped=2, dropped_by={"loss": 2}, reordered=0, late=1
    )
