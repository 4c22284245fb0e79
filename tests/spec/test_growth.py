"""edge.weights.growth: what of an unfinished blob may be given, and what is believed of another node's."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.weights.growth import Growth, Told, hear
from edge.weights.manifest import BlobFile

SIZE, CHUNK = 95, 10
FILE = BlobFile(
    role="weights",
    name="w",
    size_bytes=SIZE,
    blake3="a" * 64,
    sha256="b" * 64,
    chunks=tuple("c" * 64 for _ in range(10)),
    chunk_bytes=CHUNK,
)


def grown(*chunks: int) -> Growth:
    growth = Growth(SIZE, CHUNK)
    for index in chunks:
        growth.add(index)
    return growth


@pytest.mark.parametrize(
    ("sentence", "chunks", "part", "given_"),
    [
        ("nothing is right yet", (), (0, 1), False),
        ("one chunk", (0,), (0, 10), True),
        ("a part of it", (0,), (3, 7), True),
        ("one byte too many", (0,), (0, 11), False),
        ("two in a row", (0, 1), (5, 15), True),
        ("a gap", (0, 2), (5, 25), False),
        ("the short last one", (9,), (90, 95), True),
        ("behind the end", (9,), (90, 96), False),
        ("no byte", (0,), (5, 5), False),
        ("before the begin", (0,), (-1, 5), False),
        ("all", tuple(range(10)), (0, 95), True),
    ],
)
def test_a_range_is_given_if_all_of_its_chunks_are_right(
    sentence: str, chunks: tuple[int, ...], part: tuple[int, int], given_: bool
) -> None:
    assert grown(*chunks).covers(*part) is given_, sentence


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)), st.integers(0, 94), st.integers(1, 95))
def test_what_is_told_is_what_is_heard(theirs: set[int], mine: set[int], start: int, end: int) -> None:
    growth = grown(*theirs)
    assert growth.covers(start, end) is (
        start < end and all(at // CHUNK in theirs for at in range(start, end))
    )
    heard = hear(msgspec.json.encode(growth.told()), FILE)
    assert heard is not None
    assert {index for index in range(10) if heard.has(index)} == theirs
    assert (heard.count, growth.count, heard.whole) == (len(theirs), len(theirs), False)
    assert heard.exceeds(grown(*mine)) is bool(theirs - mine)
    assert heard.exceeds(None) is bool(theirs)


def test_a_chunk_counts_once_and_bytes_that_came_always() -> None:
    growth = grown(3, 3)
    growth.came(10)
    growth.came(10)
    assert growth.count == 1
    assert growth.told().came_bytes == 20
    growth.end()
    assert growth.over


def told(**more: Any) -> bytes:
    return json.dumps({"size_bytes": SIZE, "chunk_bytes": CHUNK, "bits": "0300", **more}).encode()


@pytest.mark.parametrize(
    ("sentence", "raw"),
    [
        ("no JSON", b"\xff{"),
        ("no object", b"[]"),
        ("nothing in it", b"{}"),
        ("a blob of another size", told(size_bytes=SIZE + 1)),
        ("other chunks", told(chunk_bytes=CHUNK + 1)),
        ("too few bits", told(bits="03")),
        ("too many bits", told(bits="030000")),
        ("no bits", told(bits="0g00")),
        ("half a byte", told(bits="030")),
        ("all of another size", msgspec.json.encode(Told(SIZE - 1))),
    ],
)
def test_what_does_not_fit_is_not_believed(sentence: str, raw: bytes) -> None:
    assert hear(raw, FILE) is None, sentence


def test_who_has_all_of_it_has_every_chunk() -> None:
    heard = hear(msgspec.json.encode(Told(SIZE)), FILE)
    assert heard is not None
    assert heard.whole
    assert heard.has(9)
    assert heard.exceeds(grown(*range(10)))
    less = hear(told(came_bytes=-5), FILE)
    assert less is not None
    assert less.came_bytes == 0
