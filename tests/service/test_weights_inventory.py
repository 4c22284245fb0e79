"""What a weights process has, told and changed by its operator: Inventory, Drop, Pin, and Ensure without a hold."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from edge.errors import EdgeError, Reason
from edge.wire import calls
from tests.support import region
from tests.support.blobs import Bucket, Served
from tests.support.wait import wait_until

CHUNK = 1 << 16
MIB = 1 << 20
Start = Callable[..., Any]


async def test_what_is_only_brought_takes_no_host_memory_and_may_be_evicted(
    bucket: Bucket, start: Start
) -> None:
    model = bucket.publish(size_bytes=300_000)
    node = await start(host_bytes="1000B")
    head, body = await node.call(calls.Ensure(model.digest, hold=False))
    assert (head.residency, head.moved_bytes, body) == ("origin", model.manifest.size_bytes, model.raw)
    assert (await node.state()).host_used_bytes == 0
    assert (await node.call(calls.Ensure(model.digest, hold=False)))[0].residency == "disk"
    await node.call(calls.Drop(model.digest))
    assert node.blobs() == set()


async def test_the_inventory_has_what_is_whole_and_its_number_grows_with_each_change(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    one, two = (
        bucket.publish("one", graph=b"1"),
        bucket.publish("two", graph=b"2", size_bytes=5 * MIB, chunk_bytes=MIB),
    )
    node = await start()

    async def inventory(newer_than: int = 0) -> tuple[int, dict[str, list[Any]] | None]:
        head, body = await node.call(calls.Inventory(newer_than))
        return head.number, msgspec.msgpack.decode(body) if body else None

    first, found = await inventory()
    assert (first, found) == (1, {})
    await node.ensure(one)
    await node.call(calls.GetManifest(two.digest))
    second, found = await inventory()
    assert second > first
    assert found == {one.digest: ["host", one.manifest.size_bytes]}
    assert await inventory(second) == (second, None)
    origin.fail("5xx", path_prefix=f"blobs/{two.weights.blake3}")
    await node.refused(two)
    assert await inventory(second) == (second, None)
    await node.release(one)
    third, found = await inventory(second)
    assert third > second
    assert found == {one.digest: ["disk", one.manifest.size_bytes]}
    origin.behave()
    await node.ensure(two)
    head, _ = await node.call(calls.Inventory())
    assert head.origin_rate > 0
    assert (head.region_rate, head.far_rate) == (0, 0)


async def test_a_drop_spares_what_is_held_pinned_or_needed_by_another_model(
    bucket: Bucket, start: Start
) -> None:
    one, two = bucket.publish("one"), bucket.publish("two")
    shared = one.manifest.files[0].blake3
    assert shared == two.manifest.files[0].blake3
    node = await start()
    await node.ensure(one)
    await node.ensure(two)
    with pytest.raises(EdgeError, match="in use") as caught:
        await node.call(calls.Drop(one.digest))
    assert (caught.value.reason, caught.value.retryable) == (Reason.BUSY, True)
    await node.release(one)
    await node.call(calls.Pin(one.digest))
    with pytest.raises(EdgeError, match="unpin"):
        await node.call(calls.Drop(one.digest))
    await node.call(calls.Pin(one.digest, pinned=False))
    await node.call(calls.Drop(one.digest))
    assert node.blobs() == {file.blake3 for file in two.manifest.files}
    assert [stored.model for stored in (await node.state()).models] == ["two"]
    await node.call(calls.Drop(one.digest))
    assert (await node.state()).disk_used_bytes == node.on_disk()


async def test_what_is_pinned_is_listed_however_long_ago_it_was_held(
    bucket: Bucket, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = "import edge.weights.report\nedge.weights.report.MAX_LISTED_MODELS = 2\n"
    monkeypatch.setattr(region, "PROGRAM", few + region.PROGRAM)
    pinned, *_, late, last = models = [
        bucket.publish(name, size_bytes=5_000, graph=name.encode()) for name in "abcde"
    ]
    node = await start()
    for model in models:
        await node.ensure(model)
        await node.release(model)
    await node.call(calls.Pin(pinned.digest))
    listed = [(one.model, one.pinned) for one in (await node.state()).models]
    assert listed == [("a", True), (last.manifest.name, False), (late.manifest.name, False)]


async def test_an_eviction_says_what_went(bucket: Bucket, origin: Served, start: Start) -> None:
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    node = await start(min_bytes_per_s=1_000)
    absent, _ = await node.call(calls.Drop(model.digest))
    assert absent == calls.Collected()
    origin.fail("drip", path_prefix=f"blobs/{model.weights.blake3}", drip_bps=100_000)
    link = await node.connect()
    coming = asyncio.get_running_loop().create_task(node.ensure(model, link))

    async def comes() -> bool:
        return bool((await node.state()).fetching)

    await wait_until(comes)
    with pytest.raises(EdgeError, match="on its way to this node; evict it once it is here"):
        await node.call(calls.Drop(model.digest))
    origin.behave()
    await coming
    with pytest.raises(EdgeError, match="unload it first"):
        await node.call(calls.Drop(model.digest))
    await node.release(model, link)
    went, _ = await node.call(calls.Drop(model.digest))
    assert went == calls.Collected(1, 2, 0, model.manifest.size_bytes + len(model.raw))


async def test_a_pin_brings_the_model_and_keeps_it_over_restarts_also_from_a_smaller_budget(
    bucket: Bucket, start: Start
) -> None:
    pinned = bucket.publish("pinned", size_bytes=300_000, graph=b"p")
    others = [bucket.publish(f"m{n}", size_bytes=300_000, graph=b"g%d" % n) for n in range(3)]
    node = await start(disk_bytes="1000000B")
    await node.call(calls.Pin(pinned.digest))
    await wait_until(lambda: pinned.weights.blake3 in node.blobs())
    for model in others[:2]:
        await node.ensure(model)
        await node.release(model)
    await node.stop()
    # Of all that lies there it is the oldest, and all but one have to go.
    node = await start(disk_bytes="400000B")
    assert pinned.weights.blake3 in node.blobs()
    assert [stored.pinned for stored in (await node.state()).models if stored.model == "pinned"] == [True]
    assert (await node.refused(others[2])).reason is Reason.NO_SPACE
    await node.call(calls.Pin(pinned.digest, pinned=False))
    await node.ensure(others[2])
    assert pinned.weights.blake3 not in node.blobs()
    await node.stop()
    node = await start(disk_bytes="1000000B")
    assert not any(stored.pinned for stored in (await node.state()).models)
    with pytest.raises(EdgeError):
        await node.call(calls.Pin("f" * 64))
