"""What a model takes it gives back: the worker's private memory, the device's budget and the host's."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from edge.config import Worker
from edge.errors import EdgeError
from edge.wire import calls
from tests.support import tiny
from tests.support.local import Children, Local, local
from tests.support.wait import wait_until
from tests.support.worker import _START, Client, Process, connected, digest_of, infer_head

MIB = 1 << 20
#: What the runtime, the interpreter and the C library keep of it all; a model of 64 MiB is eight times that.
KEPT_BYTES = 8 * MIB


#: Whatever a disturbed machine measures, prepacking pays.
CONTENT = "from edge.worker import engine; engine.PREPACK_GAIN = -1e9;" + _START
#: Nothing is ever fast enough.
DEMANDING = "from edge.worker import engine; engine.PREPACK_GAIN = 2.0;" + _START


@pytest.fixture
def own(tmp_path) -> Iterator[Process]:
    process = Process(tmp_path, Worker(device_bytes="256MiB"), program=CONTENT)
    yield process
    process.close()


@pytest.fixture
async def node(tmp_path) -> AsyncIterator[Local]:
    children = Children(tmp_path, Worker(device_bytes="256MiB"))
    try:
        async with local(children) as made:
            yield made
    finally:
        children.close()


async def warmed_up(process: Process, client: Client) -> int:
    """Private bytes once the worker has loaded, run and unloaded something that weighs nothing."""
    model = tiny.identity(process.folder)
    await client.load(model)
    await client.infer(model, [1.0] * 16)
    await client.unload(model)
    return process.anonymous_bytes()


async def prepacked(process: Process, client: Client, model, times: int) -> None:
    """Two at once, until the log has said it so often."""
    side = model.inputs[0].shape[1]
    asks = [[0.5] * side, [0.25] * side]
    before = await client.infer(model, *asks)
    await wait_until(
        lambda: process.log.read_text().count("INFO:edge.worker:prepacked") == times, within_s=20
    )
    after = await client.infer(model, *asks)
    np.testing.assert_allclose(after.outputs["y"], before.outputs["y"], rtol=1e-3, atol=1e-3)


async def test_weights_that_are_mapped_are_nobodys_private_memory(own):
    model = tiny.heavy(own.folder, side=4096)  # 64 MiB
    async with connected(own) as client:
        before = await warmed_up(own, client)
        await client.load(model)
        await client.infer(model, [0.5] * 4096)
        assert own.anonymous_bytes() - before < KEPT_BYTES, "until it is prepacked"
        assert (await client.state()).used_bytes == model.size_bytes, "but the device counts them"


async def test_prepacked_weights_are_counted_and_given_back_however_often(own):
    model = tiny.heavy(own.folder, side=4096)
    weights_bytes = model.file("weights").size_bytes
    async with connected(own) as client:
        before = await warmed_up(own, client)
        for turn in range(1, 4):
            await client.load(model)
            await prepacked(own, client, model, turn)
            assert own.anonymous_bytes() - before > weights_bytes * 3 // 4, "prepacking copies the weights"
            assert (await client.state()).used_bytes == model.size_bytes + weights_bytes
            await client.unload(model)
            assert own.anonymous_bytes() - before < KEPT_BYTES, f"left after {turn} unloads"
            assert (await client.state()).used_bytes == 0


async def test_prepacking_that_gains_nothing_is_given_up_and_tried_once_more_when_it_batches(tmp_path):
    process = Process(tmp_path, Worker(device_bytes="256MiB"), program=DEMANDING)
    model, row = tiny.heavy(tmp_path, side=4096), [0.5] * 4096
    said = "not prepacked: nothing is gained by it"
    async with connected(process) as client:
        before = await warmed_up(process, client)
        await client.load(model)
        for items, times in ((1, 1), (1, 1), (2, 2), (2, 2)):
            for _ in range(20):
                await client.infer(model, *[row] * items)
            await wait_until(lambda times=times: process.log.read_text().count(said) == times, within_s=20)
            assert (await client.state()).used_bytes == model.size_bytes
        await wait_until(lambda: process.anonymous_bytes() - before < 2 * KEPT_BYTES)
    await asyncio.to_thread(process.close)


async def test_what_a_run_took_is_given_back_with_its_model(own):
    model = tiny.deaf(own.folder)
    document = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [2_500]}]}
    async with connected(own) as client:
        before = await warmed_up(own, client)
        await client.load(model)
        await client.link.request(infer_head(model), json.dumps(document).encode(), timeout_s=30)
        assert own.anonymous_bytes() - before > 25 * MIB, "the arena keeps two matrices of 25 MB"
        await client.unload(model)
        assert own.anonymous_bytes() - before < KEPT_BYTES


async def test_a_load_that_fails_leaves_nothing(own):
    liar = tiny.heavy(own.folder, side=4096)
    wrong = tiny.describe("liar", liar.files, liar.outputs, liar.inputs)
    async with connected(own) as client:
        before = await warmed_up(own, client)
        for _ in range(3):
            with pytest.raises(EdgeError, match="its graph has inputs"):
                await client.load(wrong)
        assert own.anonymous_bytes() - before < KEPT_BYTES
        assert (await client.state()).used_bytes == 0


async def test_eviction_empties_both_budgets(node):
    model = tiny.heavy(node.blobs, side=2048)
    digest = node.publish(model)
    await node.load(model)
    await node.wait_until_held(digest)

    async def host_used() -> int:
        state: calls.WeightsState = (await node.store.shared().request(calls.Status(), timeout_s=5)).head
        return state.host_used_bytes

    assert await host_used() == model.size_bytes
    assert await node.on_device() == {digest_of(model): model.size_bytes}
    await node.worker.loader.begin_leaving(node.worker.book.find(digest))
    await node.wait_until_held()
    assert (await host_used(), await node.on_device(), node.worker.used_bytes) == (0, {}, 0)
