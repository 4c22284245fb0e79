"""Frames survive any cut of the byte stream, and nothing that is no frame gets through."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.wire.frame import HEADER, MAX_FRAME_BYTES, MAX_HEAD_BYTES, Decoder, Frame, FrameError, Kind, encode

frames = st.lists(
    st.builds(
        Frame,
        st.sampled_from(Kind),
        st.integers(0, 2**64 - 1),
        st.binary(max_size=40),
        st.binary(max_size=300),
    ),
    max_size=8,
)


@given(frames, st.lists(st.integers(1, 64), min_size=1, max_size=40))
def test_any_cut_of_the_stream_gives_the_same_frames(sent, cuts):
    stream = b"".join(encode(*frame) for frame in sent)
    decoder, got, at, turn = Decoder(), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        got += decoder.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert got == sent
    assert decoder.buffered_bytes == 0


def test_all_frames_of_one_read_come_out_together():
    stream = b"".join(encode(Kind.CALL, number, b"h", b"b") for number in range(50))
    assert [frame.id for frame in Decoder().feed(stream)] == list(range(50))


def test_a_frame_that_is_not_complete_is_kept():
    decoder = Decoder()
    whole = encode(Kind.REPLY, 7, b"head", b"body")
    assert decoder.feed(whole[:-1]) == []
    assert decoder.buffered_bytes == len(whole) - 1
    assert decoder.feed(whole[-1:]) == [Frame(Kind.REPLY, 7, b"head", b"body")]


@pytest.mark.parametrize(
    ("sentence", "raw", "match"),
    [
        ("a newer version is refused", HEADER.pack(12, 2, 1, 0, 1), "version 2"),
        ("an unknown kind is refused", HEADER.pack(12, 1, 99, 0, 1), "kind 99"),
        (
            "a length above the cap is refused before the body comes",
            HEADER.pack(2**32 - 1, 1, 1, 0, 1),
            "length",
        ),
        ("a length shorter than its header is refused", HEADER.pack(3, 1, 1, 0, 1), "length"),
        ("a head longer than the frame is refused", HEADER.pack(12, 1, 1, 500, 1), "length"),
        ("another protocol is refused", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "version|length|kind"),
    ],
)
def test_what_is_no_frame(sentence, raw, match):
    with pytest.raises(FrameError, match=match):
        Decoder().feed(raw)


@pytest.mark.parametrize(
    ("sentence", "head", "body"),
    [
        ("a head above 64 KiB is not sent", b"x" * (MAX_HEAD_BYTES + 1), b""),
        ("a body above the frame's cap is not sent", b"", bytes(MAX_FRAME_BYTES)),
    ],
)
def test_what_is_not_sent(sentence, head, body):
    with pytest.raises(FrameError, match="exceeds"):
        encode(Kind.CALL, 1, head, body)


def test_the_header_is_twenty_bytes_less_four():
    assert HEADER.size == 16
    assert struct.unpack("!I", encode(Kind.END, 1)[:4])[0] == HEADER.size - 4
