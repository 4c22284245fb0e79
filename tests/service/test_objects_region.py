"""Objects in two nodes of one region, and for requests that end before their objects come."""

import asyncio
import os

import pytest

from edge.background import Background
from edge.errors import EdgeError, Reason
from edge.proxy.objects import Asked, Objects
from edge.wire import calls
from edge.wire.dial import Dialer
from tests.service.test_objects import ask
from tests.service.test_regional import eu, pair, redis
from tests.service.test_weights_app import Start, start
from tests.support.blobs import Bucket, Served
from tests.support.objects import put_object
from tests.support.region import Fleet
from tests.support.wait import wait_until

__all__ = ("eu", "redis", "start")

MIB = 1 << 20


async def test_a_region_reads_an_object_once(bucket: Bucket, origin: Served, eu: Fleet) -> None:
    fra, ams = await pair(eu)
    content = os.urandom(8 * MIB)
    entry = put_object(bucket.root, "big", content, chunk_bytes=MIB)
    entry_bytes = (bucket.root / "data/big.json").stat().st_size
    before = origin.sent_bytes
    found = await asyncio.gather(*[ask(node, "big") for node in (fra, ams) for _ in range(25)])
    assert {one.objects[0].digest for one in found} == {entry.blake3}
    assert origin.sent_bytes - before == len(content) + 2 * entry_bytes, "each node asks what the name means"
    assert sum(one.outside_bytes for one in found) == len(content) + 2 * entry_bytes
    assert sum(one.moved_bytes for one in found) == 2 * (len(content) + entry_bytes)
    for node in (fra, ams):
        assert (node.store / "blobs" / entry.blake3).read_bytes() == content


async def test_a_request_that_ends_early_holds_nothing(bucket: Bucket, origin: Served, start: Start) -> None:
    """Its deadline passes, or its client leaves, while the object comes: what then comes may go again."""
    node = await start(disk_bytes=f"{4 * MIB}B")
    dialer = Dialer("n/weights", unix_path=node.path, greet=greeted, on_lost=nothing, connect_timeout_s=5.0)
    background = Background()
    background.spawn(dialer.run())
    try:
        objects = Objects(dialer, 64 * MIB)
        first = put_object(bucket.root, "o0", os.urandom(700_000))
        origin.fail("stall", path_prefix="blobs/", count=1)
        asked = await objects.ask(("o0",), 20_000.0)
        with pytest.raises(EdgeError, match="the deadline passed while o0 was fetched") as caught:
            await asked.wait(100.0)
        assert caught.value.reason is Reason.DEADLINE
        asked.give_back()
        await wait_until(lambda: first.blake3 in node.blobs(), within_s=15)

        async def takes_its_place() -> bool:
            """A second one of that size fits only without the first."""
            other = await got(objects, "o1")
            return other.told[0].reason == ""

        second = put_object(bucket.root, "o1", os.urandom(700_000))
        await wait_until(takes_its_place, within_s=10)
        assert node.blobs() == {second.blake3}
        one = await got(objects, "o1")
        assert one.told == (calls.ObjectHere("o1", second.blake3, 700_000),)
    finally:
        await background.close()


async def got(objects: Objects, name: str) -> Asked:
    asked = await objects.ask((name,), 20_000.0)
    await asked.wait(20_000.0)
    asked.give_back()
    return asked


async def greeted(_: object) -> None:
    """Nothing to say."""


def nothing() -> None:
    """Nobody to tell."""


async def test_without_a_weights_process_nothing_ran(tmp_path: object) -> None:
    dialer = Dialer(
        "n/weights", unix_path=f"{tmp_path}/none", greet=greeted, on_lost=nothing, connect_timeout_s=1.0
    )
    with pytest.raises(EdgeError, match="the weight store is away") as caught:
        await Objects(dialer, MIB).ask(("o",), 50.0)
    assert (caught.value.reason, caught.value.retryable) == (Reason.LINK_LOST, True)
