"""A blob that rots where it lies: nobody wrote to it, nobody asks for it, and it is found all the same."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.weights.slowread import PIECE_BYTES
from edge.wire import calls
from tests.support import region, weights
from tests.support.blobs import Bucket, Served, content_digest
from tests.support.region import fleet
from tests.support.wait import wait_until
from tests.support.weights import Running

CHUNK = 1 << 16
MIB = 1 << 20
#: A disk that can't read the file any more that FAILING names, and one that reads it wrong once.
FAILING_DISK = """
import errno, os, pathlib
really, wrong = os.preadv, []
def preadv(fd, buffers, at):
    failing = pathlib.Path(os.environ["FAILING"])
    how, name = failing.read_text().split() if failing.exists() else ("", "?")
    if os.readlink(f"/proc/self/fd/{fd}").endswith(name):
        if how == "fail":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if how == "lie" and not wrong:
            count = really(fd, buffers, at)
            buffers[0][0] ^= 1
            wrong.append(at)
            return count
    return really(fd, buffers, at)
os.preadv = preadv
"""
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


async def found_bad(node: Running, count: int) -> None:
    async def found() -> bool:
        return (await scrubbed(node)).bad == count

    await wait_until(found, within_s=30)


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
    await found_bad(node, 1)
    assert shelved(node) == [bad.weights.blake3]
    assert origin.sent_bytes == sent, "nobody needs it now"
    assert (await node.state()).disk_used_bytes == node.on_disk()
    assert (await node.ensure(bad)).moved_bytes == bad.weights.size_bytes
    flip(node.store / "blobs" / good.weights.blake3, 0)
    await found_bad(node, 2)
    blob = node.store / "blobs" / good.weights.blake3
    await wait_until(lambda: blob.exists() and content_digest(blob) == blob.name, within_s=30)
    (node.store / "blobs" / bad.weights.blake3).unlink()
    assert (await passed(node, 2)).bad == 2, "what somebody removed has not rotted"
    assert (await node.state()).disk_used_bytes == node.on_disk()


async def test_what_can_not_be_read_is_bad_and_what_reads_right_the_second_time_is_not(
    bucket: Bucket, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = tmp_path / "failing"
    monkeypatch.setenv("FAILING", str(failing))
    monkeypatch.setattr(region, "PROGRAM", FAILING_DISK + weights.PROGRAM)
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    node = await start(**OFTEN)
    await node.ensure(model)
    await node.release(model)
    blob = node.store / "blobs" / model.weights.blake3
    failing.write_text(f"lie {blob.name}")
    told = await passed(node, 2)
    assert (told.bad, shelved(node)) == (0, [])
    failing.write_text(f"fail {blob.name}")
    await found_bad(node, 1)
    assert shelved(node) == [blob.name]


async def test_a_fetch_goes_first(bucket: Bucket, origin: Served, start: Start) -> None:
    here, coming = (bucket.publish(name, size_bytes=2 * MIB, chunk_bytes=CHUNK) for name in "ab")
    node = await start(**OFTEN)
    await node.ensure(here)
    await passed(node)
    origin.fail("drip", path_prefix=f"blobs/{coming.weights.blake3}", drip_bps=150_000)
    link = await node.connect()
    _, reply = link.submit(calls.Ensure(coming.digest), timeout_s=60)

    async def came(share: float) -> bool:
        told = (await node.state()).fetching
        return bool(told) and told[0].done_bytes > share * 2 * MIB

    await wait_until(lambda: came(0.0))
    before = (await scrubbed(node)).bytes
    await wait_until(lambda: came(0.8), within_s=30)
    # A piece may have been under way.
    assert (await scrubbed(node)).bytes - before <= PIECE_BYTES
    await reply
    await passed(node, 2)
    link.close()


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
            await found_bad(node, 1)
            assert shelved(node) == [blob.name]
            assert (await node.ensure(model)).moved_bytes == MIB
            assert content_digest(blob) == blob.name
