"""Content codings in and out, with the caps that make a bomb cost no more than an honest body."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import EdgeError, Reason
from edge.oip.coding import RATIO_FLOOR_BYTES, choose, deflate_for, inflate

MIB = 1024 * 1024
PLAIN = b'{"inputs": []}' * 100


def bare_deflate(plain: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(plain) + deflater.flush()


@pytest.mark.parametrize(
    ("sentence", "body", "encoding"),
    [
        ("gzip", gzip.compress(PLAIN, mtime=0), "gzip"),
        ("deflate is zlib", zlib.compress(PLAIN), "deflate"),
        ("bare deflate", bare_deflate(PLAIN), "deflate"),
        ("upper case and blanks", gzip.compress(PLAIN, mtime=0), " GZip "),
        ("the old name", gzip.compress(PLAIN, mtime=0), "x-gzip"),
        ("no coding", PLAIN, ""),
        ("identity", PLAIN, "identity"),
    ],
)
def test_inflated(sentence: str, body: bytes, encoding: str) -> None:
    assert inflate(body, encoding, max_bytes=MIB) == PLAIN, sentence


@pytest.mark.parametrize(
    ("sentence", "body", "encoding", "reason"),
    [
        ("unknown coding", PLAIN, "br", Reason.BAD_MEDIA_TYPE),
        ("two codings", gzip.compress(PLAIN, mtime=0), "gzip, gzip", Reason.BAD_MEDIA_TYPE),
        ("not gzip at all", PLAIN, "gzip", Reason.BAD_INPUT),
        ("not deflate at all", b"\xff" * 100, "deflate", Reason.BAD_INPUT),
        ("empty gzip", b"", "gzip", Reason.BAD_INPUT),
        ("empty deflate", b"", "deflate", Reason.BAD_INPUT),
        ("cut short", gzip.compress(PLAIN, mtime=0)[:-1], "gzip", Reason.BAD_INPUT),
        ("wrong checksum", gzip.compress(PLAIN, mtime=0)[:-8] + b"\0" * 8, "gzip", Reason.BAD_INPUT),
        ("bytes behind", gzip.compress(PLAIN, mtime=0) + b"x", "gzip", Reason.BAD_INPUT),
        ("a second member", gzip.compress(PLAIN, mtime=0) * 2, "gzip", Reason.BAD_INPUT),
        ("gzip called deflate", gzip.compress(PLAIN, mtime=0), "deflate", Reason.BAD_INPUT),
        ("past the cap in bytes", gzip.compress(b"\0" * (MIB + 1), mtime=0), "gzip", Reason.TOO_LARGE),
        ("past the ratio", gzip.compress(b"\0" * (RATIO_FLOOR_BYTES + 1), mtime=0), "gzip", Reason.TOO_LARGE),
    ],
)
def test_refused(sentence: str, body: bytes, encoding: str, reason: Reason) -> None:
    with pytest.raises(EdgeError) as caught:
        inflate(body, encoding, max_bytes=MIB)
    assert caught.value.reason is reason, sentence


def test_small_bodies_may_grow_to_the_floor() -> None:
    plain = b"\0" * RATIO_FLOOR_BYTES
    assert inflate(gzip.compress(plain, mtime=0), "gzip", max_bytes=MIB) == plain


def test_the_cap_itself_is_allowed() -> None:
    plain = bytes(range(256)) * 4096
    assert inflate(zlib.compress(plain, 0), "deflate", max_bytes=MIB) == plain


def test_a_bomb_costs_no_more_than_its_cap() -> None:
    bomb = gzip.compress(b"\0" * (32 * MIB), 1, mtime=0)
    tracemalloc.start()
    try:
        with pytest.raises(EdgeError):
            inflate(bomb, "gzip", max_bytes=MIB, max_ratio=1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * MIB


@pytest.mark.parametrize(
    ("sentence", "accepted", "coding"),
    [
        ("one", "gzip", "gzip"),
        ("the other", "deflate", "deflate"),
        ("both: gzip", "deflate, gzip", "gzip"),
        ("as browsers and httpx send it", "gzip, deflate, br, zstd", "gzip"),
        ("by weight", "gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("forbidden", "gzip;q=0", None),
        ("forbidden, anything else", "gzip;q=0, *", "deflate"),
        ("anything", "*", "gzip"),
        ("identity liked better", "gzip;q=0.5, identity", None),
        ("identity liked as much", "gzip, identity", "gzip"),
        ("only what we lack", "br, zstd", None),
        ("nonsense weight", "gzip;q=abc", None),
        ("weight above 1", "gzip;q=7", None),
        ("weight that is no number", "gzip;q=nan", None),
        ("another parameter", "gzip;level=9", None),
        ("nonsense", ";;,,=", None),
        ("empty", "", None),
        ("old name", "X-GZIP", "gzip"),
    ],
)
def test_choice(sentence: str, accepted: str, coding: str | None) -> None:
    assert choose(accepted) == coding, sentence


@pytest.mark.parametrize(
    ("sentence", "accepted", "body", "coding"),
    [
        ("asked for and large", "deflate", PLAIN, "deflate"),
        ("not asked for", None, PLAIN, None),
        ("too small to matter", "gzip", PLAIN[:1023], None),
        ("does not shrink", "gzip", zlib.compress(bytes(range(256)) * 40, 9) * 20, None),
    ],
)
def test_deflated(sentence: str, accepted: str | None, body: bytes, coding: str | None) -> None:
    coded, used = deflate_for(accepted, body)
    if sentence == "does not shrink":
        coded, used = deflate_for(accepted, coded if used else gzip.compress(body, 9, mtime=0), min_bytes=1)
    else:
        assert (coded == body) == (used is None)
        assert inflate(coded, used or "", max_bytes=MIB) == body
    assert used == coding, sentence


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]))
def test_noise_is_refused_or_read(noise: bytes, encoding: str) -> None:
    try:
        plain = inflate(noise, encoding, max_bytes=MIB)
    except EdgeError as error:
        outcome = error.status
    else:
        outcome = 200 if len(plain) <= MIB else 0
    assert outcome in (200, 400, 413)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=3000), st.sampled_from(["gzip", "deflate"]))
def test_there_and_back(plain: bytes, encoding: str) -> None:
    coded, used = deflate_for(encoding, plain, min_bytes=0)
    assert inflate(coded, used or "", max_bytes=MIB) == plain
