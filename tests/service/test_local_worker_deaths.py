"""The weight store or the worker dies under a node: holds and loads survive, or end with a word."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from edge.errors import Reason
from edge.policy.facts import State
from edge.proxy.device import Stage
from tests.support import tiny
from tests.support.local import CONFIG, MIB, Children, Local, local, own, refused, tasks
from tests.support.wait import wait_until
from tests.support.worker import digest_of


@pytest.fixture(scope="module")
def children(tmp_path_factory) -> Iterator[Children]:
    made = Children(tmp_path_factory.mktemp("node"), CONFIG)
    yield made
    made.close()


@pytest.fixture
async def node(children) -> AsyncIterator[Local]:
    async with local(children) as made:
        yield made


# --- the weight store


async def test_holds_come_back_with_the_store(node):
    manifests = [node.published(make)[0] for make in (tiny.identity, tiny.picker)]
    for manifest in manifests:
        await node.load(manifest)
    first, second = map(digest_of, manifests)
    await node.wait_until_held(first, second)
    for _ in range(2):
        node.children.store.kill()
        node.children.start_store()
        await wait_until(lambda: not node.store.last_error, within_s=15)
        await node.wait_until_held(first, second)
    await node.worker.loader.begin_leaving(node.worker.book.find(first))
    await node.wait_until_held(second)


async def test_a_store_that_dies_in_a_fetch_is_waited_for(node):
    _, digest = node.published(tiny.heavy, side=226)
    node.children.store.freeze()
    entry = node.worker.claim(digest, "heavy")
    await wait_until(lambda: node.store.shared().in_flight > 0)
    node.children.store.kill()
    node.children.start_store()
    assert (await node.worker.ensure(entry, 30_000)).residency == "origin"
    await node.wait_until_held(digest)


async def test_a_store_that_dies_after_the_fetch_gets_the_hold_again(node):
    _, digest = node.published(tiny.heavy, side=228)
    node.children.worker.freeze()
    entry = node.worker.claim(digest, "heavy")
    await wait_until(lambda: entry.stage is Stage.OPENING)
    first = entry.held_on
    node.children.store.kill()
    node.children.start_store()
    await wait_until(lambda: entry.held_on is not first and node.worker.holds.is_held(entry), within_s=15)
    node.children.worker.thaw()
    await node.worker.ensure(entry, 30_000)
    await node.wait_until_held(digest)
    await node.worker.loader.begin_leaving(entry)
    await node.wait_until_held()


async def test_a_hold_that_is_refused_is_asked_for_again(node):
    manifest, digest = node.published(tiny.heavy, side=230)
    await node.load(manifest)
    entry = node.worker.book.find(digest)
    node.children.store.kill()
    node.children.start_store(host_bytes="1KiB")
    await wait_until(lambda: "host memory" in entry.hold_error, within_s=15)
    assert (await node.infer(manifest, [0.0] * 230)).items == 1, "it serves on"
    node.children.store.kill()
    node.children.start_store()
    await wait_until(lambda: node.worker.holds.is_held(entry), within_s=15)
    assert entry.hold_error == ""
    await node.wait_until_held(digest)


# --- the worker


async def test_a_worker_that_dies_loses_its_models_and_their_holds(node):
    manifest, digest = node.published(tiny.identity)
    await node.load(manifest)
    await node.wait_until_held(digest)
    node.children.worker.kill()
    await wait_until(lambda: node.endpoint.state is State.STARTING)
    assert (node.worker.book.entries(), node.worker.used_bytes, node.endpoint.models) == ([], 0, {})
    assert node.worker.last_error
    await node.wait_until_held()
    node.children.start_worker()
    await wait_until(lambda: node.endpoint.state is State.UP, within_s=20)
    assert node.worker.last_error == ""
    await node.load(manifest)
    await node.wait_until_held(digest)


async def test_a_worker_that_dies_in_a_load_fails_it_and_it_may_be_tried_again(node):
    _, digest = node.published(tiny.heavy, side=234)
    node.children.worker.freeze()
    entries = [node.worker.claim(digest, "heavy") for _ in range(3)]
    await wait_until(lambda: entries[0].stage is Stage.OPENING)
    node.children.worker.kill()
    for entry in entries:
        error = await refused(node.worker.ensure(entry, 30_000))
        assert (error.reason, error.retryable, error.retry_after_s) == (Reason.WORKER_LOST, True, 1)
    assert node.worker.book.entries() == []
    assert digest not in node.endpoint.models
    node.children.start_worker()
    await wait_until(lambda: node.endpoint.state is State.UP, within_s=20)
    again = node.worker.claim(digest, "heavy")
    assert (await node.worker.ensure(again, 30_000)).residency == "disk"
    assert set(await node.on_device()) == {digest}
    await node.wait_until_held(digest)


async def test_a_fetch_goes_on_while_the_worker_is_replaced(node):
    _, digest = node.published(tiny.heavy, side=236)
    node.children.store.freeze()
    entry = node.worker.claim(digest, "heavy")
    await wait_until(lambda: node.store.shared().in_flight > 0)
    node.children.worker.kill()
    await wait_until(lambda: node.endpoint.state is State.STARTING)
    assert node.worker.book.find(digest) is entry
    assert node.endpoint.models[digest].eta_ms > 0.0
    node.children.store.thaw()
    node.children.start_worker()
    assert (await node.worker.ensure(entry, 30_000)).residency == "origin"
    await node.wait_until_held(digest)


async def test_a_new_proxy_finds_what_the_old_one_loaded(node):
    manifest, digest = node.published(tiny.identity, 40)
    await node.load(manifest)
    endpoint = own(CONFIG)
    successor = node.local_worker(endpoint)
    async with tasks(successor.run()):
        await wait_until(lambda: endpoint.state is State.UP)
        entry = successor.book.find(digest)
        assert (entry.stage, entry.device_bytes) == (Stage.RESIDENT, 40 * MIB)
        await wait_until(lambda: successor.holds.is_held(entry))


async def test_a_worker_that_never_starts_is_given_up_for_good(node, tmp_path):
    dialed: list[State] = []
    states: list[State] = []
    endpoint = own(CONFIG, lambda: states.append(endpoint.state))
    worker = node.local_worker(endpoint, str(tmp_path / "broken.sock"), starting_s=0.2)

    async def hang_up(_, writer) -> None:
        dialed.append(endpoint.state)
        writer.close()

    server = await asyncio.start_unix_server(hang_up, tmp_path / "broken.sock")
    async with server, tasks(worker.run()):
        await wait_until(lambda: dialed.count(State.DOWN) >= 3)
        assert State.STARTING not in states[states.index(State.DOWN) :]
        assert (states[0], worker.was_up.is_set()) == (State.STARTING, False)
        assert worker.last_error
