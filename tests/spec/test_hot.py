"""What of the host tier is read in again: at once when it is away, and never in a fight with the kernel."""

from edge.weights.hot import AGAIN_MAX_MS, AGAIN_MS, HOT, Hot

HELD = {"a": 1000, "b": 500}
ALL = dict(HELD)


def away(*blobs: str) -> dict[str, int]:
    return {blob: 0 if blob in blobs else size for blob, size in HELD.items()}


def test_what_is_in_memory_is_left_alone():
    hot = Hot()
    assert hot.plan(HELD, ALL, 0.0) == ()
    assert hot.plan(HELD, {"a": round(1000 * HOT), "b": 500}, 0.0) == (), "but for some pages"
    assert hot.plan(HELD, {"b": 500}, 0.0) == (), "of what was not measured nothing is known"


def test_what_is_away_is_read_in_once():
    hot = Hot()
    assert hot.plan(HELD, away("a"), 0.0) == ("a",)
    assert hot.plan(HELD, away("a"), 1e9) == (), "it is being read, however long that takes"
    assert hot.plan(HELD, away("a", "b"), 1e9) == ("b",)
    hot.ended("a", 1e9)
    hot.ended("b", 1e9)
    assert hot.plan(HELD, ALL, 1e9 + 5_000) == ()
    assert hot.lost == frozenset()


def test_what_is_away_after_a_long_time_is_read_in_at_once_and_that_is_no_fault():
    hot = Hot()
    for at_ms in (0.0, 2 * AGAIN_MS, 4 * AGAIN_MS):
        assert hot.plan(HELD, away("a"), at_ms) == ("a",)
        hot.ended("a", at_ms)
        assert hot.plan(HELD, ALL, at_ms + AGAIN_MS - 1) == ()
        assert hot.lost == frozenset()


def test_what_is_away_again_soon_is_said_and_tried_ever_more_seldom():
    hot, at_ms, pauses = Hot(), 0.0, []
    assert hot.plan(HELD, away("a"), at_ms) == ("a",)
    for _ in range(7):
        hot.ended("a", at_ms)
        ended_ms = at_ms
        while hot.plan(HELD, away("a"), at_ms) == ():
            at_ms += 5_000.0
            assert hot.lost == {"a"}
        pauses.append(at_ms - ended_ms)
    minutes = [pause / 60_000 for pause in pauses]
    assert minutes == [5, 10, 20, 40, 60, 60, 60]
    assert max(pauses) == AGAIN_MAX_MS


def test_what_stays_in_memory_at_last_is_no_longer_told():
    hot = Hot()
    hot.plan(HELD, away("a"), 0.0)
    hot.ended("a", 0.0)
    hot.plan(HELD, away("a"), 5_000.0)
    assert hot.lost == {"a"}
    assert hot.plan(HELD, away("a"), AGAIN_MS) == ("a",)
    hot.ended("a", AGAIN_MS)
    hot.plan(HELD, ALL, 2 * AGAIN_MS - 1)
    assert hot.lost == {"a"}, "not yet"
    hot.plan(HELD, ALL, 2 * AGAIN_MS)
    assert hot.lost == frozenset()


def test_what_nobody_holds_is_forgotten():
    hot = Hot()
    assert hot.plan(HELD, away("a", "b"), 0.0) == ("a", "b")
    assert hot.plan({}, {}, 1.0) == ()
    hot.ended("a", 2.0)
    assert hot.plan(HELD, away("a"), 3.0) == ("a",)
