"""A disk that is full at each step of the store: who asked is told, nothing is half there, the rest goes on."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.errors import EdgeError, Reason
from edge.wire import calls
from tests.support import region
from tests.support.blobs import Bucket, Published, Served, content_digest
from tests.support.fulldisk import FullDisk
from tests.support.wait import wait_until
from tests.support.weights import Running

CHUNK = 1 << 16
Start = Callable[..., Any]


@pytest.fixture
def disk(tmp_path: Path) -> FullDisk:
    return FullDisk(tmp_path)


@pytest.fixture(autouse=True)
def _asks_for_room(disk: FullDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process of these tests."""
    monkeypatch.setattr(region, "PROGRAM", disk.program)


def model(bucket: Bucket, name: str, chunks: int = 4) -> Published:
    return bucket.publish(name, size_bytes=chunks * CHUNK, chunk_bytes=CHUNK, graph=name.encode())


async def books_are_right(node: Running) -> bool:
    return (await node.state()).disk_used_bytes == node.on_disk()


#: A step of a blob's way in, the call that fails, where, after how many, what the error says beside the blob.
ON_ITS_WAY = [
    ("its directory", "mkdir", "ingest/{}", 0, "begin blob"),
    ("its data file", "open", "ingest/{}/data", 0, "begin blob"),
    ("its journal", "open", "ingest/{}/journal", 0, "begin blob"),
    ("its room", "fallocate", "ingest/{}/data", 0, "allocate 262144 bytes for blob"),
    ("the journal's first bytes", "pwrite", "ingest/{}/journal", 0, "allocate 262144 bytes for blob"),
    ("a chunk", "pwrite", "ingest/{}/data", 2, "write chunk "),
    ("the note of a chunk", "pwrite", "ingest/{}/journal", 2, "note chunk "),
    ("its last mode", "chmod", "ingest/{}/data", 0, "seal blob"),
    ("its name", "rename", "blobs/{}", 0, "commit blob"),
]


async def test_a_blob_that_finds_no_room_on_its_way_is_named_and_comes_once_there_is(
    bucket: Bucket, start: Start, disk: FullDisk
) -> None:
    node = await start()
    held = model(bucket, "held")
    await node.ensure(held)
    links = [await node.connect() for _ in range(2)]
    for number, (step, call, where, after, says) in enumerate(ON_ITS_WAY):
        victim, other = model(bucket, f"victim{number}"), model(bucket, f"other{number}")
        blob = victim.weights.blake3
        disk.fill(call, where.format(blob), after)
        error, beside = await asyncio.gather(node.refused(victim, links[0]), node.ensure(other, links[1]))
        assert (error.reason, error.retryable) == (Reason.NO_SPACE, True), f"{step}: {error.message}"
        for word in (f"victim{number} version 1", "the disk is full", says, blob, "(weights)"):
            assert word in error.message, f"{step}: {error.message}"
        assert blob not in node.blobs(), step
        assert beside.residency == "origin", f"{step}: a neighbour"
        assert (await node.ensure(held)).residency == "host", f"{step}: who was there before"
        assert await books_are_right(node), step
        disk.free()
        await node.ensure(victim)
        assert content_digest(node.store / "blobs" / blob) == blob, step
        assert await books_are_right(node), step
    assert not list((node.store / "ingest").iterdir())
    assert not list((node.store / "quarantine").iterdir())
    assert await node.stop() == 0


@pytest.mark.parametrize(("call", "where"), [("fdatasync", "blobs/{}"), ("fsync", "/blobs$")])
async def test_a_blob_that_can_t_be_made_durable_serves_and_is_fetched_again(
    bucket: Bucket, start: Start, disk: FullDisk, call: str, where: str
) -> None:
    victim = model(bucket, "victim")
    blob = victim.weights.blake3
    node = await start()
    disk.fill(call, where.format(blob))
    assert (await node.ensure(victim)).residency == "origin", "who waits does not wait for the disk"
    await wait_until(lambda: blob not in node.blobs())
    await wait_until(lambda: books_are_right(node))
    await node.release(victim)
    disk.free()
    assert (await node.ensure(victim)).residency == "origin"
    assert content_digest(node.store / "blobs" / blob) == blob
    assert await books_are_right(node)


@pytest.mark.parametrize("call", ["open", "fsync", "rename"])
async def test_bad_bytes_that_can_t_be_kept_are_called_bad_all_the_same(
    bucket: Bucket, start: Start, disk: FullDisk, call: str
) -> None:
    victim = model(bucket, "victim")
    bucket.spoil(victim.weights, at=2 * CHUNK)
    node = await start()
    disk.fill(call, "quarantine/")
    error = await node.refused(victim)
    assert error.reason is Reason.BLOB_CORRUPT
    for word in ("victim version 1", "chunk 2", victim.weights.blake3, "(weights)"):
        assert word in error.message, error.message
    assert not list((node.store / "quarantine").iterdir())
    assert victim.weights.blake3 not in node.blobs()
    assert await books_are_right(node)


async def test_a_whole_that_lies_and_can_t_be_set_aside_is_called_a_lie(
    bucket: Bucket, start: Start, disk: FullDisk
) -> None:
    good, other = model(bucket, "good"), model(bucket, "other")
    (bucket.root / "blobs" / good.weights.blake3).write_bytes(
        (bucket.root / "blobs" / other.weights.blake3).read_bytes()
    )
    claims = msgspec.structs.replace(other.weights, blake3=good.weights.blake3)
    liar = bucket.publish_manifest("liar", (other.manifest.files[0], claims))
    node = await start()
    disk.fill("rename", "quarantine/")
    error = await node.refused(liar)
    assert error.reason is Reason.BLOB_CORRUPT
    for word in ("liar version 1", good.weights.blake3, "the whole is not"):
        assert word in error.message, error.message
    assert good.weights.blake3 not in node.blobs()
    assert await books_are_right(node)


async def test_a_blob_that_rotted_and_can_t_be_set_aside_serves_nobody(
    bucket: Bucket, start: Start, disk: FullDisk
) -> None:
    victim = model(bucket, "victim")
    blob = victim.weights.blake3
    node = await start()
    await node.ensure(victim)
    assert await node.stop() == 0
    path = node.store / "blobs" / blob
    path.chmod(0o644)
    path.write_bytes(b"x" * victim.weights.size_bytes)
    disk.fill("rename", "quarantine/")
    node = await start()
    error = await node.refused(victim)
    assert error.reason is Reason.NO_SPACE
    for word in ("victim version 1", "the disk is full", f"set blobs/{blob} aside"):
        assert word in error.message, error.message
    assert await books_are_right(node)
    disk.free()
    assert (await node.ensure(victim)).residency == "origin"
    assert content_digest(path) == blob
    assert await books_are_right(node)


#: A blob's times tell nothing of what its disk does to it.
ROT = "from edge.weights import store\nstore.seals_in = lambda _, digests: dict.fromkeys(digests, 1)\n"


async def test_what_was_found_bad_and_can_t_be_set_aside_is_not_trusted_again(
    bucket: Bucket, start: Start, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region, "PROGRAM", ROT + disk.program)
    victim = model(bucket, "victim")
    path = Path("blobs") / victim.weights.blake3
    node = await start()
    await node.ensure(victim)
    (node.store / path).chmod(0o644)
    (node.store / path).write_bytes(b"x" * victim.weights.size_bytes)
    disk.fill("rename", "quarantine/")
    with pytest.raises(EdgeError, match=f"set {path} aside"):
        await node.call(calls.Verify(victim.digest))
    assert (await node.refused(victim)).reason is Reason.NO_SPACE
    disk.free()
    assert (await node.ensure(victim)).moved_bytes == victim.weights.size_bytes
    assert content_digest(node.store / path) == path.name


@pytest.mark.parametrize("call", ["open", "fsync", "rename"])
async def test_small_files_that_find_no_room_cost_nobody_an_answer(
    bucket: Bucket, origin: Served, start: Start, disk: FullDisk, call: str
) -> None:
    first, second = model(bucket, "first"), model(bucket, "second")
    bucket.catalogue(1, [first])
    node = await start()
    catalogue = node.store / "catalog.json"
    await wait_until(catalogue.exists)
    await node.ensure(first)
    await node.call(calls.Pin(first.digest))
    before = catalogue.read_bytes(), (node.store / "pins.json").read_bytes()

    disk.fill(call, "manifests/")
    assert (await node.ensure(second)).residency == "origin", "its manifest is not kept, its blobs are"
    assert not (node.store / "manifests" / f"{second.digest}.json").exists()

    disk.fill(call, r"pins\.json")
    for act in (calls.Pin(second.digest), calls.Pin(first.digest, pinned=False)):
        with pytest.raises(EdgeError, match=r"the disk is full: can't write pins\.json") as caught:
            await node.call(act)
        assert caught.value.reason is Reason.NO_SPACE

    disk.fill(call, r"catalog\.json")
    bucket.catalogue(2, [first, second])

    async def believes(epoch: int) -> bool:
        state, _ = await node.call(calls.Catalogue())
        return state.epoch == epoch

    await wait_until(lambda: believes(2))
    assert (catalogue.read_bytes(), (node.store / "pins.json").read_bytes()) == before
    assert not list(node.store.rglob("*.tmp"))
    assert await books_are_right(node)

    disk.free()
    await wait_until(lambda: catalogue.read_bytes() == (bucket.root / "catalog.json").read_bytes())
    await node.call(calls.Pin(second.digest))
    await node.ensure(second)
    assert {stored.model for stored in (await node.state()).models if stored.pinned} == {"first", "second"}
    await wait_until(lambda: books_are_right(node))
    disk.fill(call, r"uses\.json")
    assert await node.stop() == 0, "how often models were used is no reason to fail"
    disk.free()
    node = await start()
    assert (await node.ensure(first)).residency == "disk"


async def test_a_directory_that_can_t_be_synced_undoes_nothing_that_was_renamed(
    bucket: Bucket, start: Start, disk: FullDisk
) -> None:
    first = model(bucket, "first")
    node = await start()
    for where in ("/manifests$", "/n$"):
        disk.fill("fsync", where)
        await node.call(calls.Pin(first.digest))
    await wait_until(lambda: books_are_right(node))
    assert {stored.model for stored in (await node.state()).models if stored.pinned} == {"first"}
