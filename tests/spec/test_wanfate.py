"""Every fate a packet can meet, with chance in hand."""

from collections.abc import Callable

import pytest

from netlab.wanconditions import HELD_MS, Conditions
from netlab.wanfate import Lane, Why, decide

MS = 1_000_000
IDLE = Lane()


def chances(*values: float) -> Callable[[], float]:
    return iter(values).__next__


def wish(**conditions: float) -> Conditions:
    return Conditions(one_way_ms=10, **conditions)  # type: ignore[arg-type]


#: 1250 bytes take 1 ms at 10 Mbit/s; every packet arrives at 100 ms.
CASES = [
    ("nothing asked: its delay", wish(), IDLE, (), 110 * MS, IDLE),
    ("small enough for the MTU", wish(mtu_bytes=1236), IDLE, (), 110 * MS, IDLE),
    ("a byte too big for the MTU", wish(mtu_bytes=1235), IDLE, (), Why.MTU, IDLE),
    ("too big is not drawn for", wish(mtu_bytes=1235, loss=1.0), IDLE, (), Why.MTU, IDLE),
    ("chance below the ratio loses it", wish(loss=0.1), IDLE, (0.0999,), Why.LOSS, IDLE),
    ("chance at the ratio does not", wish(loss=0.1), IDLE, (0.1,), 110 * MS, IDLE),
    ("everything lost", wish(loss=1.0), IDLE, (0.9999,), Why.LOSS, IDLE),
    ("a free line takes its time", wish(rate_bps=10_000_000), IDLE, (), 111 * MS, Lane(101 * MS, 0)),
    ("a line taken until 105", wish(rate_bps=10_000_000), Lane(105 * MS, 0), (), 116 * MS, Lane(106 * MS, 0)),
    (
        "a queue just full enough",
        wish(rate_bps=10_000_000),
        Lane(200 * MS, 0),
        (),
        211 * MS,
        Lane(201 * MS, 0),
    ),
    (
        "a queue too full",
        wish(rate_bps=10_000_000),
        Lane(200 * MS + 1, 0),
        (),
        Why.QUEUE,
        Lane(200 * MS + 1, 0),
    ),
    (
        "a lost packet used the line",
        wish(rate_bps=10_000_000, loss=0.5),
        IDLE,
        (0.1,),
        Why.LOSS,
        Lane(101 * MS, 0),
    ),
    (
        "a queue too full is not drawn for",
        wish(rate_bps=10_000_000, loss=0.5),
        Lane(300 * MS, 0),
        (),
        Why.QUEUE,
        Lane(300 * MS, 0),
    ),
    ("jitter in the middle", wish(jitter_ms=4), IDLE, (0.5,), 110 * MS, Lane(0, 110 * MS)),
    ("jitter at its least", wish(jitter_ms=4), IDLE, (0.0,), 106 * MS, Lane(0, 106 * MS)),
    ("jitter does not overtake", wish(jitter_ms=4), Lane(0, 109 * MS), (0.0,), 109 * MS, Lane(0, 109 * MS)),
    ("jitter is never before its arrival", wish(jitter_ms=40), IDLE, (0.0,), 100 * MS, Lane(0, 100 * MS)),
    ("held back", wish(reorder=0.5), IDLE, (0.4,), 110 * MS + int(HELD_MS * MS), IDLE),
    ("not held back", wish(reorder=0.5), IDLE, (0.6,), 110 * MS, IDLE),
    (
        "the held one holds nobody",
        wish(reorder=0.5, jitter_ms=4),
        IDLE,
        (0.5, 0.4),
        115 * MS,
        Lane(0, 110 * MS),
    ),
    (
        "all at once",
        wish(mtu_bytes=1500, rate_bps=10_000_000, loss=0.1, jitter_ms=4, reorder=0.1),
        Lane(102 * MS, 0),
        (0.5, 1 / 4, 0.5),
        111 * MS,
        Lane(103 * MS, 111 * MS),
    ),
]


@pytest.mark.parametrize(("sentence", "asked", "lane", "drawn", "fate", "after"), CASES)
def test_decide(
    sentence: str, asked: Conditions, lane: Lane, drawn: tuple[float, ...], fate: int | Why, after: Lane
) -> None:
    assert decide(asked, lane, 1250, 100 * MS, chances(*drawn)) == (fate, after), sentence


@pytest.mark.parametrize(
    ("sentence", "rate_bps", "waiting", "size_bytes"),
    [
        ("the bound is 100 ms at 10 Mbit/s", 10_000_000, 101, 1250),
        ("but 24 KiB at 1 Mbit/s", 1_000_000, 20, 1250),
        ("a quick line takes many", 1_000_000_000, 10_001, 1250),
    ],
)
def test_how_many_may_wait(sentence: str, rate_bps: int, waiting: int, size_bytes: int) -> None:
    """Sent at once, packets are taken until one would wait longer than the bound."""
    asked, lane, taken = Conditions(rate_bps=rate_bps), IDLE, 0
    while True:
        fate, lane = decide(asked, lane, size_bytes, 0, chances())
        if fate is Why.QUEUE:
            break
        taken += 1
    assert taken == waiting, sentence
