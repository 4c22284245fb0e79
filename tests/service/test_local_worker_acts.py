"""An operator's acts on a real worker and a real store: prefetch, evict, pin."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from edge.errors import Reason
from edge.policy.facts import State
from edge.proxy import acts as acts_module
from edge.proxy.acts import Acts
from edge.proxy.device import Stage
from tests.support import tiny
from tests.support.local import CONFIG, MIB, Children, Local, local, refused
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


@pytest.fixture
def acts(node) -> Acts:
    return Acts(node.store, node.models, {"n/0": node.worker})


async def test_a_model_is_brought_to_the_disk_and_then_to_the_device(node, acts):
    manifest, digest = node.published(tiny.heavy, side=242)
    disk = await acts.prefetch(digest, "disk")
    assert (disk.outcome, disk.residency, disk.moved_bytes) == ("on-disk", "origin", manifest.size_bytes)
    assert node.worker.book.entries() == []
    await node.wait_until_held()
    device = await acts.prefetch(digest, "device")
    assert (device.outcome, device.workers, device.residency) == ("resident", ("n/0",), "disk")
    again = await acts.prefetch(digest, "device", worker="n/0")
    assert (again.residency, again.moved_bytes) == ("device", 0)
    assert node.worker.book.find(digest).in_use == 0
    await node.wait_until_held(digest)


async def test_a_device_that_is_not_there_is_named(node, acts):
    _, digest = node.published(tiny.identity)
    assert (
        "no worker 'n/7' here; there are: n/0"
        in (await refused(acts.prefetch(digest, "device", worker="n/7"))).message
    )
    node.children.worker.kill()
    await wait_until(lambda: node.endpoint.state is State.STARTING)
    error = await refused(acts.prefetch(digest, "device"))
    assert error.reason is Reason.NO_ENDPOINT
    assert error.message.startswith("n/0 is starting: ")


async def test_evicting_waits_for_the_last_request(node, acts):
    manifest, digest = node.published(tiny.identity, 40)
    assert (await acts.evict(digest, "device")).outcome == "absent"
    await node.load(manifest)
    entry = node.worker.claim(digest, "identity")
    evicting = asyncio.ensure_future(acts.evict(digest, "device"))  # noqa: TID251 -- awaited below
    await wait_until(lambda: entry.on_idle is not None)
    assert not evicting.done()
    node.worker.unclaim(entry)
    act = await evicting
    assert (act.outcome, act.workers, act.freed_bytes) == ("evicted", ("n/0",), 40 * MIB)
    assert await node.on_device() == {}
    assert node.worker.used_bytes == 0
    await node.wait_until_held()


async def test_evicting_what_stays_in_use_is_refused(node, acts, monkeypatch):
    monkeypatch.setattr(acts_module, "IDLE_S", 0.2)
    manifest, digest = node.published(tiny.identity)
    await node.load(manifest)
    entry = node.worker.claim(digest, "identity")
    error = await refused(acts.evict(digest, "device"))
    assert (error.reason, error.retryable) == (Reason.BUSY, True)
    assert error.message == f"{digest} is used by 1 requests on n/0; ask again, or drain the node first"
    assert (entry.stage, set(await node.on_device())) == (Stage.RESIDENT, {digest})
    on_disk = await refused(acts.evict(digest, "disk"))
    assert on_disk.message == f"{digest} is on n/0; evict it from the device first"


async def test_a_pinned_model_is_nobodys_victim_and_the_store_remembers_it(node, acts):
    manifest, digest = node.published(tiny.identity, 60)
    _, other = node.published(tiny.picker, 60)
    await node.load(manifest)
    assert (await acts.pin(digest, True)).outcome == "pinned"
    error = await refused(node.worker.ensure(node.worker.claim(other, "picker"), 30_000))
    assert (error.reason, "pinned" in error.message) == (Reason.NO_MEMORY, True)
    assert (await refused(acts.evict(digest, "device"))).message == f"{digest} is pinned; unpin it first"
    node.worker.book.pinned = frozenset()
    node.children.store.kill()
    node.children.start_store()
    await wait_until(lambda: node.worker.book.pinned == {digest}, within_s=15)
    assert (await acts.pin(digest, False)).outcome == "unpinned"
    await node.worker.ensure(node.worker.claim(other, "picker"), 30_000)
    assert set(await node.on_device()) == {other}


async def test_a_model_is_evicted_from_the_disk(node, acts):
    manifest, digest = node.published(tiny.heavy, side=300)
    await acts.prefetch(digest, "disk")
    assert (await acts.evict(digest, "disk")).outcome == "evicted"
    assert (await acts.prefetch(digest, "disk")).residency == "origin"
    assert manifest.size_bytes > 0
