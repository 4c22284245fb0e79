"""A blob that rots where it lies: nobody wrote to it, nobody asks for it, and it is found all the same."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.wire import calls
from tests.support.blobs import Bucket, Served, content_digest
from tests.support.region import fleet
from tests.support.wait import wait_until
from tests.support.weights import Running

CHUNK = 1 << 16
MIB = 1 << 20
#: A pass as soon as the one before has ended, more or less.
OFTEN = {"scrub_every_s": 1, "scrub_bytes_per_s": 256 * MIB}
Start = Callable[..., Any]


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
        file.flush()
        os.fsync(file.fileno())


def shelved(node: Running) -> list[str]:
    return sorted(path.name for path in (node.store / "quarantine").iterdir())


async def scrubbed(node: Running) -> calls.Scrubbed:
    return (await node.state()).scrubbed


async def passed(node: Running, times: int = 1) -> calls.Scrubbed:
    """After so many more whole passes."""
    before = (await scrubbed(node)).passes

    async def enough() -> bool:
        return (await scrubbed(node)).passes >= before + times

    await wait_until(enough, within_s=30)
    return await scrubbed(node)


async def test_all_blobs_are_read_again_and_a_bad_one_is_set_aside(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    models = [bucket.publish(name, size_bytes=MIB + 17, chunk_bytes=CHUNK) for name in ("a", "b")]
    good, bad = models
    node = await start(**OFTEN)
    for model in models:
        await node.ensure(model)
    await node.release(bad)
    told = await passed(node, 2)
    assert (told.bad, shelved(node)) == (0, [])
    assert told.blobs >= 3, "both weights, and the graph that they share"
    assert told.bytes >= 2 * MIB
    assert told.since_pass_ms is not None
    sent = origin.sent_bytes
    flip(node.store / "blobs" / bad.weights.blake3, 3 * CHUNK + 5)
    await wait_until(lambda: shelved(node) == [bad.weights.blake3], within_s=30)
    assert (await scrubbed(node)).bad == 1
    assert origin.sent_bytes == sent, "nobody needs it now"
    assert (await node.state()).disk_used_bytes == node.on_disk()
    assert (await node.ensure(bad)).moved_bytes == bad.weights.size_bytes
    flip(node.store / "blobs" / good.weights.blake3, 0)
    await wait_until(lambda: len(shelved(node)) == 2, within_s=30)
    blob = node.store / "blobs" / good.weights.blake3
    await wait_until(lambda: blob.exists() and content_digest(blob) == blob.name, within_s=30)
    (node.store / "blobs" / bad.weights.blake3).unlink()
    assert (await passed(node, 2)).bad == 2, "what somebody removed has not rotted"
    assert (await node.state()).disk_used_bytes == node.on_disk()


async def test_an_eviction_does_not_wait_for_it(bucket: Bucket, start: Start) -> None:
    """At this rate the blob would be open for half a minute."""
    model = bucket.publish(size_bytes=16 * MIB, chunk_bytes=MIB)
    node = await start(scrub_every_s=1, scrub_bytes_per_s=MIB // 2)
    await node.ensure(model)
    await node.release(model)

    async def under_way() -> bool:
        return (await scrubbed(node)).bytes > MIB

    await wait_until(under_way, within_s=20)
    await node.call(calls.Drop(model.digest))
    assert node.blobs() == set()
    assert (await passed(node)).bad == 0


@contextlib.contextmanager
def medium(path: Path, size_bytes: int) -> Iterator[tuple[Path, Path]]:
    """A disk of its own: a file that is its medium, and where its file system is mounted."""
    if os.geteuid() != 0:
        pytest.skip("mounting a disk needs root")
    platter, mounted = path / "platter", path / "mounted"
    with platter.open("wb") as file:
        file.truncate(size_bytes)
    mounted.mkdir()
    for command in (
        ["mkfs.ext4", "-q", "-F", str(platter)],
        ["mount", "-o", "loop", str(platter), str(mounted)],
    ):
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        if done.returncode:
            pytest.skip(f"no disk can be made here: {done.stderr.strip()}")
    try:
        yield platter, mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


async def test_a_medium_that_changes_without_a_write(bucket: Bucket, origin: Served, tmp_path: Path) -> None:
    """The file system knows of no change, and what is in memory of the blob is still right."""
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    content = (bucket.root / "blobs" / model.weights.blake3).read_bytes()
    with medium(tmp_path, 64 * MIB) as (platter, mounted):
        async with fleet(tmp_path, origin.url, None) as nodes:
            node = await nodes.start("n", store=str(mounted / "store"), **OFTEN)
            node.store = mounted / "store"
            await node.ensure(model)
            await node.release(model)
            blob = node.store / "blobs" / model.weights.blake3
            assert content_digest(blob) == blob.name
            os.sync()
            before = blob.stat()
            where = platter.read_bytes().index(content[5 * CHUNK : 5 * CHUNK + 4096])
            flip(platter, where + 9)
            assert content_digest(blob) == blob.name, "nobody who asks the file system sees it"
            assert blob.stat().st_ctime_ns == before.st_ctime_ns
            await wait_until(lambda: shelved(node) == [blob.name], within_s=30)
            assert (await node.ensure(model)).moved_bytes == MIB
            assert content_digest(blob) == blob.name
