"""Specification of tests/bench/loadreport.py: what is compared, and what counts as promised."""

from tests.bench.loadreport import Point, document, ratio, shares, text, verdicts

LARGE, SMALL = 500_000_000, 50_000_000


def points(size: int, *rounds: tuple[float, float, int]) -> list[Point]:
    """(seconds of the worker, of the default session, private bytes of the worker) per round."""
    made = []
    for number, (worker_s, default_s, private) in enumerate(rounds):
        made.append(Point("worker", size, number, worker_s, worker_s / 2, private, size + private, private))
        made.append(Point("default", size, number, default_s, default_s / 2, size, None, 0))
    return made


GOOD = points(LARGE, (0.125, 1.0, 5_000_000), (0.25, 1.0, 10_000_000), (0.25, 2.0, 0))


def test_a_ratio_is_taken_within_a_round() -> None:
    assert ratio(GOOD, LARGE) == (0.125, 0.25, 0.125)
    assert ratio(GOOD[:3], LARGE) == (0.125,), "a round that has one way only compares nothing"
    assert shares(GOOD, LARGE, "private_bytes") == (0.01, 0.02, 0.0)


def test_promises_are_kept_or_missed_by_the_median() -> None:
    assert [row["met"] for row in verdicts(GOOD)] == [True, True, None, None]
    slow = points(LARGE, (0.3, 1.0, 50_000_000), (0.4, 1.0, 0), (0.1, 1.0, 50_000_000))
    assert [row["met"] for row in verdicts(slow)] == [False, False, None, None]


def test_nothing_is_promised_of_a_small_model() -> None:
    assert {row["goal"] for row in verdicts(points(SMALL, (1.0, 1.0, SMALL)))} == {None}


def test_the_text_says_what_was_wanted() -> None:
    shown = text([*GOOD, *points(SMALL, (1.0, 1.0, 0))], {"cores": 2})
    assert "cores: 2" in shown
    assert "| worker / default, to first answer | 500 | 0.125 (0.125-0.250) | <= 0.20: met |" in shown
    assert "| worker / default, to first answer | 50 | 1.000 (1.000-1.000) | - |" in shown
    assert document(GOOD, {})["points"][0]["way"] == "worker"
