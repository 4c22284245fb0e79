"""Weights processes of one region: real Redis, real TLS between them, an origin that counts."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edge.errors import EdgeError
from edge.weights.manifest import Catalogue, CatalogueModel, encode_catalogue
from edge.wire import calls
from tests.support import region
from tests.support.blobs import Bucket, Published, Served, content_digest
from tests.support.redis import RedisServer
from tests.support.redis import running as redis_running
from tests.support.region import Fleet, fleet
from tests.support.wait import wait_until
from tests.support.weights import Running

CHUNK = 1 << 18
MIB = 1 << 20


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_running("eu", ("fra-a", "ams-a", "ber-a")) as server:
        yield server


@pytest.fixture
async def eu(tmp_path: Path, origin: Served, redis: RedisServer) -> AsyncIterator[Fleet]:
    """A region with an index."""
    async with fleet(tmp_path, origin.url, redis) as made:
        yield made


async def pair(eu: Fleet) -> tuple[Running, Running]:
    """fra-a and ams-a, who know each other."""
    fra, ams = await asyncio.gather(eu.start("fra-a"), eu.start("ams-a"))
    await eu.sees(fra, "fra-a", "ams-a")
    await eu.sees(ams, "fra-a", "ams-a")
    return fra, ams


async def ensure_50(node: Running, model: Published) -> list[calls.Ensured]:
    links = [await node.connect() for _ in range(5)]
    return await asyncio.gather(*(node.ensure(model, links[n % 5]) for n in range(50)))


def keep(bucket: Bucket, epoch: int, *floors: tuple[Published, dict[str, int]]) -> None:
    """Publish a catalogue with these floors."""
    models = {
        model.manifest.name: CatalogueModel(current="1", versions={"1": model.digest}, keep=regions)
        for model, regions in floors
    }
    (bucket.root / "catalog.json").write_bytes(encode_catalogue(Catalogue(epoch=epoch, models=models)))


def has(node: Running, model: Published) -> bool:
    return {file.blake3 for file in model.manifest.files} <= node.blobs()


async def test_50_callers_in_each_of_two_nodes_are_one_fetch_from_the_origin(
    bucket: Bucket, origin: Served, eu: Fleet
) -> None:
    fra, ams = await pair(eu)
    model = bucket.publish(size_bytes=24 * MIB, chunk_bytes=MIB)
    before = origin.sent_bytes
    answers = await asyncio.gather(ensure_50(fra, model), ensure_50(ams, model))
    total = model.manifest.size_bytes
    assert origin.sent_bytes - before == total + len(model.raw)
    for node in (fra, ams):
        for file in model.manifest.files:
            assert content_digest(node.store / "blobs" / file.blake3) == file.blake3
    told = [answer for one in answers for answer in one]
    assert sum(answer.moved_bytes for answer in told) == 2 * total
    assert sum(answer.outside_bytes for answer in told) == total
    states = [await fra.state(), await ams.state()]
    for kind in ("region", "origin"):
        assert sum(state.sources[kind] for state in states) == total
    assert sum(state.served_bytes for state in states) == total + len(model.raw)
    residencies = {answer.residency for answer in told}
    assert "origin" in residencies
    assert residencies <= {"origin", "region", "disk", "host"}, "who was heard late found it here"
    rates, _ = await ams.call(calls.Inventory())
    assert rates.region_rate > 0 or rates.origin_rate > 0


async def test_a_second_node_gets_all_of_it_within_the_region_with_the_origin_gone(
    bucket: Bucket, origin: Served, eu: Fleet
) -> None:
    fra, ams = await pair(eu)
    model = bucket.publish(size_bytes=4 * MIB, chunk_bytes=CHUNK)
    assert (await fra.ensure(model)).residency == "origin"
    origin.fail("5xx")

    async def listed() -> bool:
        return (await ams.state()).index.blobs == 3

    await wait_until(listed)
    answer = await ams.ensure(model)
    total = model.manifest.size_bytes
    assert (answer.residency, answer.moved_bytes, answer.outside_bytes) == ("region", total, 0)


async def test_a_far_node_is_asked_before_the_origin_and_its_bytes_are_counted_as_far(
    bucket: Bucket, origin: Served, eu: Fleet
) -> None:
    far = await eu.start("iad-a", region="us", index=False)
    model = bucket.publish(size_bytes=4 * MIB, chunk_bytes=CHUNK)
    await far.ensure(model)
    origin.fail("5xx")
    fra = await eu.start("fra-a")
    sources = (
        calls.FarSource("gone-a", "127.0.0.1:1", 1.0),
        calls.FarSource("nobody", "no address", 1.0),
        calls.FarSource("iad-a", eu.address("iad-a"), 90.0),
    )
    head, _ = await fra.call(calls.Ensure(model.digest, far=sources))
    total = model.manifest.size_bytes
    assert (head.residency, head.moved_bytes, head.outside_bytes) == ("far", total, total)
    assert (await fra.state()).sources == {"region": 0, "far": total, "origin": 0}
    rates, _ = await fra.call(calls.Inventory())
    assert rates.far_rate > 0
    assert (rates.region_rate, rates.origin_rate) == (0, 0)


async def test_a_leader_that_cannot_fetch_does_not_hold_up_the_other(
    bucket: Bucket, origin: Served, eu: Fleet
) -> None:
    fra, ams = await pair(eu)
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    for node in (fra, ams):
        await node.call(calls.GetManifest(model.digest))
    origin.fail("5xx")
    async with asyncio.timeout(10):
        failed = await asyncio.gather(fra.refused(model), ams.refused(model))
    assert {error.status for error in failed} == {503}
    origin.behave()

    async def comes(node: Running) -> bool:
        # The first askers were told of one file's failure; the other file's fetch may still be failing.
        try:
            await node.ensure(model)
        except EdgeError:
            return False
        return True

    await asyncio.gather(*(wait_until(lambda node=node: comes(node)) for node in (fra, ams)))  # type: ignore[misc] # mypy can't infer a lambda with a default


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_without_redis_both_fetch_and_nothing_fails(
    bucket: Bucket, origin: Served, eu: Fleet, redis: RedisServer, how: str
) -> None:
    fra, ams = await pair(eu)
    model = bucket.publish(size_bytes=4 * MIB, chunk_bytes=CHUNK)
    if how == "killed":
        redis.kill()
    else:
        redis.freeze()
    try:
        before = origin.sent_bytes
        async with asyncio.timeout(15):
            answers = await asyncio.gather(ensure_50(fra, model), ensure_50(ams, model))
    finally:
        if how == "frozen":
            redis.thaw()
    total = model.manifest.size_bytes
    assert total <= origin.sent_bytes - before <= 2 * (total + len(model.raw))
    assert len(answers[0]) == len(answers[1]) == 50
    assert has(fra, model)
    assert has(ams, model)


async def test_a_node_that_comes_back_after_kill_9_gives_again_what_it_has_once_verified(
    bucket: Bucket, origin: Served, eu: Fleet
) -> None:
    fra, ams = await pair(eu)
    good, bad = bucket.publish("good", graph=b"g1"), bucket.publish("bad", graph=b"g2")
    await fra.ensure(good)
    await fra.ensure(bad)
    await fra.kill()
    path = fra.store / "blobs" / bad.weights.blake3
    path.chmod(0o644)
    path.write_bytes(b"x" * bad.weights.size_bytes)
    fra = await eu.start("fra-a")
    # Whatever can be verified is told to the region again; the rest is set aside unasked.
    await wait_until(lambda: (fra.store / "quarantine" / bad.weights.blake3).exists())

    async def listed() -> bool:
        return (await ams.state()).index.blobs == 2 + 3

    await wait_until(listed)
    origin.fail("5xx")
    assert (await ams.ensure(good)).residency == "region"
    origin.behave()
    assert (await ams.ensure(bad)).residency == "origin"


async def test_what_is_evicted_is_not_asked_for_any_more(bucket: Bucket, origin: Served, eu: Fleet) -> None:
    fra, ams = await pair(eu)
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    await fra.ensure(model)
    await fra.release(model)
    await fra.call(calls.Drop(model.digest))
    assert fra.blobs() == set()

    async def empty() -> bool:
        return (await ams.state()).index.blobs == 0

    await wait_until(empty)
    assert (await ams.ensure(model)).residency == "origin"


async def test_a_blob_is_not_evicted_while_another_node_reads_it(
    bucket: Bucket, origin: Served, eu: Fleet
) -> None:
    fra, ams = await pair(eu)
    # Long enough to be stopped in the middle of its ranges, also on a busy machine.
    model = bucket.publish(size_bytes=256 * MIB, chunk_bytes=64 * MIB)
    await fra.ensure(model)
    await fra.release(model)
    async with asyncio.TaskGroup() as group:
        reads = group.create_task(ams.ensure(model))

        async def given() -> bool:
            return (await fra.state()).served_bytes > MIB

        await wait_until(given, every_s=0.001)
        ams.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(EdgeError, match="in use"):
                await fra.call(calls.Drop(model.digest))
        finally:
            ams.process.send_signal(signal.SIGCONT)
    assert reads.result().residency == "region"
    assert has(fra, model)


# --- floors and pins


async def test_a_floor_is_filled_at_publish_by_so_many_nodes_and_from_the_origin_once(
    bucket: Bucket, origin: Served, eu: Fleet
) -> None:
    fra, ams = await pair(eu)
    one, two, none = (
        bucket.publish(name, graph=name.encode(), size_bytes=MIB) for name in ("one", "two", "none")
    )
    before = origin.sent_bytes
    keep(bucket, 1, (one, {"eu": 1}), (two, {"eu": 2, "ap": 1}), (none, {"ap": 1}))
    nodes = (fra, ams)
    await wait_until(
        lambda: sum(has(node, one) for node in nodes) == 1 and all(has(node, two) for node in nodes)
    )
    from_origin = one.manifest.size_bytes + two.manifest.size_bytes + len(one.raw) + len(two.raw)
    catalogue = len((bucket.root / "catalog.json").read_bytes())
    assert origin.sent_bytes - before == from_origin + 2 * catalogue
    states = [await node.state() for node in nodes]
    assert [
        sum(stored.kept and stored.model == name for state in states for stored in state.models)
        for name in ("one", "two", "none")
    ] == [1, 2, 0]
    # The chosen node can't lose it, also when its disk is wanted for something else.
    keeper = fra if has(fra, one) else ams
    with pytest.raises(EdgeError, match="kept in eu"):
        await keeper.call(calls.Drop(one.digest))
    # The floor is gone from the catalogue: so is the protection, not the copy.
    keep(bucket, 2, (two, {"eu": 1}), (one, {}))

    async def free() -> bool:
        return not any(stored.kept for stored in (await keeper.state()).models if stored.model == "one")

    await wait_until(free)
    assert has(keeper, one)
    await keeper.call(calls.Drop(one.digest))
    assert not has(keeper, one)


async def test_a_floor_waits_for_the_origin_and_needs_no_index(
    bucket: Bucket, origin: Served, tmp_path: Path
) -> None:
    async with fleet(tmp_path, origin.url, None) as lone:
        model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
        keep(bucket, 1, (model, {"eu": 1}))
        origin.fail("5xx", path_prefix="manifests/", count=2)
        fra, ams = await asyncio.gather(lone.start("fra-a"), lone.start("ams-a"))
        await wait_until(lambda: has(fra, model) and has(ams, model), within_s=10)


async def test_a_node_that_keeps_it_and_is_restarted_costs_no_fetch(
    bucket: Bucket, origin: Served, eu: Fleet
) -> None:
    fra, ams = await pair(eu)
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    keep(bucket, 1, (model, {"eu": 1}))
    await wait_until(lambda: has(fra, model) != has(ams, model))
    keeper, other, name = (fra, ams, "fra-a") if has(fra, model) else (ams, fra, "ams-a")
    assert await keeper.stop() == 0

    async def alone() -> bool:
        return name not in (await other.state()).index.nodes

    await wait_until(alone, within_s=10)
    # It would look now.
    await other.call(calls.Pin(model.digest, pinned=False))
    assert not any(stored.kept for stored in (await other.state()).models)
    await eu.start(name)
    await eu.sees(other, name)
    assert not has(other, model)


async def test_when_the_node_that_keeps_it_dies_another_one_does(
    bucket: Bucket, origin: Served, eu: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = "import edge.weights.pins\nedge.weights.pins.GRACE_MS = 1_000.0\n"
    monkeypatch.setattr(region, "PROGRAM", soon + region.PROGRAM)
    fra, ams = await pair(eu)
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    keep(bucket, 1, (model, {"eu": 1}))
    await wait_until(lambda: has(fra, model) != has(ams, model))
    keeper, other = (fra, ams) if has(fra, model) else (ams, fra)
    keeper.process.send_signal(signal.SIGKILL)
    await wait_until(lambda: has(other, model), within_s=15)
