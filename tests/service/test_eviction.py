"""Who goes when a real weights process has no room, and that it remembers over a restart."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from edge.wire import calls
from tests.support.blobs import Bucket, Published, Served
from tests.support.region import fleet
from tests.support.wait import wait_until
from tests.support.weights import Running

ROOM = "1000000B"
Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path, origin: Served) -> AsyncIterator[Start]:
    """Starts weights processes on one store."""
    async with fleet(tmp_path, origin.url, None) as lone:
        yield lambda **settings: lone.start("n", disk_bytes=ROOM, **settings)


def models(bucket: Bucket, *names: str) -> list[Published]:
    """Three of them fit at a time."""
    return [bucket.publish(name, size_bytes=300_000, graph=name.encode()) for name in names]


async def use(node: Running, model: Published, times: int = 1) -> None:
    for _ in range(times):
        await node.ensure(model)
        await node.release(model)


def here(node: Running, *some: Published) -> set[str]:
    return {one.manifest.name for one in some if one.weights.blake3 in node.blobs()}


async def look_at_catalogue(node: Running, model: Published) -> None:
    """A new catalogue is looked at once a second, and whenever pins change."""
    for pinned in (True, False):
        await node.call(calls.Pin(model.digest, pinned=pinned))


@pytest.mark.parametrize("restarted", [False, True])
async def test_who_is_wanted_often_stays_though_it_was_held_longest_ago(
    bucket: Bucket, start: Start, restarted: bool
) -> None:
    often, seldom, late, new = models(bucket, "often", "seldom", "late", "new")
    node = await start()
    await use(node, often, 5)
    await use(node, seldom)
    await use(node, late)
    if restarted:
        assert await node.stop() == 0
        assert (node.store / "uses.json").exists()
        node = await start()
        assert (await node.state()).disk_used_bytes == node.on_disk() <= 1_000_000
    await use(node, new)
    assert here(node, often, seldom, late, new) == {"often", "late", "new"}


async def test_what_was_published_a_moment_ago_is_there_when_it_is_first_asked_for(
    bucket: Bucket, start: Start
) -> None:
    old, new, last = models(bucket, "old", "new", "last")
    used = bucket.publish("used", size_bytes=300_000, graph=b"used")
    bucket.catalogue(1, [old])
    node = await start()

    async def epoch_is(epoch: int) -> bool:
        state, _ = await node.call(calls.Catalogue())
        return bool(state.epoch == epoch)

    await wait_until(lambda: epoch_is(1))
    await use(node, old, 3)
    await look_at_catalogue(node, old)
    bucket.catalogue(2, [old, new])
    await wait_until(lambda: epoch_is(2))
    await look_at_catalogue(node, old)
    await node.call(calls.Ensure(new.digest, hold=False))
    await use(node, used, 3)
    await use(node, last)
    assert here(node, old, new, used, last) == {"new", "used", "last"}
