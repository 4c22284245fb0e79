"""kill -9 of a real weights process, at seeded moments and at each step of a commit, and a disk that is full."""

import asyncio
import contextlib
import os
import random
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.errors import EdgeError, Reason
from edge.weights.app import EXIT_UNFIT
from tests.support import region
from tests.support.blobs import Bucket, Published, Served, content_digest
from tests.support.region import Fleet, fleet
from tests.support.wait import wait_until
from tests.support.weights import PROGRAM, Running

CHUNK = 1 << 16
MIB = 1 << 20
PARALLEL = 3
Start = Callable[..., Any]


@pytest.fixture
async def lone(tmp_path: Path, origin: Served) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path, origin.url, None) as made:
        yield made


async def _until_killed(node: Running, model: Published) -> None:
    """What a caller sees: its link ends."""
    with pytest.raises(EdgeError, match="lost"):
        await node.ensure(model)


def claimed(node: Running, model: Published) -> int:
    """Chunks of the weights that the journal says are here."""
    journal = node.store / "ingest" / model.weights.blake3 / "journal"
    with contextlib.suppress(FileNotFoundError):
        return sum(byte.bit_count() for byte in journal.read_bytes()[24:])
    return 0


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_again_and_again_it_fetches_no_chunk_twice_that_was_here(
    bucket: Bucket, origin: Served, lone: Fleet, seed: int
) -> None:
    draw = random.Random(seed)
    settled = bucket.publish("settled", size_bytes=CHUNK, graph=b"settled")
    model = bucket.publish(size_bytes=64 * CHUNK, chunk_bytes=CHUNK)
    size_bytes = model.manifest.size_bytes
    node = await lone.start("n", fetch_parallel=PARALLEL)
    await node.ensure(settled)
    origin.fail("drip", path_prefix=f"blobs/{model.weights.blake3}", drip_bps=600_000)
    before = origin.sent_bytes
    for _ in range(5):
        good, sent = claimed(node, model), origin.sent_bytes
        moment = sent + draw.randint(1, 9 * CHUNK)
        async with asyncio.TaskGroup() as group:
            group.create_task(_until_killed(node, model))
            await wait_until(lambda moment=moment: origin.sent_bytes >= moment, within_s=20, every_s=0.001)
            await node.kill()
        new = claimed(node, model) - good
        assert origin.sent_bytes - sent <= (new + PARALLEL) * CHUNK + len(b"graph") + 8 * 1024
        node = await lone.start("n", fetch_parallel=PARALLEL)
        assert (await node.state()).disk_used_bytes == node.on_disk()
        assert (await node.ensure(settled)).moved_bytes == 0
    origin.behave()
    good = claimed(node, model)
    answer = await node.ensure(model)
    assert answer.moved_bytes == (64 - good) * CHUNK
    assert content_digest(node.store / "blobs" / model.weights.blake3) == model.weights.blake3
    # Of each life that was ended at most the chunks that were under way came in vain.
    assert origin.sent_bytes - before <= size_bytes + 5 * PARALLEL * CHUNK + 8 * 1024
    assert (await node.state()).disk_used_bytes == node.on_disk()


#: Ends the process at one step of the commit of one blob. Everything before it is done as ever.
DEADLY = """
import os, pathlib, signal
BLOB, STEP = {blob!r}, {step!r}
def die(step):
    if step == STEP:
        os.kill(os.getpid(), signal.SIGKILL)
def path(fd):
    return os.readlink(f"/proc/self/fd/{{fd}}")
renames, syncs, dirs, synced = pathlib.Path.rename, os.fdatasync, os.fsync, []
def rename(self, target):
    ours = str(target).endswith("/blobs/" + BLOB)
    ours and die("before the rename")
    made = renames(self, target)
    ours and die("behind the rename")
    return made
def fdatasync(fd):
    ours = BLOB in path(fd)
    ours and die("before the sync of its bytes")
    syncs(fd)
    ours and synced.append(fd)
    ours and die("behind the sync of its bytes")
def fsync(fd):
    ours = bool(synced) and path(fd).endswith("/blobs")
    ours and die("before the sync of its name")
    dirs(fd)
    ours and die("behind the sync of its name")
pathlib.Path.rename, os.fdatasync, os.fsync = rename, fdatasync, fsync
"""
STEPS = [
    f"{when} the {what}"
    for what in ("rename", "sync of its bytes", "sync of its name")
    for when in ("before", "behind")
]


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_any_step_of_a_commit_it_fetches_nothing_again(
    bucket: Bucket, origin: Served, lone: Fleet, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    model = bucket.publish(size_bytes=4 * CHUNK, chunk_bytes=CHUNK)
    monkeypatch.setattr(region, "PROGRAM", DEADLY.format(blob=model.weights.blake3, step=step) + PROGRAM)
    node = await lone.start("n")
    # The answer may come before the bytes are durable, and so before the end.
    with contextlib.suppress(EdgeError):
        await node.ensure(model)
    async with asyncio.timeout(10):
        assert await node.process.wait() == -9, step
    monkeypatch.undo()
    sent = origin.sent_bytes
    node = await lone.start("n")
    assert (await node.state()).disk_used_bytes == node.on_disk()
    answer = await node.ensure(model)
    assert answer.moved_bytes == 0
    assert origin.sent_bytes == sent
    assert content_digest(node.store / "blobs" / model.weights.blake3) == model.weights.blake3
    assert list((node.store / "ingest").iterdir()) == []
    assert (await node.state()).disk_used_bytes == node.on_disk()


# --- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB where node n has its store."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    path = tmp_path / "n"
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Somebody else writes until nothing more fits."""
    path = disk / "somebody-elses"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return path


async def test_a_disk_smaller_than_its_budget_refuses_what_does_not_fit_and_serves_the_rest(
    small_disk: Path, bucket: Bucket, lone: Fleet
) -> None:
    fits, large = bucket.publish("fits", size_bytes=MIB // 2), bucket.publish("large", size_bytes=3 * MIB)
    node = await lone.start("n")
    await node.ensure(fits)
    error = await node.refused(large)
    assert (error.reason, error.retryable) == (Reason.NO_SPACE, True)
    assert large.weights.blake3 in error.message
    assert list((node.store / "ingest").iterdir()) == []
    assert (await node.state()).disk_used_bytes == node.on_disk()
    assert (await node.ensure(fits)).residency == "host"
    assert (await node.ensure(bucket.publish("other", size_bytes=MIB // 2))).residency == "origin"


async def test_a_disk_that_somebody_fills_in_mid_fetch_lets_the_fetch_end(
    small_disk: Path, bucket: Bucket, origin: Served, lone: Fleet
) -> None:
    model, late = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK), bucket.publish("late", graph=b"late")
    node = await lone.start("n", fetch_parallel=PARALLEL)
    origin.fail("drip", path_prefix=f"blobs/{model.weights.blake3}", drip_bps=800_000)
    async with asyncio.TaskGroup() as group:
        coming = group.create_task(node.ensure(model))
        await wait_until(lambda: claimed(node, model) >= 2, within_s=20)
        filler = fill(small_disk)
        # Not even its manifest fits.
        assert (await node.refused(late)).reason is Reason.NO_SPACE
    assert coming.result().residency == "origin", "its room was taken before its first byte"
    origin.behave()
    filler.unlink()
    assert content_digest(node.store / "blobs" / model.weights.blake3) == model.weights.blake3


async def test_a_node_starts_and_stops_on_a_full_disk_and_serves_what_it_has(
    small_disk: Path, bucket: Bucket, lone: Fleet
) -> None:
    model = bucket.publish(size_bytes=MIB)
    node = await lone.start("n")
    await node.ensure(model)
    assert await node.stop() == 0
    filler = fill(small_disk)
    for _ in range(2):
        node = await lone.start("n")
        assert node.process.returncode != EXIT_UNFIT
        assert (await node.ensure(model)).residency == "disk"
        assert (await node.refused(bucket.publish("new", graph=b"new"))).reason is Reason.NO_SPACE
        assert await node.stop() == 0
    filler.unlink()
    node = await lone.start("n")
    assert (await node.ensure(model)).moved_bytes == 0
