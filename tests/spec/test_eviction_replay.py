"""The store's own eviction replayed over seeded streams; the whole comparison is tests/bench/eviction.py."""

from collections import OrderedDict

import pytest

from tests.bench.traces import Shape, Trace, bound, cold_share, knows_the_future, knows_the_next_use, trace

SMALL = Shape(models=80, requests=1_500, drift_every=100, burst_chance=1 / 150)


def least_recently_used(stream, capacity):
    """Cold seconds left, as `cold_share` has it."""
    here, used, cold_s = OrderedDict(), 0, 0.0
    for model in stream.asked:
        size = stream.sizes[model]
        if model in here:
            here.move_to_end(model)
            continue
        cold_s += stream.cold_s[model]
        if size > capacity:
            continue
        while used + size > capacity:
            used -= here.popitem(last=False)[1]
        here[model] = size
        used += size
    return cold_s / sum(stream.cold_s[model] for model in stream.asked)


def test_a_stream_is_the_same_for_the_same_seed():
    assert trace(1, SMALL) == trace(1, SMALL) != trace(2, SMALL)
    assert len(trace(1, SMALL).asked) == SMALL.requests


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_on_every_seed_it_leaves_fewer_cold_seconds_than_the_least_recently_used(share):
    streams = [trace(seed, SMALL) for seed in range(5)]
    pairs = [
        (cold_share(one, one.capacity(share)), least_recently_used(one, one.capacity(share)))
        for one in streams
    ]
    assert all(ours < lru for ours, lru in pairs), pairs
    assert sum(ours / lru for ours, lru in pairs) / len(pairs) < 0.92, pairs


def test_who_knows_the_future_does_better():
    one = trace(3, SMALL)
    capacity = one.capacity(0.2)
    ahead = cold_share(one, capacity, per_byte=knows_the_future(one, 60))
    every = cold_share(one, capacity, per_byte=knows_the_next_use(one))
    assert bound(one, capacity) < every < ahead < cold_share(one, capacity)


@pytest.mark.parametrize(
    ("sentence", "capacity", "left"),
    [
        ("room for three intervals of two requests each", 12, 2 / 5),
        ("for two and a half of them", 10, 2.5 / 5),
        ("what is larger than the disk is cold each time", 9, 1.0),
    ],
)
def test_the_bound_is_the_room_that_the_cheapest_intervals_take(sentence, capacity, left):
    one = Trace([10, 10], [1.0, 1.0], [0, 1, 0, 1, 0])
    assert bound(one, capacity) == pytest.approx(left), sentence


def test_with_room_for_all_each_model_is_cold_once():
    one = trace(4, SMALL)
    once = sum(one.cold_s[model] for model in set(one.asked)) / sum(one.cold_s[model] for model in one.asked)
    assert cold_share(one, sum(one.sizes)) == pytest.approx(once)
