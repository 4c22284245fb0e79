"""A frame is cut as the kernel would cut it: lengths, sequence, flags, checksums, and no byte lost."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.wantoobig import too_big
from netlab.wantrain import Train, checksum, part, train
from tests.support.wanframes import ACK, CWR, FIN, FOUR, PSH, SIX, TCP, UDP, Packet, frame, ones, read

BODY = bytes(range(256)) * 20


@pytest.mark.parametrize(
    ("sentence", "raw", "expected"),
    [
        ("a frame without offload is one packet", frame(BODY[:100]), Train(1, 0, 154, 154)),
        ("a train over IPv4", frame(BODY[:2500], each=1000), Train(3, 54, 1000, 2500)),
        ("a train over IPv6", frame(BODY[:2500], addresses=SIX, each=1000), Train(3, 74, 1000, 2500)),
        (
            "TCP options belong to the header",
            frame(BODY[:2500], each=1000, options=b"\1" * 12),
            Train(3, 66, 1000, 2500),
        ),
        ("a train of UDP", frame(BODY[:2500], protocol=UDP, each=1000), Train(3, 42, 1000, 2500)),
        ("the last may be full", frame(BODY[:2000], each=1000), Train(2, 54, 1000, 2000)),
        ("an offload of one packet is one packet", frame(BODY[:1000], each=1000), Train(1, 0, 1054, 1054)),
        (
            "a kind nobody knows can't be cut",
            b"\1\3" + frame(BODY[:2500], each=1000)[2:],
            Train(1, 0, 2554, 2554),
        ),
        (
            "no checksum to be filled, no cut",
            b"\0" + frame(BODY[:2500], each=1000)[1:],
            Train(1, 0, 2554, 2554),
        ),
        ("no size, no cut", b"\1\1" + bytes(8) + bytes(2554), Train(1, 0, 2554, 2554)),
        ("a header beyond the end, no cut", b"\1\1\0\0\1\0\xff\xff\0\0" + bytes(100), Train(1, 0, 100, 100)),
        (
            "beyond IP's own lengths, no cut",
            frame(BODY[:2500], each=1000) + bytes(65_535),
            Train(1, 0, 68_089, 68_089),
        ),
        ("nearly nothing", bytes(12), Train(1, 0, 2, 2)),
    ],
)
def test_train(sentence: str, raw: bytes, expected: Train) -> None:
    assert train(raw) == expected, sentence


def test_what_packets_weigh_on_a_line() -> None:
    whole = train(frame(BODY[:2500], each=1000))
    assert [whole.packet_bytes(index) for index in range(3)] == [1054, 1054, 554]
    assert whole.line_bytes == 1054 + 1054 + 554
    one = train(frame(BODY[:100]))
    assert one.packet_bytes(0) == one.line_bytes == 154


FLAGS = FIN | PSH | ACK | CWR
PARTS = [
    ("the first keeps CWR, not FIN", (0, 1), Packet((0, 0), 0xFFFE, 0xFFFFFF00, ACK | CWR, BODY[:1000])),
    ("one in the middle", (1, 2), Packet((0, 0), 0xFFFF, 0x2E8, ACK, BODY[1000:2000])),
    ("the last has FIN and PSH", (3, 4), Packet((0, 0), 1, 0xAB8, FIN | PSH | ACK, BODY[3000:3500])),
    ("two are a smaller train", (0, 2), Packet((0x81, 1000), 0xFFFE, 0xFFFFFF00, ACK | CWR, BODY[:2000])),
    ("a tail is one too", (1, 4), Packet((1, 1000), 0xFFFF, 0x2E8, FIN | PSH | ACK, BODY[1000:3500])),
]


@pytest.mark.parametrize(("sentence", "cut", "expected"), PARTS)
def test_part_of_tcp(sentence: str, cut: tuple[int, int], expected: Packet) -> None:
    raw = frame(BODY[:3500], each=1000, flags=FLAGS, ecn=True)
    assert read(part(raw, train(raw), *cut)) == expected, sentence


def test_all_of_it_is_the_frame_itself() -> None:
    raw = frame(BODY[:3500], each=1000)
    assert part(raw, train(raw), 0, 4) is raw


@given(
    size=st.integers(1, 5000),
    each=st.integers(1, 1500),
    addresses=st.sampled_from([FOUR, SIX]),
    protocol=st.sampled_from([TCP, UDP]),
    options=st.sampled_from([b"", b"\1" * 12]),
    data=st.data(),
)
def test_the_parts_are_the_whole(
    size: int, each: int, addresses: tuple[str, str], protocol: int, options: bytes, data: st.DataObject
) -> None:
    raw = frame(BODY[:size], addresses=addresses, protocol=protocol, each=each, options=options)
    whole = train(raw)
    cuts = sorted({0, whole.packets, *data.draw(st.lists(st.integers(0, whole.packets), max_size=4))})
    pieces = [part(raw, whole, first, end) for first, end in itertools.pairwise(cuts)]
    assert b"".join(read(piece).payload for piece in pieces) == BODY[:size]
    assert sum(train(piece).packets for piece in pieces) == whole.packets
    assert sum(train(piece).line_bytes for piece in pieces) == whole.line_bytes


@given(st.binary(max_size=100))
def test_checksum_is_the_one_of_the_rfc(data: bytes) -> None:
    """0 and 65535 are the same number there."""
    assert checksum(data) % 0xFFFF == (0xFFFF - ones(data)) % 0xFFFF


@given(
    head=st.tuples(*[st.one_of(st.sampled_from([0, 1, 4, 5, 6, 16, 0x81]), st.integers(0, 255))] * 10),
    body=st.binary(min_size=14, max_size=200),
)
def test_a_header_that_lies_cuts_nothing_that_is_not_there(head: tuple[int, ...], body: bytes) -> None:
    raw = bytes(head) + body
    whole = train(raw)
    for index in range(whole.packets):
        assert len(part(raw, whole, index, index + 1)) == 10 + whole.packet_bytes(index)
    too_big(raw, 1280)
