"""Blobs from one node to another: a real server, real TLS, honest and hostile ends."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from blake3 import blake3

from edge.errors import EdgeError, Reason
from edge.weights import serve
from edge.weights.fetch import Choice, CorruptError, Limits, Meter, Ranges, fetch_blob
from edge.weights.manifest import BlobFile
from edge.weights.origin import Origin
from edge.weights.peersource import Peer, PeerError, Peers
from edge.weights.serve import BlobServer, Lender, Lent, span
from edge.weights.sources import ORIGIN, Kind, Site
from edge.weights.store import Store
from edge.weights.tls import Papers, context
from netlab.ca import Ca, write_ca
from tests.support.blobs import Bucket, Served, blob_file, content_digest, serving
from tests.support.region import papers
from tests.support.wait import wait_until

CHUNK = 1 << 18
LIMITS = Limits(parallel=4, min_bytes_per_s=65_536, watch_ms=20_000)
NEAR, OTHER = Site(Kind.REGION, "fra-a"), Site(Kind.REGION, "ams-a")


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return write_ca(tmp_path_factory.mktemp("ca"))


class Shelf:
    """Files that a server may lend, and what is lent now."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keys: dict[str, int] = {}
        self.lent: Counter[str] = Counter()
        self.most_lent = 0

    def put(self, content: bytes, *, claim_bytes: int | None = None) -> str:
        digest = str(blake3(content).hexdigest())
        path = self.root / "blobs" / digest
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        self.keys[f"blobs/{digest}"] = len(content) if claim_bytes is None else claim_bytes
        return digest

    def lend(self, key: str) -> Lent | None:
        if key not in self.keys:
            return None
        self.lent[key] += 1
        self.most_lent = max(self.most_lent, self.lent.total())
        return Lent(self.root / key, self.keys[key])

    def take_back(self, key: str) -> None:
        self.lent[key] -= 1


class Running:
    """A blob server, and a client of it."""

    def __init__(self, shelf: Shelf, server: BlobServer, port: int, tls: ssl.SSLContext) -> None:
        self.shelf = shelf
        self.server = server
        self.port = port
        self.tls = tls
        self.stop = threading.Event()
        self.peer = Peer("fra-a", ("127.0.0.1", port), tls, self.stop)

    async def get(self, digest: str, start: int, end: int, size: int) -> bytes:
        def whole() -> bytes:
            path = f"blobs/{digest}"
            return b"".join(bytes(part) for part in self.peer.range(path, start, end, object_bytes=size))

        return await asyncio.to_thread(whole)

    async def raw(self, request: str) -> bytes:
        """The answer to a request as it stands, until the server closes."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.tls, server_hostname="fra-a"
        )
        try:
            writer.write(f"{request}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            async with asyncio.timeout(5):
                return await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def blob_server(root: Path, ca: Ca, node: str = "fra-a") -> AsyncIterator[Running]:
    shelf = Shelf(root)
    mine = papers(ca, node)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    crashes: list[None] = []
    server = BlobServer(
        listener,
        context(ssl.Purpose.CLIENT_AUTH, mine),
        Lender(shelf.lend, shelf.take_back),
        lambda: crashes.append(None),
    )
    server.start()
    running = Running(shelf, server, port, context(ssl.Purpose.SERVER_AUTH, papers(ca, "ber-a")))
    try:
        yield running
        await wait_until(lambda: shelf.lent.total() == 0)
    finally:
        running.peer.close()
        await asyncio.to_thread(server.stop)
    assert not crashes


@pytest.fixture
async def fra(tmp_path: Path, ca: Ca) -> AsyncIterator[Running]:
    async with blob_server(tmp_path, ca) as running:
        yield running


# --- the server


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


# --- who may talk to whom


@pytest.mark.parametrize(
    ("sentence", "make"),
    [
        ("a foreign authority", lambda ca, tmp: papers(write_ca(tmp / "foreign"), "ber-a")),
        ("an expired certificate", lambda ca, tmp: papers(ca, "ber-a", now=datetime.now(UTC) - timedelta(days=90))),
    ],
)  # fmt: skip
async def test_who_is_not_of_the_fleet_gets_nothing(
    fra: Running, ca: Ca, tmp_path: Path, sentence: str, make: Callable[[Ca, Path], Papers]
) -> None:
    digest = fra.shelf.put(b"x" * 10)
    theirs = make(ca, tmp_path)._replace(ca=ca.path.read_text())
    stranger = Peer("fra-a", ("127.0.0.1", fra.port), context(ssl.Purpose.SERVER_AUTH, theirs), fra.stop)
    with pytest.raises(PeerError):
        await asyncio.to_thread(stranger.small, f"blobs/{digest}", 10)
    assert fra.server.served_bytes == 0, sentence
    bare = ssl.create_default_context(cafile=str(ca.path))
    nobody = Peer("fra-a", ("127.0.0.1", fra.port), bare, fra.stop)
    with pytest.raises(PeerError):
        await asyncio.to_thread(nobody.small, f"blobs/{digest}", 10)
    assert fra.shelf.most_lent == 0


async def test_an_address_that_leads_to_another_node_is_not_asked(fra: Running) -> None:
    digest = fra.shelf.put(b"x" * 10)
    peers = Peers(fra.tls, fra.stop)
    meant = peers.at("nrt-a", f"127.0.0.1:{fra.port}")
    assert meant is not None
    with pytest.raises(PeerError, match="nrt-a"):
        await asyncio.to_thread(meant.small, f"blobs/{digest}", 10)
    assert fra.shelf.most_lent == 0
    for node, blobs in (
        ("", "127.0.0.1:1"),
        (".", "127.0.0.1:1"),
        ("ü", "127.0.0.1:1"),
        ("a", "example.org:1"),
        ("a", ""),
    ):
        assert peers.at(node, blobs) is None
    assert Peers(None, fra.stop).at("fra-a", "127.0.0.1:1") is None


# --- a hostile or sick server


class Liar:
    """A TLS server that answers each request with the same bytes."""

    def __init__(self, answer: bytes, *, drip_s: float = 0.0) -> None:
        self.answer = answer
        self.drip_s = drip_s
        self.requests = 0
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                for at in range(len(self.answer)) if self.drip_s else (0,):
                    writer.write(self.answer[at : at + 1] if self.drip_s else self.answer)
                    await writer.drain()
                    await asyncio.sleep(self.drip_s)
                if b"cut" in self.answer[:200]:
                    break
        writer.close()


@contextlib.asynccontextmanager
async def lying(ca: Ca, answer: bytes, *, drip_s: float = 0.0) -> AsyncIterator[tuple[Liar, Peer]]:
    liar = Liar(answer, drip_s=drip_s)
    tls = context(ssl.Purpose.CLIENT_AUTH, papers(ca, "fra-a"))
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0, ssl=tls)
    client = context(ssl.Purpose.SERVER_AUTH, papers(ca, "ber-a"))
    peer = Peer("fra-a", ("127.0.0.1", server.sockets[0].getsockname()[1]), client, threading.Event())
    async with server:
        yield liar, peer
        peer.close()


def _ok(
    body: bytes = b"x" * 100, span: str = "bytes 0-99/100", more: str = "", status: str = "206 x"
) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Range: {span}\r\nContent-Length: 100\r\n{more}\r\n".encode() + body


@pytest.mark.parametrize(
    ("sentence", "answer", "match", "lasting"),
    [
        ("the whole for a range", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 100, "with 200", True),
        ("another range", _ok(span="bytes 1-100/101"), "bytes 1-100", True),
        ("a blob of another size", _ok(span="bytes 0-99/200"), "0-99/200", True),
        ("no Content-Range", b"HTTP/1.1 206 x\r\nContent-Length: 100\r\n\r\n" + b"x" * 100, "sent ''", True),
        ("no length", b"HTTP/1.1 206 x\r\nContent-Range: bytes 0-99/100\r\n\r\n" + b"x" * 100, "promises None", True),
        ("chunked", _ok(more="Transfer-Encoding: chunked\r\n"), "promises None", True),
        ("a body that is cut", _ok(b"x" * 50, more="X: cut\r\n"), "50 bytes", False),
        ("busy", b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", "with 503", False),
        ("gone", b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n", "with 404", True),
        ("a redirect", b"HTTP/1.1 302 x\r\nLocation: http://198.51.100.9/\r\nContent-Length: 0\r\n\r\n", "with 302", True),
        ("no HTTP", b"SSH-2.0-x\r\n\r\n", "could not", False),
        ("a head without end", b"HTTP/1.1 206 x\r\n" + b"X: y\r\n" * 10_000, "could not", False),
    ],
)  # fmt: skip
async def test_what_does_not_come_as_asked_is_refused(
    ca: Ca, sentence: str, answer: bytes, match: str, lasting: bool
) -> None:
    async with lying(ca, answer) as (_, peer), asyncio.timeout(5):
        with pytest.raises(PeerError, match=match) as caught:
            await asyncio.to_thread(lambda: list(peer.range("blobs/x", 0, 100, object_bytes=100)))
        assert caught.value.lasting is lasting, sentence
        assert caught.value.reason is Reason.LINK_LOST
        assert peer._idle == [], sentence


async def test_a_small_object_is_bounded_in_bytes_and_time(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    async with lying(ca, head % 1000 + b"x" * 1000) as (_, peer):
        with pytest.raises(PeerError, match="exceeds 999"):
            await asyncio.to_thread(peer.small, "manifests/x.json", 999)
        assert await asyncio.to_thread(peer.small, "manifests/x.json", 1000) == b"x" * 1000
    monkeypatch.setattr("edge.weights.peersource.SMALL_WITHIN_S", 0.5)
    for sentence, answer in (("a head that drips", _ok() * 9), ("a body that drips", head % 99 + b"x" * 99)):
        async with lying(ca, answer, drip_s=0.02) as (_, peer), asyncio.timeout(3):
            with pytest.raises(PeerError, match="drips"):
                await asyncio.to_thread(peer.small, "manifests/x.json", 1000)
        assert sentence


async def test_a_kept_connection_that_died_is_replaced_unseen(ca: Ca) -> None:
    async with lying(ca, _ok(more="X: cut\r\n")) as (liar, peer):
        for _ in range(3):
            parts = await asyncio.to_thread(
                lambda: [bytes(p) for p in peer.range("x", 0, 100, object_bytes=100)]
            )
            assert b"".join(parts) == b"x" * 100
        assert (liar.requests, liar.connections) == (3, 3)


# --- several sources of one blob


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store", "n")
    made.open()
    yield made
    made.close(clean=True)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path / "origin")


@pytest.fixture
async def origin(bucket: Bucket) -> AsyncIterator[Served]:
    async with serving(bucket) as served:
        yield served


async def fetch(
    file: BlobFile,
    store: Store,
    feeds: dict[Site, Ranges],
    choice: Choice | None = None,
    limits: Limits = LIMITS,
) -> Meter:
    meter = Meter()
    await asyncio.to_thread(
        fetch_blob, file, store, feeds, choice or Choice(), limits, meter, threading.Event()
    )
    assert content_digest(store.blob_path(file.blake3)) == file.blake3
    return meter


def from_origin(origin: Served) -> Origin:
    return Origin(origin.url, request_timeout_ms=20_000, stop=threading.Event())


async def test_what_the_region_has_does_not_come_from_the_origin(
    fra: Running, bucket: Bucket, origin: Served, store: Store
) -> None:
    blob = bucket.publish(size_bytes=16 * CHUNK + 5, chunk_bytes=CHUNK).weights
    fra.shelf.put((bucket.root / "blobs" / blob.blake3).read_bytes())
    choice = Choice()
    meter = await fetch(blob, store, {NEAR: fra.peer, ORIGIN: from_origin(origin)}, choice)
    assert meter.moved.by == {Kind.REGION: blob.size_bytes, Kind.FAR: 0, Kind.ORIGIN: 0}
    assert origin.requests == 0
    assert choice.rate(Kind.REGION) > 0.0
    assert choice.rate(Kind.ORIGIN) == 0.0


async def test_a_source_with_wrong_bytes_costs_its_chunks_once_and_is_asked_last_from_then_on(
    fra: Running, bucket: Bucket, origin: Served, store: Store
) -> None:
    blob = bucket.publish(size_bytes=16 * CHUNK, chunk_bytes=CHUNK).weights
    digest = fra.shelf.put((bucket.root / "blobs" / blob.blake3).read_bytes())
    path = fra.shelf.root / "blobs" / digest
    path.write_bytes(os.urandom(16 * CHUNK))
    limits = LIMITS._replace(parallel=1)
    meter = await fetch(blob, store, {NEAR: fra.peer, ORIGIN: from_origin(origin)}, limits=limits)
    assert meter.moved.by == {Kind.REGION: CHUNK, Kind.FAR: 0, Kind.ORIGIN: 16 * CHUNK}


async def test_a_source_that_dies_in_mid_fetch_loses_nothing(
    tmp_path: Path, ca: Ca, bucket: Bucket, origin: Served, store: Store
) -> None:
    blob = bucket.publish(size_bytes=64 * CHUNK, chunk_bytes=CHUNK).weights
    async with blob_server(tmp_path, ca) as fra:
        fra.shelf.put((bucket.root / "blobs" / blob.blake3).read_bytes())
        async with asyncio.TaskGroup() as group:
            work = group.create_task(fetch(blob, store, {NEAR: fra.peer, ORIGIN: from_origin(origin)}))
            await wait_until(lambda: fra.server.served_bytes >= 4 * CHUNK, every_s=0.001)
            await asyncio.to_thread(fra.server.stop)
    moved = work.result().moved
    assert moved.by[Kind.REGION] >= 4 * CHUNK
    assert moved.total_bytes <= blob.size_bytes + LIMITS.parallel * CHUNK


async def test_a_drip_is_left_for_another_source(
    ca: Ca, bucket: Bucket, origin: Served, store: Store
) -> None:
    blob = bucket.publish(size_bytes=4 * CHUNK, chunk_bytes=CHUNK).weights
    head = f"HTTP/1.1 206 x\r\nContent-Range: bytes 0-{CHUNK - 1}/{blob.size_bytes}\r\nContent-Length: {CHUNK}\r\n\r\n"
    async with lying(ca, head.encode() + b"x" * CHUNK, drip_s=0.001) as (liar, peer), asyncio.timeout(10):
        limits = LIMITS._replace(parallel=1)
        meter = await fetch(blob, store, {NEAR: peer, ORIGIN: from_origin(origin)}, limits=limits)
        assert liar.requests == 1
        assert 0 < meter.moved.by[Kind.REGION] < CHUNK
        assert meter.moved.by[Kind.ORIGIN] == blob.size_bytes


async def test_two_holders_share_the_work(
    tmp_path: Path, ca: Ca, bucket: Bucket, origin: Served, store: Store
) -> None:
    blob = bucket.publish(size_bytes=32 * CHUNK, chunk_bytes=CHUNK).weights
    content = (bucket.root / "blobs" / blob.blake3).read_bytes()
    (tmp_path / "other").mkdir()
    async with blob_server(tmp_path, ca) as fra, blob_server(tmp_path / "other", ca, "ams-a") as ams:
        for one in (fra, ams):
            one.shelf.put(content)
        other = Peer("ams-a", ("127.0.0.1", ams.port), fra.tls, fra.stop)
        await fetch(blob, store, {NEAR: fra.peer, OTHER: other, ORIGIN: from_origin(origin)})
        other.close()
        assert min(fra.server.served_bytes, ams.server.served_bytes) >= 4 * CHUNK
        assert fra.server.served_bytes + ams.server.served_bytes == blob.size_bytes


async def test_when_all_fail_the_origins_error_is_told(
    ca: Ca, bucket: Bucket, origin: Served, store: Store
) -> None:
    blob = blob_file("weights", os.urandom(CHUNK), chunk_bytes=CHUNK)
    async with lying(ca, b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n") as (liar, peer):
        feeds: dict[Site, Ranges] = {NEAR: peer, ORIGIN: from_origin(origin)}
        with pytest.raises(EdgeError, match="not in the origin") as caught:
            await fetch(blob, store, feeds)
        assert caught.value.reason is Reason.ORIGIN_DOWN
        # A node that does not have it is not asked again.
        assert liar.requests == 1
        (bucket.root / "blobs" / blob.blake3).write_bytes(os.urandom(CHUNK))
        with pytest.raises(CorruptError, match="chunk 0 of origin"):
            await fetch(blob, store, feeds)
