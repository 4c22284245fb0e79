"""A train on a link with conditions: who arrives together, who not, and what is counted."""

import pytest

from netlab.wanconditions import Conditions
from netlab.wanfabric import Pair
from netlab.wanfate import Why
from netlab.wanpackets import TOGETHER_NS, admit, pieces
from netlab.wanqueue import DelayQueue
from tests.support.wanframes import frame, read

BODY = bytes(range(250)) * 40  # ten packets of 1000 bytes
LOST = Why.LOSS
T = TOGETHER_NS


@pytest.mark.parametrize(
    ("sentence", "fates", "expected"),
    [
        ("nothing", [], []),
        ("one", [5], [(0, 1, 5)]),
        ("all at one time", [5, 5, 5], [(0, 3, 5)]),
        ("all lost", [LOST, LOST], []),
        ("the first lost", [LOST, 5, 5], [(1, 3, 5)]),
        ("the last lost", [5, 5, LOST], [(0, 2, 5)]),
        ("one lost in the middle", [5, LOST, 5], [(0, 1, 5), (2, 3, 5)]),
        ("near enough leave with the last", [0, T // 2, T], [(0, 3, T)]),
        ("too far apart", [0, T, T + 1], [(0, 2, T), (2, 3, T + 1)]),
        ("one held back", [0, 9 * T, 0], [(0, 1, 0), (1, 2, 9 * T), (2, 3, 0)]),
        ("an earlier one begins anew", [5, 4], [(0, 1, 5), (1, 2, 4)]),
    ],
)
def test_pieces(sentence: str, fates: list[int | Why], expected: list[tuple[int, int, int]]) -> None:
    assert list(pieces(fates)) == expected, sentence


def carried(wish: Conditions, drawn: list[float], raw: bytes) -> tuple[Pair, bool, list[tuple[int, bytes]]]:
    pair, queue = Pair("a", "b", Conditions()), DelayQueue(1 << 20)
    pair.become(wish)
    pair.draw = iter(drawn).__next__
    too_big = admit(queue, pair, raw, 0)
    out = []
    while (entry := queue.pop_due(1 << 62)) is not None:
        out.append((entry[0], read(entry[2]).payload))
    return pair, too_big, out


def test_one_lost_leaves_a_gap_of_one_packet() -> None:
    drawn = [0.9] * 3 + [0.0] + [0.9] * 6
    pair, too_big, out = carried(Conditions(loss=0.01), drawn, frame(BODY, each=1000))
    assert out == [(0, BODY[:3000]), (0, BODY[4000:])]
    assert (pair.dropped_by[Why.LOSS], pair.dropped, too_big) == (1, 1, False)


def test_a_rate_sends_packet_after_packet() -> None:
    _, _, out = carried(Conditions(rate_bps=8_000_000), [], frame(BODY, each=1000))
    assert out == [(1_054_000 * (n + 1), BODY[1000 * n : 1000 * n + 1000]) for n in range(10)]


def test_what_is_too_big_is_dropped_and_said_the_rest_arrives() -> None:
    pair, too_big, out = carried(Conditions(mtu_bytes=900), [], frame(BODY[:2500], each=1000))
    assert out == [(0, BODY[2000:2500])]
    assert (pair.dropped_by[Why.MTU], too_big) == (2, True)


def test_a_cut_swallows_them_all_and_counts_packets() -> None:
    pair, queue = Pair("a", "b", Conditions(loss=0.1)), DelayQueue(1 << 20)
    pair.cut = True
    assert not admit(queue, pair, frame(BODY, each=1000), 0)
    assert (pair.dropped_by[Why.CUT], len(queue)) == (10, 0)


def test_an_overtaken_packet_is_counted() -> None:
    drawn = [0.9, 0.0] + [0.9] * 8
    pair, _, out = carried(Conditions(reorder=0.1), drawn, frame(BODY, each=1000))
    assert [payload for _, payload in out] == [BODY[:1000], BODY[2000:], BODY[1000:2000]]
    assert pair.reordered == 1
