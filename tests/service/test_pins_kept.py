"""Pins and floors of a real weights process whose disk can't keep all of them."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from edge.errors import EdgeError, Reason
from edge.weights.manifest import Catalogue, CatalogueModel, encode_catalogue
from edge.wire import calls
from tests.support.blobs import Bucket, Published, Served, blob_file
from tests.support.wait import wait_until
from tests.support.weights import Running

Start = Callable[..., Any]


def cached(bucket: Bucket) -> list[Published]:
    """Three of them fit at a time, beside little else."""
    return [bucket.publish(name, size_bytes=300_000, graph=name.encode()) for name in "abc"]


def in_two_halves(bucket: Bucket) -> Published:
    """A model of which each half fits on the disk, and both do not."""
    files = [blob_file("graph", b"big", chunk_bytes=1 << 18, role="graph")]
    (bucket.root / "blobs" / files[0].blake3).write_bytes(b"big")
    for name in ("w0", "w1"):
        content = os.urandom(600_000)
        file = blob_file(name, content, chunk_bytes=1 << 18)
        (bucket.root / "blobs" / file.blake3).write_bytes(content)
        files.append(file)
    return bucket.publish_manifest("big", tuple(files))


async def use(node: Running, *models: Published) -> None:
    for model in models:
        await node.ensure(model)
        await node.release(model)


async def pinned(node: Running) -> set[str]:
    return {stored.model for stored in (await node.state()).models if stored.pinned}


async def test_for_a_pin_that_can_never_fit_nothing_goes(bucket: Bucket, start: Start) -> None:
    models, big = cached(bucket), in_two_halves(bucket)
    node = await start(disk_bytes="1000000B")
    await use(node, *models)
    before = node.blobs()
    with pytest.raises(EdgeError, match=r"weights\.disk_bytes is 1000000; unpin another one") as caught:
        await node.call(calls.Pin(big.digest))
    assert (caught.value.reason, caught.value.retryable) == (Reason.NO_SPACE, False)
    assert (await pinned(node), node.blobs()) == (set(), before)
    for model in models:
        await node.call(calls.Pin(model.digest))
    fourth = bucket.publish("d", size_bytes=300_000, graph=b"d")
    with pytest.raises(EdgeError, match="1200004 bytes"):
        await node.call(calls.Pin(fourth.digest))
    assert (await pinned(node), node.blobs()) == ({"a", "b", "c"}, before)


async def test_for_a_floor_that_does_not_fit_nothing_goes_until_it_does(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    models, big = cached(bucket), in_two_halves(bucket)
    node = await start(disk_bytes="1000000B")
    await use(node, *models)
    before = node.blobs()
    kept = {"big": CatalogueModel(current="1", versions={"1": big.digest}, keep={"eu": 1})}
    (bucket.root / "catalog.json").write_bytes(encode_catalogue(Catalogue(epoch=1, models=kept)))

    async def is_tried() -> bool:
        return any(stored.kept for stored in (await node.state()).models)

    await wait_until(is_tried, within_s=10)
    blobs = origin.requests
    await use(node, *models)
    assert node.blobs() == before, "what was here serves on"
    assert origin.requests - blobs <= 50, "no byte of it is fetched"
    # The same one where it fits: it comes, and what was here may go for it.
    await node.stop()
    node = await start(disk_bytes="1500000B")
    await wait_until(lambda: {file.blake3 for file in big.manifest.files} <= node.blobs(), within_s=10)


async def test_what_is_pinned_on_a_disk_that_became_too_small_can_be_unpinned_and_pinned_again(
    bucket: Bucket, start: Start
) -> None:
    models = cached(bucket)
    node = await start(disk_bytes="1000000B")
    await use(node, *models)
    for model in models:
        await node.call(calls.Pin(model.digest))
    assert await node.stop() == 0
    node = await start(disk_bytes="700000B")
    await node.call(calls.Pin(models[1].digest))
    assert await pinned(node) == {"a", "b", "c"}
    await node.call(calls.Pin(models[0].digest, pinned=False))
    await node.call(calls.Drop(models[0].digest))
    assert await pinned(node) == {"b", "c"}
    assert (await node.state()).disk_used_bytes == node.on_disk() <= 700_000


async def test_a_pin_that_could_not_be_written_changes_nothing(bucket: Bucket, start: Start) -> None:
    (model, other, _) = cached(bucket)
    node = await start()
    await node.call(calls.Pin(model.digest))
    (node.store / "pins.json.tmp").mkdir()
    for act in (
        calls.Pin(model.digest),
        calls.Pin(other.digest),
        calls.Pin(model.digest, pinned=False),
    ):
        with pytest.raises(EdgeError, match=r"pins\.json"):
            await node.call(act)
        assert await pinned(node) == {"a"}
