"""A blob that is still on its way in is given to others: what of it was found right, and no byte more."""

import asyncio
import json
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.weights import lending, serve
from edge.weights.ahead import Ahead
from edge.weights.disk import Disk
from edge.weights.flights import Flights
from edge.weights.layout import blob_key, ingest_key
from edge.weights.manifest import BlobFile
from edge.weights.peersource import Peer
from edge.weights.serve import BlobServer, Lender, Lent
from edge.weights.sources import NotYetError
from edge.weights.store import Store
from edge.weights.tls import context
from netlab.ca import Ca, write_ca
from tests.support.blobs import blob_file
from tests.support.region import papers
from tests.support.wait import wait_until

CHUNK = 1 << 18
CONTENT = os.urandom(4 * CHUNK + 17)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return write_ca(tmp_path_factory.mktemp("ca"))


class Giving:
    """A store whose blobs are given, and a node that asks."""

    def __init__(self, disk: Disk, peer: Peer) -> None:
        self.disk = disk
        self.peer = peer
        self.good: set[str] = set()
        self.lent: list[Lent] = []

    @property
    def store(self) -> Store:
        return self.disk.store

    def lend(self, key: str) -> Lent | None:
        lent = lending.lend(self.disk, key, self.good.__contains__)
        if lent is not None:
            self.lent.append(lent)
        return lent

    def take_back(self, lent: Lent) -> None:
        self.lent.remove(lent)
        lending.take_back(self.disk, lent)

    async def get(self, file: BlobFile, start: int, end: int) -> bytes:
        def whole() -> bytes:
            ranges = self.peer.range(f"blobs/{file.blake3}", start, end, object_bytes=file.size_bytes)
            return b"".join(bytes(part) for part in ranges)

        return await asyncio.to_thread(whole)

    async def told(self, file: BlobFile, beyond: str = "") -> dict[str, object]:
        raw = await asyncio.to_thread(self.peer.small, f"blobs/{file.blake3}/chunks{beyond}", 4096)
        told = json.loads(raw)
        assert isinstance(told, dict)
        return told


@pytest.fixture
async def fra(tmp_path: Path, ca: Ca) -> AsyncIterator[Giving]:
    pool = ThreadPoolExecutor(2)
    flights = Flights(asyncio.get_running_loop().create_task)
    disk = Disk(Store(tmp_path / "fra", "fra-a"), 1 << 30, pool, flights)
    await disk.open(lambda _: None)
    listener = socket.create_server(("127.0.0.1", 0))
    client = context(ssl.Purpose.SERVER_AUTH, papers(ca, "ber-a"))
    giving = Giving(disk, Peer("fra-a", ("127.0.0.1", listener.getsockname()[1]), client, threading.Event()))
    tls = context(ssl.Purpose.CLIENT_AUTH, papers(ca, "fra-a"))
    server = BlobServer(listener, tls, Lender(giving.lend, giving.take_back), lambda: None)
    server.start()
    try:
        yield giving
        await wait_until(lambda: not giving.lent)
    finally:
        giving.peer.close()
        await asyncio.to_thread(server.stop)
        disk.store.close(clean=True)
        pool.shutdown()


@pytest.fixture
def file() -> BlobFile:
    return blob_file("w", CONTENT, chunk_bytes=CHUNK)


def put(fra: Giving, file: BlobFile, *chunks: int) -> None:
    """These chunks came and were right."""
    ingest = fra.store.ingests[file.blake3]
    for index in chunks:
        at, end = ingest.bounds(index)
        ingest.write(at, CONTENT[at:end])
        ingest.mark(index)


async def test_of_an_unfinished_blob_what_is_right_is_given_and_the_rest_is_to_be_asked_for_again(
    fra: Giving, file: BlobFile
) -> None:
    ingest = fra.store.open_ingest(file)
    assert ingest.missing() == [0, 1, 2, 3, 4]
    put(fra, file, 1, 2, 4)
    # Written, and not yet found right.
    ingest.write(0, CONTENT[:CHUNK])
    assert await fra.get(file, CHUNK, 3 * CHUNK) == CONTENT[CHUNK : 3 * CHUNK]
    assert await fra.get(file, 4 * CHUNK, len(CONTENT)) == CONTENT[4 * CHUNK :]
    for start, end in ((0, CHUNK), (0, 1), (CHUNK, 3 * CHUNK + 1), (0, len(CONTENT))):
        with pytest.raises(NotYetError):
            await fra.get(file, start, end)
    put(fra, file, 0, 3)
    assert await fra.get(file, 0, len(CONTENT)) == CONTENT
    ingest.close()
    with pytest.raises(Exception, match="404"):
        await fra.get(file, 0, 1)


async def test_a_reader_keeps_what_it_reads_while_it_is_committed_and_nothing_lent_may_go(
    fra: Giving, file: BlobFile
) -> None:
    ingest = fra.store.open_ingest(file)
    ingest.missing()
    put(fra, file, *range(5))
    lent = fra.lend(blob_key(file.blake3))
    assert lent is not None
    assert fra.disk.ledger.pinned(ingest_key(file.blake3))
    assert fra.disk.ledger.pinned(blob_key(file.blake3))
    fra.store.commit(ingest)
    ingest.close()
    assert os.pread(lent.fd, len(CONTENT), 0) == CONTENT
    fra.take_back(lent)
    assert not fra.disk.ledger.pinned(ingest_key(file.blake3))
    assert not fra.disk.ledger.pinned(blob_key(file.blake3))


async def test_what_a_journal_claims_is_read_again_before_it_is_given(fra: Giving, file: BlobFile) -> None:
    before = fra.store.open_ingest(file)
    before.missing()
    put(fra, file, 0, 1, 2)
    before.write(CHUNK, b"x")
    before.close()
    again = fra.store.open_ingest(file)
    with pytest.raises(NotYetError):
        await fra.get(file, 0, CHUNK)
    assert again.missing() == [1, 3, 4]
    assert await fra.get(file, 0, CHUNK) == CONTENT[:CHUNK]
    with pytest.raises(NotYetError):
        await fra.get(file, CHUNK, CHUNK + 1)
    again.close()


async def test_who_asks_how_far_it_is_hears_of_the_next_chunk_at_once(fra: Giving, file: BlobFile) -> None:
    with pytest.raises(Exception, match="404"):
        await fra.told(file)
    for odd in ("?beyond=-1", "?beyond=x", "?beyond=" + "9" * 10):
        with pytest.raises(Exception, match="404"):
            await fra.told(file, odd)
    ingest = fra.store.open_ingest(file)
    ingest.missing()
    assert (await fra.told(file))["bits"] == "00"
    waits = asyncio.get_running_loop().create_task(fra.told(file, "?beyond=0"))
    await wait_until(lambda: bool(fra.lent))
    put(fra, file, 3)
    assert (await waits)["bits"] == "08"
    # Nothing more comes: it answers all the same, after a moment.
    assert (await fra.told(file, "?beyond=1"))["came_bytes"] == CHUNK
    ingest.close()
    fra.good.add(blob_key(file.blake3))
    fra.disk.ledger.put(blob_key(file.blake3), len(CONTENT), 0.0)
    assert await fra.told(file, "?beyond=1") == {"size_bytes": len(CONTENT)}


async def test_a_node_that_is_ahead_gives_what_it_has_as_it_comes(fra: Giving, file: BlobFile) -> None:
    ahead = Ahead(fra.peer, file)
    watching = asyncio.get_running_loop().create_task(asyncio.to_thread(ahead.watch))

    def read(index: int) -> bytes:
        at, end = index * CHUNK, min(len(CONTENT), (index + 1) * CHUNK)
        ranges = ahead.range(f"blobs/{file.blake3}", at, end, object_bytes=len(CONTENT))
        return b"".join(bytes(part) for part in ranges)

    assert ahead.exceeds(None), "nobody knows yet"
    await wait_until(lambda: not ahead.exceeds(None))
    with pytest.raises(NotYetError):
        await asyncio.to_thread(read, 0)
    ingest = fra.store.open_ingest(file)
    ingest.missing()
    put(fra, file, 4)
    await wait_until(lambda: ahead.exceeds(None))
    assert await asyncio.to_thread(read, 4) == CONTENT[4 * CHUNK :]
    with pytest.raises(NotYetError) as caught:
        await asyncio.to_thread(read, 3)
    assert caught.value.here_bytes == 17
    put(fra, file, 0, 1, 2, 3)
    fra.store.commit(ingest)
    ingest.close()
    # Between its last chunk and the whole it has nothing to give, and that is no failure.
    await wait_until(lambda: ahead.exceeds(None))
    with pytest.raises(NotYetError):
        await asyncio.to_thread(read, 4)
    fra.good.add(blob_key(file.blake3))
    fra.disk.ledger.put(blob_key(file.blake3), len(CONTENT), 0.0)
    await watching
    assert ahead.has_all
    assert await asyncio.to_thread(read, 0) == CONTENT[:CHUNK]


async def test_a_node_that_stopped_is_silent_and_asked_for_nothing(
    fra: Giving, file: BlobFile, ca: Ca
) -> None:
    ingest = fra.store.open_ingest(file)
    ingest.missing()
    put(fra, file, 0)
    nobody = socket.create_server(("127.0.0.1", 0))
    gone = ("127.0.0.1", nobody.getsockname()[1])
    nobody.close()
    tls = context(ssl.Purpose.SERVER_AUTH, papers(ca, "ber-a"))
    ahead = Ahead(Peer("fra-a", gone, tls, threading.Event()), file)
    watching = asyncio.get_running_loop().create_task(asyncio.to_thread(ahead.watch))
    await wait_until(lambda: not ahead.exceeds(None))
    with pytest.raises(NotYetError):
        await asyncio.to_thread(
            lambda: list(ahead.range(f"blobs/{file.blake3}", 0, 1, object_bytes=len(CONTENT)))
        )
    ahead.end()
    await watching
    ingest.close()


async def test_who_waits_to_hear_takes_no_place_from_who_reads(
    fra: Giving, file: BlobFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "MAX_REQUESTS", 1)
    ingest = fra.store.open_ingest(file)
    ingest.missing()
    put(fra, file, 0)
    waits = asyncio.get_running_loop().create_task(fra.told(file, "?beyond=1"))
    await wait_until(lambda: bool(fra.lent))
    assert await fra.get(file, 0, CHUNK) == CONTENT[:CHUNK]
    await waits
    ingest.close()
