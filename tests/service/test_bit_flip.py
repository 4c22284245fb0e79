"""A bit of a verified blob is another: whoever asks next gets the right one, and never this one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.blobs import Bucket, Published, Served, content_digest
from tests.support.region import Fleet, fleet
from tests.support.wait import wait_until
from tests.support.weights import Running

MIB = 1 << 20


@pytest.fixture
async def nodes(tmp_path: Path, origin: Served) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path, origin.url, None) as made:
        yield made


def flip(path: Path) -> None:
    """As a failing disk's firmware or a stray program does it: in place, one bit, the same size."""
    with path.open("r+b") as file:
        file.seek(4321)
        byte = file.read(1)[0]
        file.seek(4321)
        file.write(bytes([byte ^ 1]))


async def is_right(node: Running, model: Published) -> bool:
    await node.ensure(model)
    await node.release(model)
    return all(content_digest(node.store / "blobs" / f.blake3) == f.blake3 for f in model.manifest.files)


def shelved(node: Running) -> set[str]:
    return {path.name for path in (node.store / "quarantine").iterdir()}


async def test_what_was_touched_since_it_was_verified_is_verified_again(
    bucket: Bucket, origin: Served, nodes: Fleet
) -> None:
    node = await nodes.start("fra-a", index=False)
    model = bucket.publish(size_bytes=4 * MIB, chunk_bytes=MIB)
    assert await is_right(node, model)
    before = origin.sent_bytes
    assert await is_right(node, model)
    assert origin.sent_bytes == before
    flip(node.store / "blobs" / model.weights.blake3)
    assert await is_right(node, model)
    assert shelved(node) == {model.weights.blake3}
    assert origin.sent_bytes - before == model.weights.size_bytes, "the other files were left where they are"


async def test_also_while_it_was_stopped(bucket: Bucket, origin: Served, nodes: Fleet) -> None:
    node = await nodes.start("fra-a", index=False)
    model = bucket.publish(size_bytes=4 * MIB, chunk_bytes=MIB)
    assert await is_right(node, model)
    assert await node.stop() == 0
    flip(node.store / "blobs" / model.weights.blake3)
    again = await nodes.start("fra-a", index=False)
    assert await is_right(again, model)
    await wait_until(lambda: shelved(again) == {model.weights.blake3})


async def test_what_was_only_touched_is_kept(bucket: Bucket, origin: Served, nodes: Fleet) -> None:
    node = await nodes.start("fra-a", index=False)
    model = bucket.publish(size_bytes=4 * MIB, chunk_bytes=MIB)
    assert await is_right(node, model)
    before = origin.sent_bytes
    (node.store / "blobs" / model.weights.blake3).touch()
    assert await is_right(node, model)
    assert origin.sent_bytes == before
    assert shelved(node) == set()
