"""A blob's file that somebody removed by hand, under a node that runs: fetched again when it is needed, told of."""

import contextlib
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edge.errors import Reason
from edge.wire import calls
from tests.support.blobs import Bucket, Published, Served, content_digest
from tests.support.redis import RedisServer
from tests.support.region import Fleet
from tests.support.wait import wait_until
from tests.support.weights import Running

CHUNK = 1 << 16
MIB = 1 << 20
Start = Callable[..., Any]


async def brought(node: Running, model: Published) -> Path:
    """It lies on the disk and nobody holds it; where its weights are."""
    await node.ensure(model)
    await node.release(model)
    return node.store / "blobs" / model.weights.blake3


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[None]:
    """As a worker has it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        yield


async def has_settled(node: Running) -> bool:
    """Is all in the book that is on the disk, and nothing else?"""
    return (await node.state()).disk_used_bytes == node.on_disk()


async def test_the_next_request_fetches_it_and_the_room_is_booked_once(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    # No room for a second copy of it: the bytes of the first must have left the book.
    node = await start(disk_bytes=f"{MIB * 3 // 2}B")
    blob = await brought(node, model)
    before = origin.sent_bytes
    blob.unlink()
    told = await node.ensure(model)
    assert (told.residency, told.moved_bytes) == ("origin", MIB)
    assert origin.sent_bytes - before == MIB, "the graph is still there"
    assert content_digest(blob) == model.weights.blake3
    assert await has_settled(node)


async def test_also_while_it_is_held_for_who_holds_it_next(bucket: Bucket, start: Start) -> None:
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    node = await start()
    await node.ensure(model)
    blob = node.store / "blobs" / model.weights.blake3
    for hold in (True, False):
        blob.unlink()
        told, _ = await node.call(calls.Ensure(model.digest, 20_000, hold))
        assert (told.residency, told.moved_bytes) == ("origin", MIB)
        assert content_digest(blob) == model.weights.blake3


async def test_what_is_mapped_of_it_counts_until_it_is_let_go(bucket: Bucket, start: Start) -> None:
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    node = await start(disk_bytes=f"{MIB * 7 // 2}B")
    await node.ensure(model)
    blob = node.store / "blobs" / model.weights.blake3
    with mapped(blob):
        blob.unlink()
        assert (await node.ensure(model)).moved_bytes == MIB
        # The unlinked one lies on the disk as well, in no directory.
        assert (await node.state()).disk_used_bytes == node.on_disk() + MIB
        other = bucket.publish("other", size_bytes=2 * MIB, graph=b"other")
        error = await node.refused(other)
        assert error.reason is Reason.NO_SPACE
    assert (await node.ensure(other)).moved_bytes == other.manifest.size_bytes
    assert await has_settled(node)


async def test_verify_says_so_and_heals(bucket: Bucket, origin: Served, start: Start) -> None:
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    graph = model.manifest.files[0]
    node = await start()
    blob = await brought(node, model)
    blob.unlink()
    told, _ = await node.call(calls.Verify(model.digest))
    assert told == calls.Verified(1, graph.size_bytes, moved_bytes=MIB, removed=(blob.name,))
    assert content_digest(blob) == blob.name
    assert not list((node.store / "quarantine").iterdir())
    assert await has_settled(node)
    told, _ = await node.call(calls.Verify(model.digest))
    assert told == calls.Verified(2, model.manifest.size_bytes), "it is told once"
    blob.unlink()
    origin.fail("5xx", path_prefix="blobs/")
    told, _ = await node.call(calls.Verify(model.digest))
    assert (told.removed, told.moved_bytes, blob.name in told.problem) == ((blob.name,), 0, True)


async def test_the_region_hears_of_it_though_nobody_asks_for_it(
    bucket: Bucket, redis: RedisServer, eu: Fleet
) -> None:
    """Others would ask this node for it, and be refused. Its verify tells of it afterwards too."""
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    fra = await eu.start("fra-a")
    blob = await brought(fra, model)
    location = redis.key(f"loc:{blob.name}")
    await wait_until(lambda: redis.admin.hexists(location, "fra-a"))
    blob.chmod(0o644)
    blob.write_bytes(b"x" * MIB)
    assert (await fra.call(calls.Verify(model.digest)))[0].bad == (blob.name,)
    await wait_until(lambda: redis.admin.hexists(location, "fra-a"))
    blob.unlink()
    (fra.store / "quarantine" / blob.name).unlink()
    await wait_until(lambda: not redis.admin.exists(location), within_s=15)
    await wait_until(lambda: has_settled(fra), within_s=15)
    assert (await fra.state()).quarantined == 0, "what was set aside may be removed too"
    assert (await fra.state()).models[0].disk_bytes == model.manifest.files[0].size_bytes
    assert (await fra.call(calls.Verify(model.digest)))[0].removed == (blob.name,)
    await wait_until(lambda: redis.admin.hexists(location, "fra-a"))
