"""What is held is measured in memory as it is; a blob that was cut short kills who maps it, and comes anew."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.weights import pagecache, residency
from edge.weights.pagecache import ask_for, resident_bytes
from edge.weights.residency import Residency
from tests.support.blobs import Bucket, Served, content_digest
from tests.support.region import Fleet, fleet
from tests.support.wait import wait_until

MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three MiB and three bytes, on disk."""
    path = tmp_path / "blob"
    path.write_bytes(os.urandom(3 * MIB) + b"end")
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    return path


def drop(path: Path) -> None:
    """Out of memory; the kernel is then asked for what it is told to read, no more."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    if resident_bytes(path):
        pytest.skip("this file system keeps its pages in memory")


def read(path: Path, at: int, count: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(fd, count, at)
    finally:
        os.close(fd)


def test_what_was_written_is_in_memory_until_it_is_dropped_and_comes_back_as_it_is_read(file: Path) -> None:
    assert resident_bytes(file) == 3 * MIB + 3
    drop(file)
    read(file, 0, MIB)
    assert resident_bytes(file) == MIB
    read(file, 3 * MIB, 3)
    assert resident_bytes(file) == MIB + 3


def test_windows_add_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagecache, "_WINDOW_BYTES", MIB)
    assert resident_bytes(file) == 3 * MIB + 3
    drop(file)
    read(file, MIB - 8192, 16384)
    assert resident_bytes(file) == 16384


def test_an_empty_file_and_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert resident_bytes(tmp_path / "empty") == 0
    with pytest.raises(FileNotFoundError):
        resident_bytes(tmp_path / "none")


class OneDisk:
    """A disk of one directory, as far as `Residency` asks."""

    def __init__(self, root: Path) -> None:
        self.store, self.root = self, root

    def blob_path(self, digest: str) -> Path:
        return self.root / digest

    async def run(self, work, *args):
        return work(*args)


async def test_what_was_measured_is_told_and_of_the_rest_nothing(file: Path) -> None:
    held = {"blob": 3 * MIB + 3, "gone": 5}
    measured = Residency(OneDisk(file.parent), lambda: held)
    assert measured.of({"blob": 1}) is None
    await measured.sample()
    assert measured.of({"blob": 1}) == 3 * MIB + 3
    assert measured.of(held) is None, "half of it is not known"


@contextlib.asynccontextmanager
async def watching(file: Path, held: dict[str, int]) -> AsyncIterator[Residency]:
    made = Residency(OneDisk(file.parent), lambda: held)
    task = asyncio.get_running_loop().create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_the_kernel_took_is_read_in_and_what_it_takes_again_is_told_once(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    size = 3 * MIB + 3
    monkeypatch.setattr(residency, "SAMPLE_S", 0.01)
    drop(file)
    async with watching(file, {"blob": size, "gone": 5}) as told:
        await wait_until(lambda: told.measured.get("blob") == size, within_s=10)
        assert (told.read_bytes, told.undersized) == (size, False)
        drop(file)
        await wait_until(lambda: told.undersized, within_s=10)
        assert resident_bytes(file) == 0, "nobody fights the kernel"
        await wait_until(lambda: told.measured["blob"] == 0, within_s=10)
        assert (told.read_bytes, told.undersized) == (size, True)
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert "of 3145731 bytes of weights that are held 0 lie in memory" in caplog.text


async def test_what_is_let_go_meanwhile_is_not_read_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "PIECE_BYTES", MIB)
    monkeypatch.setattr(pagecache, "PIECE_BYTES", MIB)
    held = {"blob": 3 * MIB + 3}
    drop(file)

    class LetGo(OneDisk):
        async def run(self, work, *args):
            held.clear()
            return work(*args)

    told = Residency(LetGo(file.parent), lambda: held)
    await told.read_in("blob")
    assert told.read_bytes == MIB
    assert resident_bytes(file) < 3 * MIB


async def test_a_large_file_is_asked_for_whole(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    with path.open("wb") as large:
        for _ in range(32):
            large.write(os.urandom(MIB))
        os.fsync(large.fileno())
    drop(path)
    ask_for(path)
    await wait_until(lambda: resident_bytes(path) == 32 * MIB, within_s=20)


# --- a real process


@pytest.fixture
async def lone(tmp_path: Path, origin: Served) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path, origin.url, None) as made:
        yield made


async def test_the_store_tells_what_of_a_held_model_is_in_memory_and_reads_in_what_is_not(
    bucket: Bucket, lone: Fleet
) -> None:
    model = bucket.publish(size_bytes=MIB)
    node = await lone.start("n")
    await node.ensure(model)
    path = node.store / "blobs" / model.weights.blake3
    drop(path)

    async def is_read() -> bool:
        return (await node.state()).host_read_bytes == model.weights.size_bytes

    await wait_until(is_read, within_s=30, every_s=0.1)
    assert resident_bytes(path) == model.weights.size_bytes
    state = await node.state()
    total = model.manifest.size_bytes
    assert state.host_resident_bytes in (total - model.weights.size_bytes, total), "as it was measured"
    assert state.models[0].resident_bytes == state.host_resident_bytes
    assert not state.host_undersized
    await node.release(model)
    state = await node.state()
    assert (state.host_resident_bytes, state.models[0].resident_bytes) == (0, None)


READER = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    seen = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print("mapped", flush=True)
sys.stdin.readline()
print(seen[-1])
"""


def mapping(path: Path) -> "subprocess.Popen[bytes]":
    """A process that maps a file and reads its end when it is told to."""
    worker = subprocess.Popen(
        [sys.executable, "-c", READER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"mapped\n"
    return worker


async def test_a_blob_cut_short_under_a_worker_kills_that_worker_and_is_verified_before_the_next_use(
    bucket: Bucket, lone: Fleet
) -> None:
    model, other = bucket.publish(size_bytes=MIB), bucket.publish("other", graph=b"other")
    node = await lone.start("n")
    first, second = await node.connect(), await node.connect()
    await node.ensure(model, first)
    await node.ensure(other, first)
    path = node.store / "blobs" / model.weights.blake3
    worker = mapping(path)
    path.chmod(0o644)
    os.truncate(path, 4096)
    worker.communicate(b"\n", timeout=10)
    assert worker.returncode == -7, "SIGBUS"
    # Somebody still holds it; whoever wants it now is not given what killed the other.
    again = await node.ensure(model, second)
    assert again.moved_bytes == model.weights.size_bytes
    assert content_digest(path) == model.weights.blake3
    assert (await node.state()).quarantined == 1
    assert (await node.ensure(other, second)).residency == "host", "its neighbour is not touched"
    assert (await node.ensure(model, second)).moved_bytes == 0
