"""One blob from several sources: other nodes, and an origin that counts."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edge.errors import EdgeError, Reason
from edge.policy.fetch_plan import HEDGES
from edge.weights.fetch import Choice, CorruptError, Limits, Meter, Ranges, fetch_blob
from edge.weights.manifest import BlobFile
from edge.weights.origin import Origin
from edge.weights.peersource import Peer
from edge.weights.sources import ORIGIN, Kind, Site
from edge.weights.store import Store
from netlab.ca import Ca, write_ca
from tests.support.blobs import Bucket, Served, blob_file, content_digest
from tests.support.blobserver import Running, blob_server, lying
from tests.support.wait import wait_until

CHUNK = 1 << 18
LIMITS = Limits(parallel=4, min_bytes_per_s=65_536, watch_ms=20_000)
NEAR, OTHER = Site(Kind.REGION, "fra-a"), Site(Kind.REGION, "ams-a")


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return write_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def fra(tmp_path: Path, ca: Ca) -> AsyncIterator[Running]:
    async with blob_server(tmp_path, ca) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store", "n")
    made.open()
    yield made
    made.close(clean=True)


async def fetch(
    file: BlobFile,
    store: Store,
    feeds: dict[Site, Ranges],
    choice: Choice | None = None,
    limits: Limits = LIMITS,
) -> Meter:
    meter = Meter()
    choice = choice or Choice()
    try:
        await asyncio.to_thread(fetch_blob, file, store, feeds, choice, limits, meter, threading.Event())
    finally:
        await asyncio.to_thread(choice.close)
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
        assert min(fra.server.served_bytes, ams.server.served_bytes) >= CHUNK
        # On a busy machine the last ones may look late, and be asked for twice.
        served = fra.server.served_bytes + ams.server.served_bytes
        assert blob.size_bytes <= served <= blob.size_bytes + HEDGES * CHUNK


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
