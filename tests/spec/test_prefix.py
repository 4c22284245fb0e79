"""Specification of edge/weights/prefix.py: one digest, in whatever order the chunks come."""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from edge.weights.prefix import Prefix

CHUNK = 100
CONTENT = bytes(range(256)) * 4


def bounds(index: int) -> tuple[int, int]:
    return index * CHUNK, min((index + 1) * CHUNK, len(CONTENT))


CHUNKS = -(-len(CONTENT) // CHUNK)


@pytest.fixture(scope="module")
def file() -> Iterator[int]:
    with tempfile.TemporaryFile() as opened:
        opened.write(CONTENT)
        opened.flush()
        yield opened.fileno()


@given(order=st.permutations(range(CHUNKS)), told=st.integers(0, CHUNKS))
def test_the_digest_is_the_file_s_whatever_came_first(file: int, order: list[int], told: int) -> None:
    prefix = Prefix(file, CHUNKS, bounds)
    for index in order[:told]:
        prefix.add(index)
        prefix.advance()
    assert prefix.digest() == blake3(CONTENT).hexdigest()


def test_what_has_no_gap_before_it_is_read_once_and_the_rest_at_the_end(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    really = os.preadv

    def preadv(fd: int, buffers: Any, at: int) -> int:
        reads.append(at // CHUNK)
        return really(fd, buffers, at)

    monkeypatch.setattr(os, "preadv", preadv)
    prefix = Prefix(file, CHUNKS, bounds)
    for index, read in ((1, []), (2, []), (0, [0, 1, 2]), (4, [])):
        del reads[:]
        prefix.add(index)
        prefix.advance()
        assert reads == read, f"after chunk {index}"
    del reads[:]
    prefix.digest()
    assert reads == list(range(3, CHUNKS))


def test_threads_that_bring_chunks_together_hash_each_once(file: int) -> None:
    for _ in range(50):
        prefix = Prefix(file, CHUNKS, bounds)

        def bring(index: int, prefix: Prefix = prefix) -> None:
            prefix.add(index)
            prefix.advance()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(bring, range(CHUNKS)))
        assert prefix.digest() == blake3(CONTENT).hexdigest()


def test_other_bytes_have_another_digest(file: int) -> None:
    with tempfile.TemporaryFile() as opened:
        opened.write(CONTENT[:-1] + b"?")
        opened.flush()
        assert Prefix(opened.fileno(), CHUNKS, bounds).digest() != blake3(CONTENT).hexdigest()
