"""Three cold nodes of one region: those that follow take what the leader has by now, whatever becomes of it."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path

import pytest

from edge.errors import EdgeError
from edge.weights.manifest import BlobFile
from edge.wire import calls
from tests.support.blobs import Bucket, Published, Served, content_digest, serving
from tests.support.redis import RedisServer
from tests.support.redis import running as redis_running
from tests.support.region import Fleet, fleet
from tests.support.wait import wait_until
from tests.support.weights import Running

MIB = 1 << 20
CHUNK = 1 << 18
NAMES = ("ams-a", "ber-a", "fra-a")
#: A model takes two seconds from this origin.
BYTES_PER_S = 6 * MIB
SIZE = 12 * MIB + 5


@pytest.fixture
async def origin(bucket: Bucket) -> AsyncIterator[Served]:
    async with serving(bucket, bytes_per_s=BYTES_PER_S) as served:
        yield served


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_running("eu", NAMES) as server:
        yield server


@pytest.fixture
async def eu(tmp_path: Path, origin: Served, redis: RedisServer) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path, origin.url, redis) as made:
        yield made


@pytest.fixture
async def three(eu: Fleet) -> list[Running]:
    """Nodes that know each other, with at most four ranges at a time."""
    nodes = list(await asyncio.gather(*(eu.start(name, fetch_parallel=4) for name in NAMES)))
    await asyncio.gather(*(eu.sees(node, *NAMES) for node in nodes))
    return nodes


IN_FLIGHT = 4 * CHUNK


@pytest.fixture
async def model(bucket: Bucket, three: list[Running]) -> Published:
    """One whose manifest is everywhere already."""
    made = bucket.publish(size_bytes=SIZE, chunk_bytes=CHUNK)
    for node in three:
        await node.call(calls.GetManifest(made.digest))
    return made


def here(node: Running, file: BlobFile) -> int:
    """Chunks of an unfinished blob that its journal has."""
    journal = node.store / "ingest" / file.blake3 / "journal"
    try:
        return sum(byte.bit_count() for byte in journal.read_bytes()[24:])
    except FileNotFoundError:
        return 0


def check_whole(node: Running, model: Published) -> None:
    """All of it lies there, right, and nothing else does."""
    for file in model.manifest.files:
        assert content_digest(node.store / "blobs" / file.blake3) == file.blake3
    assert list((node.store / "ingest").iterdir()) == []


async def leading(
    group: asyncio.TaskGroup, three: list[Running], model: Published
) -> tuple[Running, list[Running], list[asyncio.Task[calls.Ensured]]]:
    """One node leads, the others follow it and have some chunks; the others' answers to come."""
    first, *others = three
    first_asked = group.create_task(_ended(first.ensure(model)))
    await wait_until(lambda: here(first, model.weights) >= 2)
    answers = [group.create_task(node.ensure(model)) for node in others]
    await wait_until(lambda: all(here(node, model.weights) >= 4 for node in others), within_s=15)
    assert not first_asked.done(), "it should have taken longer"
    return first, others, answers


async def _ended(work: Awaitable[calls.Ensured]) -> None:
    """A node that is killed answers nothing."""
    with contextlib.suppress(EdgeError):
        await work


async def test_100_cold_requests_on_3_nodes_late_ones_included_cost_the_origin_one_copy(
    origin: Served, three: list[Running], model: Published
) -> None:
    before = origin.sent_bytes
    first, second, late = three

    async def ask(node: Running, times: int) -> list[calls.Ensured]:
        links = [await node.connect() for _ in range(4)]
        return await asyncio.gather(*(node.ensure(model, links[n % 4]) for n in range(times)))

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(node, 40)) for node in (first, second)]
        chunks = len(model.weights.chunks)
        await wait_until(
            lambda: max(here(first, model.weights), here(second, model.weights)) >= 0.7 * chunks, within_s=15
        )
        asked.append(group.create_task(ask(late, 20)))
        await wait_until(lambda: here(late, model.weights) > 0 or asked[-1].done(), within_s=15)
    total = model.manifest.size_bytes
    assert total <= origin.sent_bytes - before <= total + CHUNK
    answers = [answer for one in asked for answer in one.result()]
    assert len(answers) == 100
    assert sum(answer.moved_bytes for answer in answers) <= 3 * total + CHUNK
    for node in three:
        check_whole(node, model)


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_when_the_leader_is_gone_another_one_goes_on_with_what_the_region_has(
    origin: Served, three: list[Running], model: Published, how: str
) -> None:
    before = origin.sent_bytes
    async with asyncio.TaskGroup() as group:
        first, others, answers = await leading(group, three, model)
        if how == "killed":
            await first.kill()
        else:
            first.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.wait(answers, timeout=30)
        finally:
            if how == "stopped":
                first.process.send_signal(signal.SIGCONT)
    for node in others:
        check_whole(node, model)
    if how == "stopped":
        check_whole(first, model)
    # What was on its way to the leader comes twice, and what nobody had heard of that it had. One that
    # was stopped asks once more for what it was at.
    more = IN_FLIGHT + 4 * CHUNK if how == "killed" else 2 * IN_FLIGHT + 4 * CHUNK
    assert origin.sent_bytes - before <= model.manifest.size_bytes + more


async def test_when_redis_forgets_whose_turn_it_is_nothing_comes_twice_but_what_is_on_its_way(
    origin: Served, three: list[Running], model: Published, redis: RedisServer
) -> None:
    before = origin.sent_bytes
    async with asyncio.TaskGroup() as group:
        await leading(group, three, model)
        redis.admin.flushall()
    for node in three:
        check_whole(node, model)
    assert origin.sent_bytes - before <= model.manifest.size_bytes + 2 * IN_FLIGHT


async def test_wrong_bytes_of_the_leader_are_committed_by_nobody(
    origin: Served, three: list[Running], model: Published
) -> None:
    async with asyncio.TaskGroup() as group:
        first, others, answers = await leading(group, three, model)
        data = first.store / "ingest" / model.weights.blake3 / "data"
        # Its memory or disk lies from here on, about what it has and about what comes.
        with data.open("r+b") as file:
            for index in range(len(model.weights.chunks)):
                file.seek(index * CHUNK + 7)
                file.write(b"xx")
    for node in others:
        check_whole(node, model)
    assert all(answer.done() for answer in answers)


async def test_who_follows_goes_on_following_while_redis_is_away(
    origin: Served, three: list[Running], model: Published, redis: RedisServer
) -> None:
    before = origin.sent_bytes
    async with asyncio.TaskGroup() as group:
        await leading(group, three, model)
        redis.kill()
    for node in three:
        check_whole(node, model)
    assert origin.sent_bytes - before <= model.manifest.size_bytes + CHUNK
