"""What a node's blob server answers: a real server, real TLS."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.weights import serve
from edge.weights.peersource import PeerError
from edge.weights.serve import span
from netlab.ca import Ca, write_ca
from tests.support.blobserver import Running, blob_server
from tests.support.wait import wait_until

CHUNK = 1 << 18


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return write_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def fra(tmp_path: Path, ca: Ca) -> AsyncIterator[Running]:
    async with blob_server(tmp_path, ca) as running:
        yield running


async def test_ranges_arrive_exactly_over_one_connection_and_are_counted(fra: Running) -> None:
    content = os.urandom(3 * CHUNK + 17)
    digest = fra.shelf.put(content)
    for start, end in ((0, CHUNK), (CHUNK, 3 * CHUNK), (len(content) - 1, len(content)), (0, len(content))):
        assert await fra.get(digest, start, end, len(content)) == content[start:end]
    assert fra.server.served_bytes == CHUNK + 2 * CHUNK + 1 + len(content)
    assert len(fra.peer._idle) == 1


@pytest.mark.parametrize(
    ("sentence", "request_line", "status", "headers", "body_bytes"),
    [
        ("the whole blob", "GET /blobs/{digest} HTTP/1.1", 200, {'etag: "{digest}"', "content-length: 1000"}, 1000),
        ("one range", "GET /blobs/{digest} HTTP/1.1\r\nRange: bytes=10-19", 206, {"content-range: bytes 10-19/1000", "content-length: 10"}, 10),
        ("a range that ends behind the end", "GET /blobs/{digest} HTTP/1.1\r\nRange: bytes=990-2000", 206, {"content-range: bytes 990-999/1000"}, 10),
        ("the last bytes", "GET /blobs/{digest} HTTP/1.1\r\nRange: bytes=-5", 206, {"content-range: bytes 995-999/1000"}, 5),
        ("HEAD", "HEAD /blobs/{digest} HTTP/1.1", 200, {"content-length: 1000", 'etag: "{digest}"'}, 0),
        ("a range behind the end", "GET /blobs/{digest} HTTP/1.1\r\nRange: bytes=1000-", 416, {"content-range: bytes */1000"}, None),
        ("two ranges", "GET /blobs/{digest} HTTP/1.1\r\nRange: bytes=0-1,5-6", 416, set(), None),
        ("no range at all", "GET /blobs/{digest} HTTP/1.1\r\nRange: lines=1-2", 416, set(), None),
        ("a blob that is not here", "GET /blobs/{other} HTTP/1.1", 404, set(), None),
        ("a way out", "GET /blobs/..%2f..%2fnode.json HTTP/1.1", 404, set(), None),
        ("another file of the store", "GET /node.json HTTP/1.1", 404, set(), None),
        ("a write", "PUT /blobs/{digest} HTTP/1.1\r\nContent-Length: 0", 405, set(), None),
    ],
)  # fmt: skip
async def test_answers(
    fra: Running, sentence: str, request_line: str, status: int, headers: set[str], body_bytes: int | None
) -> None:
    digest = fra.shelf.put(b"x" * 1000)
    (fra.shelf.root / "node.json").write_text("secret")
    answer = await fra.raw(request_line.format(digest=digest, other="0" * 64))
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().splitlines()
    assert lines[0].split()[1] == str(status), sentence
    assert {one.format(digest=digest) for one in headers} <= set(lines), sentence
    assert b"secret" not in answer
    if body_bytes is not None:
        assert len(body) == body_bytes, sentence


@pytest.mark.parametrize(
    ("text", "size", "found"),
    [
        ("bytes=0-0", 1, (0, 1)),
        ("bytes=0-", 10, (0, 10)),
        ("bytes=3-5", 10, (3, 6)),
        ("bytes=3-50", 10, (3, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-30", 10, (0, 10)),
        ("bytes=-0", 10, None),
        ("bytes=10-", 10, None),
        ("bytes=5-3", 10, None),
        ("bytes=", 10, None),
        ("bytes=-", 10, None),
        ("bytes=0-1,2-3", 10, None),
        ("bytes=+1-2", 10, None),
        ("bytes=٣-٥", 10, None),
        ("bytes=" + "9" * 99 + "-", 10, None),
        ("items=0-1", 10, None),
    ],
)
def test_span(text: str, size: int, found: tuple[int, int] | None) -> None:
    assert span(text, size) == found


async def test_a_blob_under_way_is_lent_until_its_reader_is_done_or_let_go(
    fra: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "WRITE_TIMEOUT_S", 0.3)
    digest = fra.shelf.put(os.urandom(32 << 20))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", fra.port, ssl=fra.tls, server_hostname="fra-a", limit=1024
    )
    writer.write(f"GET /blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readline()
    await wait_until(lambda: fra.shelf.lent.total() == 1)
    # It never reads on: it is let go, and the blob may be evicted again.
    await wait_until(lambda: fra.shelf.lent.total() == 0)
    assert fra.server.served_bytes < 32 << 20
    writer.transport.abort()


async def test_beyond_so_many_answers_at_a_time_the_next_is_told_to_come_back(
    fra: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "MAX_REQUESTS", 0)
    digest = fra.shelf.put(b"x" * 10)
    with pytest.raises(PeerError, match="503") as caught:
        await fra.get(digest, 0, 10, 10)
    assert not caught.value.lasting


async def test_a_file_that_is_shorter_than_the_store_says_ends_the_connection(fra: Running) -> None:
    digest = fra.shelf.put(b"x" * 1000, claim_bytes=2000)
    with pytest.raises(PeerError):
        await fra.get(digest, 0, 2000, 2000)
