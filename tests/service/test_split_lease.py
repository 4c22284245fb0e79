"""Two nodes that both believe to hold the lease of one blob: bytes are spent twice, and nothing is wrong."""

import asyncio

from edge.weights.manifest import BlobFile
from edge.wire import calls
from tests.support.blobs import Bucket, Served, content_digest
from tests.support.redis import RedisServer
from tests.support.region import Fleet
from tests.support.wait import wait_until
from tests.support.weights import Running

CHUNK = 1 << 18
MIB = 1 << 20


def fetches(node: Running, file: BlobFile) -> bool:
    return (node.store / "ingest" / file.blake3 / "journal").exists()


async def test_two_leaders_of_one_fetch_cost_bytes_and_nothing_else(
    bucket: Bucket, origin: Served, eu: Fleet, redis: RedisServer
) -> None:
    fra, ams = await eu.start("fra-a"), await eu.start("ams-a")
    await eu.sees(fra, "ams-a")
    model = bucket.publish(size_bytes=4 * MIB, chunk_bytes=CHUNK)
    for node in (fra, ams):
        await node.call(calls.GetManifest(model.digest))
    before = origin.sent_bytes
    origin.fail("drip", path_prefix=f"blobs/{model.weights.blake3}", drip_bps=400_000)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(fra.ensure(model))
        await wait_until(lambda: fetches(fra, model.weights))
        # As if the first one had been silent for longer than its lease: nobody tells it.
        for key in redis.admin.scan_iter(redis.key("lease:*")):
            redis.admin.delete(key)
        second = group.create_task(ams.ensure(model))
        await wait_until(lambda: fetches(ams, model.weights))
        assert fetches(fra, model.weights), "both are at it"
        origin.behave()
    answers = [first.result(), second.result()]
    total = model.manifest.size_bytes
    assert {answer.residency for answer in answers} <= {"origin", "region"}
    assert origin.sent_bytes - before <= 2 * total, "each brought each byte once at most"
    for node in (fra, ams):
        for file in model.manifest.files:
            assert content_digest(node.store / "blobs" / file.blake3) == file.blake3
        assert list((node.store / "ingest").iterdir()) == []
        assert list((node.store / "quarantine").iterdir()) == []
    await wait_until(lambda: not list(redis.admin.scan_iter(redis.key("lease:*"))), within_s=10)
