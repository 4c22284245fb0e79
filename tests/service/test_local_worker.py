"""A worker and a weight store as they really are: the book follows the truth, holds survive deaths."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from edge.config import Worker
from edge.errors import EdgeError, Reason
from edge.policy.facts import State
from edge.proxy import acts as acts_module
from edge.proxy import worker as worker_module
from edge.proxy.acts import Acts
from edge.proxy.device import Stage
from edge.weights import manifest as mf
from edge.wire import calls
from tests.support import tiny
from tests.support.local import Children, Local, local, own, tasks
from tests.support.wait import wait_until
from tests.support.worker import digest_of, infer_head, oip_body

MIB = 1 << 20
CONFIG = Worker(device_bytes="100MiB", hard_limit=8)


@pytest.fixture(scope="module")
def children(tmp_path_factory) -> Iterator[Children]:
    made = Children(tmp_path_factory.mktemp("node"), CONFIG)
    yield made
    made.close()


@pytest.fixture
async def node(children) -> AsyncIterator[Local]:
    async with local(children) as made:
        yield made


def published(node: Local, make, needs_mib=0, **options):
    """A small model that says it needs so much of the device."""
    manifest = make(node.blobs, **options)
    if needs_mib:
        manifest = msgspec.structs.replace(manifest, device_bytes=needs_mib * MIB)
    return manifest, node.publish(manifest)


async def refused(awaitable) -> EdgeError:
    with pytest.raises(EdgeError) as caught:
        await awaitable
    return caught.value


async def test_many_claims_are_one_load_and_one_hold(node):
    manifest, digest = published(node, tiny.heavy, side=202)
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
    _, digest = published(node, tiny.heavy, side=512)
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
            grown, grown_digest = published(node, tiny.heavy, side=2000)
            second, _ = published(node, tiny.heavy, side=1900)
            third, third_digest = published(node, tiny.heavy, side=1950)
            await node.load(grown)
            before = (await node.on_device())[grown_digest]

            async def has_grown():
                await node.infer(grown, [0.0] * 2000)
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
    manifest, digest = published(node, tiny.identity)
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
    manifest, digest = published(node, tiny.identity)
    await node.load(manifest)
    await node.wait_until_held(digest)
    await node.worker.dialer.shared().request(calls.Unload(digest=digest), timeout_s=10)
    await node.worker.refresh()
    assert node.worker.book.find(digest) is None
    assert digest not in node.endpoint.models
    await node.wait_until_held()


async def test_the_worker_says_that_it_lacks_a_model_and_is_believed_once(node):
    manifest, digest = published(node, tiny.identity)
    await node.load(manifest)
    entry = node.worker.book.find(digest)
    node.worker.forget(digest, entry)
    again = node.worker.claim(digest, "identity")
    node.worker.forget(digest, entry)
    node.worker.forget(digest, again)
    assert node.worker.book.find(digest) is again, "one that is being loaded stays"
    await node.worker.ensure(again, 10_000)
    await node.wait_until_held(digest)


# --- room


async def test_a_victim_that_is_claimed_while_another_leaves_stays(node):
    slow, _ = published(node, tiny.spinner, 40)
    kept, kept_digest = published(node, tiny.identity, 40)
    _, digest = published(node, tiny.picker, 80)
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
    kept, kept_digest = published(node, tiny.identity, 40)
    await node.load(kept)
    _, digest = published(node, tiny.picker, 101)
    error = await refused(node.worker.ensure(node.worker.claim(digest, "picker"), 30_000))
    assert (error.reason, error.retry_after_s) == (Reason.NO_MEMORY, None)
    assert f"needs {101 * MIB} bytes on n/0, whose budget is {100 * MIB}: it never fits" in error.message
    assert set(await node.on_device()) == {kept_digest}
    assert digest not in node.endpoint.models
    await node.wait_until_held(kept_digest)


async def test_only_judged_victims_leave_for_a_background_load(node):
    first, first_digest = published(node, tiny.identity, 40)
    second, second_digest = published(node, tiny.spinner, 40)
    _, digest = published(node, tiny.picker, 60)
    await node.load(first)
    await node.load(second)
    entry = node.worker.claim(digest, "picker", victims=frozenset())
    assert (await refused(node.worker.ensure(entry, 30_000))).reason is Reason.NO_MEMORY
    assert set(await node.on_device()) == {first_digest, second_digest}
    entry = node.worker.claim(digest, "picker", victims=frozenset({second_digest}))
    await node.worker.ensure(entry, 30_000)
    assert set(await node.on_device()) == {first_digest, digest}, "not the one used least lately"


async def test_a_request_that_joins_a_background_load_may_evict_anybody(node):
    first, _ = published(node, tiny.identity, 60)
    _, digest = published(node, tiny.picker, 60)
    await node.load(first)
    entry = node.worker.claim(digest, "picker", victims=frozenset())
    assert node.worker.claim(digest, "picker") is entry
    await node.worker.ensure(entry, 30_000)
    assert set(await node.on_device()) == {digest}


async def test_a_model_claimed_while_it_leaves_is_loaded_anew(node):
    manifest, digest = published(node, tiny.spinner, 40)
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


# --- the weight store dies


async def test_holds_come_back_with_the_store(node):
    manifests = [published(node, make)[0] for make in (tiny.identity, tiny.picker)]
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
    _, digest = published(node, tiny.heavy, side=226)
    node.children.store.freeze()
    entry = node.worker.claim(digest, "heavy")
    await wait_until(lambda: node.store.shared().in_flight > 0)
    node.children.store.kill()
    node.children.start_store()
    assert (await node.worker.ensure(entry, 30_000)).residency == "origin"
    await node.wait_until_held(digest)


async def test_a_store_that_dies_after_the_fetch_gets_the_hold_again(node):
    _, digest = published(node, tiny.heavy, side=228)
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
    manifest, digest = published(node, tiny.heavy, side=230)
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


# --- the worker dies


async def test_a_worker_that_dies_loses_its_models_and_their_holds(node):
    manifest, digest = published(node, tiny.identity)
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
    _, digest = published(node, tiny.heavy, side=234)
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
    _, digest = published(node, tiny.heavy, side=236)
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
    manifest, digest = published(node, tiny.identity, 40)
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


# --- an operator's acts


@pytest.fixture
def acts(node) -> Acts:
    return Acts(node.store, node.models, {"n/0": node.worker})


async def test_a_model_is_brought_to_the_disk_and_then_to_the_device(node, acts):
    manifest, digest = published(node, tiny.heavy, side=242)
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
    _, digest = published(node, tiny.identity)
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
    manifest, digest = published(node, tiny.identity, 40)
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
    manifest, digest = published(node, tiny.identity)
    await node.load(manifest)
    entry = node.worker.claim(digest, "identity")
    error = await refused(acts.evict(digest, "device"))
    assert (error.reason, error.retryable) == (Reason.BUSY, True)
    assert error.message == f"{digest} is used by 1 requests on n/0; ask again, or drain the node first"
    assert (entry.stage, set(await node.on_device())) == (Stage.RESIDENT, {digest})
    on_disk = await refused(acts.evict(digest, "disk"))
    assert on_disk.message == f"{digest} is on n/0; evict it from the device first"


async def test_a_pinned_model_is_nobodys_victim_and_the_store_remembers_it(node, acts):
    manifest, digest = published(node, tiny.identity, 60)
    _, other = published(node, tiny.picker, 60)
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
    manifest, digest = published(node, tiny.heavy, side=300)
    await acts.prefetch(digest, "disk")
    assert (await acts.evict(digest, "disk")).outcome == "evicted"
    assert (await acts.prefetch(digest, "disk")).residency == "origin"
    assert manifest.size_bytes > 0
