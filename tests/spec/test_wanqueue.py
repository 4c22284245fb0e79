"""The delay queue: nothing leaves early, order holds, bytes are bounded."""

from hypothesis import given
from hypothesis import strategies as st

from netlab.wanconditions import Conditions
from netlab.wanfabric import Pair
from netlab.wanfate import Why
from netlab.wanqueue import FRAME_COST_BYTES, DelayQueue


def pair(to: str = "b") -> Pair:
    return Pair("a", to, Conditions())


def drain(queue: DelayQueue, now_ns: int) -> list[tuple[int, bytes]]:
    out = []
    while (entry := queue.pop_due(now_ns)) is not None:
        out.append((entry[0], entry[2]))
    return out


def test_an_empty_queue_has_nothing_due() -> None:
    queue = DelayQueue(1000)
    assert queue.next_due_ns is None
    assert queue.pop_due(1 << 62) is None


def test_a_frame_leaves_at_its_time_and_not_before() -> None:
    queue = DelayQueue(1000)
    assert queue.offer(pair(), b"x", 50)
    assert queue.next_due_ns == 50
    assert queue.pop_due(49) is None
    assert drain(queue, 50) == [(50, b"x")]
    assert len(queue) == 0


def test_equal_times_leave_in_order_of_arrival() -> None:
    queue, one = DelayQueue(100_000), pair()
    for n in range(20):
        queue.offer(one, b"%d" % n, 7)
    assert [frame for _, frame in drain(queue, 7)] == [b"%d" % n for n in range(20)]


def test_a_short_pair_overtakes_a_long_one() -> None:
    queue = DelayQueue(1000)
    queue.offer(pair("far"), b"far", 100)
    queue.offer(pair("near"), b"near", 10)
    assert drain(queue, 100) == [(10, b"near"), (100, b"far")]


def test_a_full_pair_drops_counts_and_leaves_others_alone() -> None:
    full, other = pair("full"), pair("other")
    queue = DelayQueue(2 * (10 + FRAME_COST_BYTES))
    assert queue.offer(full, b"0123456789", 1)
    assert queue.offer(full, b"0123456789", 1)
    assert not queue.offer(full, b"", 1)
    assert (full.dropped_by[Why.QUEUE], full.dropped, other.dropped) == (1, 1, 0)
    assert queue.offer(other, b"0123456789", 1)
    drain(queue, 1)
    assert (full.queued_bytes, other.queued_bytes, queue.queued_bytes) == (0, 0, 0)
    assert queue.offer(full, b"0123456789", 2)


def test_a_cut_pair_takes_nothing_and_says_why() -> None:
    queue, one = DelayQueue(1000), pair()
    one.cut = True
    assert not queue.offer(one, b"x", 1)
    assert one.dropped_by[Why.CUT] == 1
    assert len(queue) == 0


def test_who_leaves_behind_a_later_one_is_reordered() -> None:
    queue, one, other = DelayQueue(10_000), pair(), pair("other")
    for due_ns in (5, 9, 6, 7, 10):  # the second is held back past the two after it
        queue.offer(one, b"%d" % due_ns, due_ns)
        queue.offer(other, b"x", 100)
    assert [frame for _, frame in drain(queue, 10)] == [b"5", b"6", b"7", b"9", b"10"]
    drain(queue, 1000)
    assert (one.reordered, other.reordered) == (1, 0)


@given(st.lists(st.tuples(st.integers(0, 50), st.binary(max_size=40), st.booleans())), st.integers(0, 60))
def test_whatever_comes_leaves_sorted_bounded_and_whole(
    frames: list[tuple[int, bytes, bool]], now_ns: int
) -> None:
    limit = 5 * (40 + FRAME_COST_BYTES)
    queue, pairs = DelayQueue(limit), (pair("x"), pair("y"))
    taken = [frame for frame in frames if queue.offer(pairs[frame[2]], frame[1], frame[0])]
    assert all(one.queued_bytes <= limit for one in pairs)
    assert sum(one.dropped for one in pairs) == len(frames) - len(taken)
    early = drain(queue, now_ns)
    assert all(due <= now_ns for due, _ in early)
    everything = early + drain(queue, 1000)
    assert everything == sorted(((due, frame) for due, frame, _ in taken), key=lambda entry: entry[0])
    assert queue.queued_bytes == 0
