"""A worker and a weight store as they really are: many claims are one load, and the book follows the truth."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from edge.config import Worker
from edge.errors import Reason
from edge.proxy import worker as worker_module
from edge.proxy.device import Stage
from edge.weights import manifest as mf
from edge.wire import calls
from tests.support import tiny
from tests.support.local import CONFIG, Children, Local, local, refused
from tests.support.wait import wait_until


@pytest.fixture(scope="module")
def children(tmp_path_factory) -> Iterator[Children]:
    made = Children(tmp_path_factory.mktemp("node"), CONFIG)
    yield made
    made.close()


@pytest.fixture
async def node(children) -> AsyncIterator[Local]:
    async with local(children) as made:
        yield made


async def test_many_claims_are_one_load_and_one_hold(node):
    manifest, digest = node.published(tiny.heavy, side=202)
    entries = [node.worker.claim(digest, "heavy") for _ in range(20)]
    assert len({id(entry) for entry in entries}) == 1
    assert node.endpoint.models[digest].eta_ms > 0.0, "the fleet knows that it comes"
    ready = await asyncio.gather(*(node.worker.ensure(entry, 30_000) for entry in entries))
    assert {one.residency for one in ready} == {"origin"}
    assert node.hydrated == [("heavy", "origin", manifest.size_bytes)]
    known = node.endpoint.models[digest]
    assert (known.eta_ms, known.load_ms > 0.0) == (0.0, True)
    assert node.worker.moves.times.expect_ms(digest, 0) == known.load_ms
    for entry in entries:
        node.worker.unclaim(entry)
    again = node.worker.claim(digest, "heavy")
    assert await node.worker.ensure(again, 1) == ("device", 0.0, 0)
    assert (again.in_use, again.stage) == (1, Stage.RESIDENT)
    await node.wait_until_held(digest)


async def test_a_deadline_leaves_the_load_alone(node):
    _, digest = node.published(tiny.heavy, side=512)
    node.children.worker.freeze()
    entry = node.worker.claim(digest, "heavy")
    error = await refused(node.worker.ensure(entry, 50))
    assert error.reason is Reason.DEADLINE
    node.worker.unclaim(entry)
    node.children.worker.thaw()
    await wait_until(lambda: entry.stage is Stage.RESIDENT)
    await node.wait_until_held(digest)


async def test_a_model_that_grew_when_it_was_prepacked_is_evicted_all_the_same(tmp_path, monkeypatch):
    # Only the load itself asks what the worker has.
    monkeypatch.setattr(worker_module, "LOOK_S", 1_000.0)
    children = Children(tmp_path, Worker(device_bytes="48MiB"))
    with contextlib.closing(children):
        async with local(children) as node:
            grown, grown_digest = node.published(tiny.heavy, side=2000)
            second, _ = node.published(tiny.heavy, side=1900)
            third, third_digest = node.published(tiny.heavy, side=1950)
            await node.load(grown)
            before = (await node.on_device())[grown_digest]

            async def has_grown():
                await node.infer(grown, [0.0] * 2000, [0.0] * 2000)
                return (await node.on_device())[grown_digest] > 1.9 * before

            await wait_until(has_grown, within_s=20)
            await node.load(second)
            await node.load(third)
            left = await node.on_device()
            assert third_digest in left
            assert len(left) == 2, "one of the others had to leave"
            assert node.worker.used_bytes == sum(left.values())
            await node.wait_until_held(*left)


async def test_what_the_worker_has_alone_is_taken_over_and_held(node):
    manifest, digest = node.published(tiny.identity)
    await node.store.shared().request(calls.Ensure(digest=digest, hold=False), timeout_s=10)
    head = calls.Load(digest=digest)
    await node.worker.dialer.shared().request(head, mf.encode(manifest), timeout_s=10)
    assert node.worker.book.find(digest) is None
    await node.worker.refresh()
    entry = node.worker.book.find(digest)
    assert entry.stage is Stage.RESIDENT
    assert entry.device_bytes == (await node.on_device())[digest]
    assert digest in node.endpoint.models
    await wait_until(lambda: node.worker.holds.is_held(entry))


async def test_what_the_worker_lost_alone_is_given_back(node):
    manifest, digest = node.published(tiny.identity)
    await node.load(manifest)
    await node.wait_until_held(digest)
    await node.worker.dialer.shared().request(calls.Unload(digest=digest), timeout_s=10)
    await node.worker.refresh()
    assert node.worker.book.find(digest) is None
    assert digest not in node.endpoint.models
    await node.wait_until_held()


async def test_the_worker_says_that_it_lacks_a_model_and_is_believed_once(node):
    manifest, digest = node.published(tiny.identity)
    await node.load(manifest)
    entry = node.worker.book.find(digest)
    node.worker.forget(digest, entry)
    again = node.worker.claim(digest, "identity")
    node.worker.forget(digest, entry)
    node.worker.forget(digest, again)
    assert node.worker.book.find(digest) is again, "one that is being loaded stays"
    await node.worker.ensure(again, 10_000)
    await node.wait_until_held(digest)
