"""A full device, really: who leaves for whom, who stays, and what is said when nobody may leave."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from edge.errors import Reason
from edge.proxy.device import Stage
from tests.support import tiny
from tests.support.local import CONFIG, MIB, Children, Local, local, refused
from tests.support.wait import wait_until
from tests.support.worker import infer_head, oip_body


@pytest.fixture(scope="module")
def children(tmp_path_factory) -> Iterator[Children]:
    made = Children(tmp_path_factory.mktemp("node"), CONFIG)
    yield made
    made.close()


@pytest.fixture
async def node(children) -> AsyncIterator[Local]:
    async with local(children) as made:
        yield made


async def test_a_victim_that_is_claimed_while_another_leaves_stays(node):
    slow, _ = node.published(tiny.spinner, 40)
    kept, kept_digest = node.published(tiny.identity, 40)
    _, digest = node.published(tiny.picker, 80)
    await node.load(slow)
    for _ in range(100):
        await node.load(kept)
    link = node.worker.dialer.shared()
    running = asyncio.ensure_future(  # noqa: TID251 -- ends before this test does
        link.request(infer_head(slow), oip_body(slow, [1_000_000]), timeout_s=30)
    )
    entry = node.worker.claim(digest, "picker")
    await wait_until(lambda: node.worker.book.leaving())
    busy = node.worker.claim(kept_digest, "identity")
    error = await refused(node.worker.ensure(entry, 30_000))
    assert (error.reason, error.retryable, error.retry_after_s) == (Reason.NO_MEMORY, True, 2)
    assert "in use" in error.message
    assert node.worker.book.find(kept_digest) is busy
    assert set(await node.on_device()) == {kept_digest}
    await running
    assert (await node.infer(kept, [1.0] * 16)).items == 1
    await node.wait_until_held(kept_digest)
    node.worker.unclaim(busy)
    picker = node.worker.claim(digest, "picker")
    await node.worker.ensure(picker, 30_000)
    assert set(await node.on_device()) == {digest}
    await node.wait_until_held(digest)


async def test_a_model_that_never_fits_evicts_nobody(node):
    kept, kept_digest = node.published(tiny.identity, 40)
    await node.load(kept)
    _, digest = node.published(tiny.picker, 101)
    error = await refused(node.worker.ensure(node.worker.claim(digest, "picker"), 30_000))
    assert (error.reason, error.retry_after_s) == (Reason.NO_MEMORY, None)
    assert f"needs {101 * MIB} bytes on n/0, whose budget is {100 * MIB}: it never fits" in error.message
    assert set(await node.on_device()) == {kept_digest}
    assert digest not in node.endpoint.models
    await node.wait_until_held(kept_digest)


async def test_only_judged_victims_leave_for_a_background_load(node):
    first, first_digest = node.published(tiny.identity, 40)
    second, second_digest = node.published(tiny.spinner, 40)
    _, digest = node.published(tiny.picker, 60)
    await node.load(first)
    await node.load(second)
    entry = node.worker.claim(digest, "picker", victims=frozenset())
    assert (await refused(node.worker.ensure(entry, 30_000))).reason is Reason.NO_MEMORY
    assert set(await node.on_device()) == {first_digest, second_digest}
    entry = node.worker.claim(digest, "picker", victims=frozenset({second_digest}))
    await node.worker.ensure(entry, 30_000)
    assert set(await node.on_device()) == {first_digest, digest}, "not the one used least lately"


async def test_a_request_that_joins_a_background_load_may_evict_anybody(node):
    first, _ = node.published(tiny.identity, 60)
    _, digest = node.published(tiny.picker, 60)
    await node.load(first)
    entry = node.worker.claim(digest, "picker", victims=frozenset())
    assert node.worker.claim(digest, "picker") is entry
    await node.worker.ensure(entry, 30_000)
    assert set(await node.on_device()) == {digest}


async def test_a_model_claimed_while_it_leaves_is_loaded_anew(node):
    manifest, digest = node.published(tiny.spinner, 40)
    await node.load(manifest)
    old = node.worker.book.find(digest)
    link = node.worker.dialer.shared()
    running = asyncio.ensure_future(  # noqa: TID251 -- ends before this test does
        link.request(infer_head(manifest), oip_body(manifest, [300_000]), timeout_s=30)
    )
    leaving = node.worker.loader.begin_leaving(old)
    new = node.worker.claim(digest, "spinner")
    assert new is not old
    await node.worker.ensure(new, 30_000)
    assert leaving.done()
    assert (old.stage, new.stage) == (Stage.GONE, Stage.RESIDENT)
    await running
    await node.infer(manifest, 3)
    await node.wait_until_held(digest)
