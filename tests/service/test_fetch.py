"""One blob from a real HTTP origin to a real disk: honest, faulty, interrupted."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge.errors import EdgeError, Reason
from edge.weights.fetch import Choice, CorruptError, Limits, Meter, fetch_blob
from edge.weights.layout import blob_key, ingest_key
from edge.weights.manifest import BlobFile, digest
from edge.weights.origin import Origin
from edge.weights.sources import ORIGIN
from edge.weights.store import Store
from tests.support.blobs import Bucket, Served, blob_file, content_digest
from tests.support.wait import wait_until

CHUNK = 1 << 18
LIMITS = Limits(parallel=4, min_bytes_per_s=65_536, watch_ms=600)
#: On a busy machine even a refusal takes a while.
PATIENT = Limits(parallel=4, min_bytes_per_s=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", "n")
    store.open()
    yield store
    store.close(clean=True)


async def fetch(
    file: BlobFile,
    store: Store,
    url: str,
    *,
    limits: Limits = LIMITS,
    stop: threading.Event | None = None,
    timeout_ms: int = 20_000,
) -> int:
    """Bytes moved."""
    meter, stop = Meter(), stop or threading.Event()
    source = Origin(url, request_timeout_ms=timeout_ms, stop=stop)
    await asyncio.to_thread(fetch_blob, file, store, {ORIGIN: source}, Choice(), limits, meter, stop)
    return meter.moved_bytes


@pytest.mark.parametrize("size_bytes", [1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 17])
async def test_a_blob_arrives_whole_read_only_and_under_its_name(
    bucket: Bucket, origin: Served, store: Store, size_bytes: int
) -> None:
    blob = bucket.publish(size_bytes=size_bytes, chunk_bytes=CHUNK).weights
    assert await fetch(blob, store, origin.url) == size_bytes
    path = store.blob_path(blob.blake3)
    assert content_digest(path) == blob.blake3
    assert path.stat().st_mode & 0o7777 == 0o444
    assert path.stat().st_nlink == 1
    assert not (store.root / ingest_key(blob.blake3)).exists()


async def test_a_file_origin_serves_too(bucket: Bucket, store: Store) -> None:
    blob = bucket.publish(size_bytes=3 * CHUNK + 5, chunk_bytes=CHUNK).weights
    assert await fetch(blob, store, f"file://{bucket.root}") == blob.size_bytes
    assert content_digest(store.blob_path(blob.blake3)) == blob.blake3


async def test_one_bad_chunk_is_fetched_again_and_nothing_else(
    bucket: Bucket, origin: Served, store: Store
) -> None:
    blob = bucket.publish(size_bytes=4 * CHUNK, chunk_bytes=CHUNK).weights
    origin.fail("corrupt", path_prefix="blobs/", count=2)
    assert await fetch(blob, store, origin.url) == blob.size_bytes + 2 * CHUNK
    assert content_digest(store.blob_path(blob.blake3)) == blob.blake3


async def test_a_corrupt_source_is_refused_after_three_times_and_good_chunks_stay(
    bucket: Bucket, origin: Served, store: Store
) -> None:
    blob = bucket.publish(size_bytes=4 * CHUNK, chunk_bytes=CHUNK).weights
    bucket.spoil(blob, at=3 * CHUNK + 7)
    one_at_a_time = LIMITS._replace(parallel=1)
    with pytest.raises(CorruptError, match="chunk 3") as caught:
        await fetch(blob, store, origin.url, limits=one_at_a_time)
    assert caught.value.status == 503
    assert origin.requests == 3 + 3
    assert not store.blob_path(blob.blake3).exists()
    bucket.spoil(blob, at=3 * CHUNK + 7)
    assert await fetch(blob, store, origin.url) == CHUNK


async def test_right_chunks_of_a_wrong_whole_are_refused(
    bucket: Bucket, origin: Served, store: Store
) -> None:
    content = os.urandom(2 * CHUNK)
    honest = blob_file("weights", content, chunk_bytes=CHUNK)
    lie = BlobFile(
        role="weights",
        name="weights",
        size_bytes=honest.size_bytes,
        blake3=digest(b"something else"),
        sha256=honest.sha256,
        chunks=honest.chunks,
        chunk_bytes=CHUNK,
    )
    (bucket.root / "blobs" / lie.blake3).write_bytes(content)
    with pytest.raises(CorruptError, match="the whole is not") as caught:
        await fetch(lie, store, origin.url)
    assert caught.value.index is None
    assert not store.blob_path(lie.blake3).exists()


@pytest.mark.parametrize(
    ("sentence", "fault", "text"),
    [
        ("a server that fails", {"kind": "5xx"}, "503"),
        ("a body that is cut", {"kind": "cut"}, "body"),
        ("a whole object for a Range", {"kind": "200-to-range"}, "whole object"),
        ("a drip", {"kind": "drip", "drip_bps": 5_000}, "too slowly"),
        ("a stall", {"kind": "stall"}, "too slowly"),
    ],
)
async def test_an_origin_that_does_not_deliver_is_down(
    bucket: Bucket, origin: Served, store: Store, sentence: str, fault: dict[str, object], text: str
) -> None:
    blob = bucket.publish(size_bytes=4 * CHUNK, chunk_bytes=CHUNK).weights
    origin.fail(**fault)  # type: ignore[arg-type] # the table above
    with pytest.raises(EdgeError, match=text) as caught:
        await fetch(blob, store, origin.url, limits=LIMITS if text == "too slowly" else PATIENT)
    assert caught.value.reason is Reason.ORIGIN_DOWN, sentence
    assert (caught.value.status, caught.value.retryable, caught.value.retry_after_s) == (503, True, 2)
    assert not store.blob_path(blob.blake3).exists()
    origin.behave()
    await fetch(blob, store, origin.url, limits=PATIENT)
    assert content_digest(store.blob_path(blob.blake3)) == blob.blake3


@pytest.mark.parametrize("kind", ["5xx", "cut", "stall", "200-to-range"])
async def test_a_fault_that_passes_is_survived(
    bucket: Bucket, origin: Served, store: Store, kind: str
) -> None:
    blob = bucket.publish(size_bytes=4 * CHUNK, chunk_bytes=CHUNK).weights
    origin.fail(kind, count=2)
    await fetch(blob, store, origin.url, limits=LIMITS._replace(watch_ms=20_000))
    assert content_digest(store.blob_path(blob.blake3)) == blob.blake3


async def test_a_missing_or_resized_object_and_no_listener_are_origin_down(
    bucket: Bucket, origin: Served, store: Store
) -> None:
    blob = bucket.publish(size_bytes=2 * CHUNK, chunk_bytes=CHUNK).weights
    path = bucket.root / "blobs" / blob.blake3
    content = path.read_bytes()
    path.write_bytes(content + b"more")
    with pytest.raises(EdgeError, match=f"has {2 * CHUNK + 4} bytes") as caught:
        await fetch(blob, store, origin.url)
    assert caught.value.reason is Reason.ORIGIN_DOWN
    path.unlink()
    with pytest.raises(EdgeError, match="is not in the origin") as caught:
        await fetch(blob, store, origin.url)
    assert caught.value.reason is Reason.ORIGIN_DOWN
    with pytest.raises(EdgeError, match="could not be fetched") as caught:
        await fetch(blob, store, "http://127.0.0.1:1/")
    assert caught.value.reason is Reason.ORIGIN_DOWN


async def test_a_stop_ends_a_fetch_soon(bucket: Bucket, origin: Served, store: Store) -> None:
    blob = bucket.publish(size_bytes=8 * CHUNK, chunk_bytes=CHUNK).weights
    origin.fail("drip", drip_bps=20_000)
    stop = threading.Event()
    slow = Limits(parallel=4, min_bytes_per_s=1)
    async with asyncio.timeout(3.0), asyncio.TaskGroup() as group:
        work = group.create_task(_failure(fetch(blob, store, origin.url, limits=slow, stop=stop)))
        await wait_until(lambda: origin.requests >= 4)
        stop.set()
        assert "the node stops" in (await work).message


async def _failure(work) -> EdgeError:  # type: ignore[no-untyped-def]
    with pytest.raises(EdgeError) as caught:
        await work
    return caught.value


_KILLED = """
import sys, threading
from pathlib import Path
import msgspec
from edge.weights.fetch import Choice, Limits, Meter, fetch_blob
from edge.weights.manifest import BlobFile
from edge.weights.origin import Origin
from edge.weights.sources import ORIGIN
from edge.weights.store import Store
store = Store(Path(sys.argv[1]), "n")
store.open()
stop = threading.Event()
origin = Origin(sys.argv[2], request_timeout_ms=60_000, stop=stop)
file = msgspec.json.decode(sys.argv[3], type=BlobFile)
fetch_blob(file, store, {ORIGIN: origin}, Choice(), Limits(2, 1), Meter(), stop)
"""


async def test_after_kill_9_only_what_is_missing_is_fetched(
    bucket: Bucket, origin: Served, tmp_path: Path
) -> None:
    blob = bucket.publish(size_bytes=16 * CHUNK, chunk_bytes=CHUNK).weights
    root = tmp_path / "killed"
    origin.fail("drip", drip_bps=2_000_000)
    with subprocess.Popen(  # noqa: ASYNC220 -- started once; nobody else waits in this loop
        [sys.executable, "-c", _KILLED, str(root), origin.url, msgspec.json.encode(blob)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        try:
            journal = root / ingest_key(blob.blake3) / "journal"
            await wait_until(
                lambda: journal.exists() and sum(byte.bit_count() for byte in journal.read_bytes()[24:]) >= 6
            )
        finally:
            process.kill()
    origin.behave()
    claimed = sum(byte.bit_count() for byte in journal.read_bytes()[24:])
    assert 6 <= claimed < 16
    # One chunk that the journal claims is damaged meanwhile: it is fetched again, the others are not.
    index = next(i for i in range(16) if journal.read_bytes()[24 + i // 8] >> i % 8 & 1)
    with (journal.parent / "data").open("r+b") as data:
        data.seek(index * CHUNK + 100)
        byte = data.read(1)
        data.seek(index * CHUNK + 100)
        data.write(bytes([byte[0] ^ 1]))
    store = Store(root, "n")
    found = store.open()
    try:
        assert not found.clean
        assert found.sizes[ingest_key(blob.blake3)] > blob.size_bytes
        before = origin.sent_bytes
        moved = await fetch(blob, store, origin.url)
        assert moved == origin.sent_bytes - before == (16 - claimed + 1) * CHUNK
        assert content_digest(store.blob_path(blob.blake3)) == blob.blake3
        assert store.size_bytes(blob_key(blob.blake3)) == blob.size_bytes
    finally:
        store.close(clean=True)
