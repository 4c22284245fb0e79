"""A blob is used before it is durable, and until it is, nobody is told of it and no unclean stop is believed."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from edge.errors import EdgeError, Reason
from edge.weights.ingest import settle
from tests.support import region, weights
from tests.support.blobs import Bucket, Served
from tests.support.redis import RedisServer
from tests.support.redis import running as redis_running
from tests.support.region import Fleet, fleet
from tests.support.wait import wait_until

#: A disk that takes its time: until the file GATE says `go`, or `fail`.
SLOW_DISK = """
import errno, os, pathlib, threading
really = os.fdatasync
def fdatasync(fd):
    gate = pathlib.Path(os.environ["GATE"])
    while not gate.exists():
        threading.Event().wait(0.01)
    if gate.read_text() == "fail":
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    really(fd)
os.fdatasync = fdatasync
"""
SIZE = 1 << 20


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_running("eu", ("fra-a",)) as server:
        yield server


@pytest.fixture
async def eu(tmp_path: Path, origin: Served, redis: RedisServer) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path, origin.url, redis) as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Nodes that start from here on have a slow disk; to be told `go` or `fail`."""
    path = tmp_path / "gate"
    monkeypatch.setenv("GATE", str(path))
    monkeypatch.setattr(region, "PROGRAM", SLOW_DISK + weights.PROGRAM)
    return path.write_text


def told(redis: RedisServer, digest: str) -> bool:
    """Does the index name a holder?"""
    return bool(redis.admin.hgetall(redis.key(f"loc:{digest}")))


async def test_a_model_is_here_before_the_disk_has_it_and_told_of_after(
    bucket: Bucket, eu: Fleet, redis: RedisServer, disk: Callable[[str], object]
) -> None:
    model = bucket.publish(size_bytes=SIZE)
    node = await eu.start("fra-a")
    assert (await node.ensure(model)).residency == "origin"
    assert model.weights.blake3 in node.blobs()
    assert not told(redis, model.weights.blake3)
    disk("go")
    await wait_until(lambda: told(redis, model.weights.blake3), within_s=10)


async def test_what_the_disk_has_not_taken_yet_keeps_no_other_model_waiting(
    bucket: Bucket, eu: Fleet, disk: Callable[[str], object]
) -> None:
    node = await eu.start("fra-a")
    models = [bucket.publish(name, size_bytes=SIZE, graph=name.encode()) for name in "abc"]
    for model in models:
        assert (await node.ensure(model)).residency == "origin"
    disk("go")


async def test_killed_before_the_disk_had_it_it_is_read_again_before_use(
    bucket: Bucket, origin: Served, eu: Fleet, disk: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bucket.publish(size_bytes=SIZE)
    node = await eu.start("fra-a")
    await node.ensure(model)
    await node.kill()
    sent = origin.sent_bytes
    lost = node.store / "blobs" / model.weights.blake3
    lost.chmod(0o644)
    lost.write_bytes(bytes(SIZE))  # what a machine without power may have kept of it
    monkeypatch.setattr(region, "PROGRAM", weights.PROGRAM)
    again = await eu.start("fra-a")
    assert (await again.ensure(model)).residency == "origin"
    assert lost.read_bytes() != bytes(SIZE)
    assert origin.sent_bytes == sent + SIZE, "the graph was right, and did not come again"


async def test_what_the_disk_did_not_take_is_set_aside_and_comes_again(
    bucket: Bucket, eu: Fleet, redis: RedisServer, disk: Callable[[str], object]
) -> None:
    model = bucket.publish(size_bytes=SIZE)
    node = await eu.start("fra-a")
    await node.ensure(model)
    disk("fail")
    await wait_until(lambda: not node.blobs(), within_s=10)
    assert not told(redis, model.weights.blake3)
    disk("go")
    await node.release(model)
    assert (await node.ensure(model)).residency == "origin"
    await wait_until(lambda: told(redis, model.weights.blake3), within_s=10)
    assert await node.stop() == 0
    assert '"clean": false' in (node.store / "node.json").read_text(), "what else it lost is seen at a start"


async def test_a_clean_stop_waits_for_the_disk(
    bucket: Bucket, eu: Fleet, disk: Callable[[str], object]
) -> None:
    model = bucket.publish(size_bytes=SIZE)
    node = await eu.start("fra-a")
    await node.ensure(model)
    disk("go")
    assert await node.stop() == 0
    assert '"clean": true' in (node.store / "node.json").read_text()


def test_a_file_that_has_gone_is_not_settled(tmp_path: Path) -> None:
    assert not settle(tmp_path / "gone")
    (tmp_path / "here").write_bytes(b"x")
    assert settle(tmp_path / "here")


def test_a_disk_that_fails_says_which_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fdatasync", fail)
    (tmp_path / "abc").write_bytes(b"x")
    with pytest.raises(EdgeError, match=r"sync blob abc: Input/output error") as caught:
        settle(tmp_path / "abc")
    assert caught.value.reason is Reason.INTERNAL
