"""What an operator asks of a weight store: read it again, let go of what nobody needs, tell how far it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.errors import EdgeError, Reason
from edge.wire import calls
from tests.support.blobs import Bucket, Served, content_digest
from tests.support.objects import put_object
from tests.support.wait import wait_until

CHUNK = 1 << 16
MIB = 1 << 20
Start = Callable[..., Any]


def spoil(path: Path) -> None:
    """Another byte in the same place; nobody would notice by size or name."""
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)


async def test_a_good_model_is_read_and_nothing_moves(bucket: Bucket, start: Start) -> None:
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    node = await start()
    with pytest.raises(EdgeError, match="pull it first") as caught:
        await node.call(calls.Verify(model.digest))
    assert caught.value.reason is Reason.UNKNOWN_MODEL
    await node.ensure(model)
    told, _ = await node.call(calls.Verify(model.digest))
    assert told == calls.Verified(2, model.manifest.size_bytes)


async def test_a_bad_blob_is_set_aside_and_fetched_again(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    bad = model.weights.blake3
    node = await start()
    await node.ensure(model)
    await node.release(model)
    blob = node.store / "blobs" / bad
    spoil(blob)
    told, _ = await node.call(calls.Verify(model.digest))
    assert told == calls.Verified(2, model.manifest.size_bytes, (bad,), MIB)
    assert content_digest(blob) == bad
    assert [path.name for path in (node.store / "quarantine").iterdir()] == [bad]
    spoil(blob)
    origin.fail("5xx", path_prefix="blobs/")
    told, _ = await node.call(calls.Verify(model.digest))
    assert (told.bad, told.moved_bytes, bad in told.problem) == ((bad,), 0, True)
    assert bad not in node.blobs(), "bad bytes are never left under their name"


async def test_one_blob_after_another_is_read_when_asked_for_so(bucket: Bucket, start: Start) -> None:
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    first, second = model.manifest.files
    node = await start()
    await node.ensure(model)
    spoil(node.store / "blobs" / second.blake3)
    told = [(await node.call(calls.Verify(model.digest, blob=number)))[0] for number in range(3)]
    assert told == [
        calls.Verified(1, first.size_bytes, rest=1),
        calls.Verified(1, second.size_bytes, (second.blake3,), second.size_bytes),
        calls.Verified(0, 0),
    ]


async def test_damage_that_is_not_mended_in_time_is_told_all_the_same(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    bad = model.weights.blake3
    node = await start(min_bytes_per_s=1_000)
    await node.ensure(model)
    spoil(node.store / "blobs" / bad)
    origin.fail("drip", path_prefix="blobs/", drip_bps=50_000)
    told, _ = await node.call(calls.Verify(model.digest, 1_500))
    assert (told.bad, "was not read and mended within 2 s; 2 of its blobs were read" in told.problem) == (
        (bad,),
        True,
    )
    origin.behave()


async def test_what_the_catalogue_forgot_goes_and_what_is_pinned_or_held_stays(
    bucket: Bucket, start: Start
) -> None:
    served, old, pinned, held = models = [
        bucket.publish(name, size_bytes=100_000, graph=name.encode())
        for name in ("served", "old", "pinned", "held")
    ]
    node = await start()
    for model in models:
        await node.ensure(model)
        if model is not held:
            await node.release(model)
    with pytest.raises(EdgeError, match="no catalogue") as caught:
        await node.call(calls.Collect())
    assert caught.value.reason is Reason.NO_CATALOGUE
    await node.call(calls.Pin(pinned.digest))
    bucket.catalogue(1, [served])

    async def is_told() -> bool:
        return bool((await node.call(calls.Catalogue()))[0].digest)

    await wait_until(is_told)
    would, _ = await node.call(calls.Collect(dry_run=True))
    assert len(node.blobs()) == 8, "a dry run removes nothing"
    before = node.on_disk()
    done, _ = await node.call(calls.Collect())
    assert done == would
    assert (done.blobs, done.manifests, done.busy) == (2, 1, 3)
    assert before - node.on_disk() == done.bytes == old.manifest.size_bytes + len(old.raw)
    assert node.blobs() == {f.blake3 for one in (served, pinned, held) for f in one.manifest.files}
    assert (await node.state()).disk_used_bytes == node.on_disk()
    await node.release(held)
    again, _ = await node.call(calls.Collect())
    assert (again.blobs, again.manifests, again.busy) == (2, 1, 0)


async def test_what_requests_name_stays_and_what_nobody_named_leaves_the_book_of_objects(
    bucket: Bucket, start: Start
) -> None:
    bucket.catalogue(1, [])
    used = put_object(bucket.root, "used", b"u" * 50_000)
    node = await start()
    old = node.store / "blobs" / content_digest(bucket.root / "blobs" / used.blake3)

    async def is_told() -> bool:
        return bool((await node.call(calls.Catalogue()))[0].digest)

    await wait_until(is_told)
    named, _ = await node.call(calls.EnsureObjects(("used",), MIB, 10_000))
    await node.call(calls.ReleaseObjects((named.objects[0].digest,)))
    done, _ = await node.call(calls.Collect())
    assert (done.blobs, done.busy, old.exists()) == (0, 0, True)
    assert (await node.state()).objects_bytes == 50_000
    assert await node.stop() == 0
    # Of this run nobody named it.
    node = await start()
    assert (await node.state()).objects_bytes == 50_000
    done, _ = await node.call(calls.Collect())
    assert (done.blobs, done.bytes, old.exists()) == (1, 50_000, False)
    assert (await node.state()).objects_bytes == 0


async def test_a_fetch_tells_how_far_it_is(bucket: Bucket, origin: Served, start: Start) -> None:
    model = bucket.publish(size_bytes=2 * MIB, chunk_bytes=CHUNK)
    node = await start(min_bytes_per_s=1_000)
    origin.fail("drip", path_prefix=f"blobs/{model.weights.blake3}", drip_bps=100_000)
    link = await node.connect()
    _, reply = link.submit(calls.Ensure(model.digest), timeout_s=60)
    seen: list[calls.Fetching] = []

    async def half_way() -> bool:
        told = (await node.state()).fetching
        assert told == [] or (await node.call(calls.Inventory()))[0].fetching != []
        seen.extend(told)
        return bool(told) and told[0].done_bytes > 300_000 and told[0].bytes_per_s > 0

    await wait_until(half_way, within_s=20)
    origin.behave()
    last = seen[-1]
    assert (last.digest, last.total_bytes) == (model.digest, model.manifest.size_bytes)
    assert 0 < last.sources["origin"] <= last.done_bytes
    assert [one.done_bytes for one in seen] == sorted(one.done_bytes for one in seen)
    link.close()
    reply.cancel()
