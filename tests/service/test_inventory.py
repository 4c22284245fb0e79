"""What lies on this node's disk, as a real store tells it and as a broken one does."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from edge.config import Worker
from edge.errors import EdgeError, Reason
from edge.policy.facts import Rates, Tier
from edge.proxy.inventory import Inventory
from edge.wire import calls
from edge.wire.dial import Dialer
from edge.wire.exchange import Incoming
from edge.wire.link import Link
from tests.support import tiny
from tests.support.local import Children, Local, local, tasks
from tests.support.wait import wait_until


@pytest.fixture(scope="module")
def children(tmp_path_factory) -> Iterator[Children]:
    made = Children(tmp_path_factory.mktemp("node"), Worker(device_bytes="100MiB"))
    yield made
    made.close()


@pytest.fixture
async def node(children) -> AsyncIterator[Local]:
    async with local(children) as made:
        yield made


async def test_the_disk_is_known_over_deaths_of_the_store(node, tmp_path):
    changes: list[int] = []
    inventory = Inventory(node.store, on_change=lambda: changes.append(len(inventory.held)))
    manifest = tiny.heavy(node.blobs, side=64)
    digest = node.publish(manifest)
    async with tasks(inventory.run()):
        assert inventory.tier(digest) is Tier.ORIGIN
        await node.store.shared().request(calls.Ensure(digest=digest, hold=False), timeout_s=10)
        await wait_until(lambda: digest in inventory.held)
        assert inventory.held[digest] == (Tier.DISK, manifest.size_bytes)
        seen = len(changes)
        node.children.store.kill()
        await wait_until(lambda: not inventory.fresh)
        assert inventory.tier(digest) is Tier.DISK, "the disk is as it was"
        node.children.start_store()
        await wait_until(lambda: inventory.fresh, within_s=15)
        assert inventory.tier(digest) is Tier.DISK
        assert len(changes) == seen, "nothing changed, nobody was told"
        await node.load(manifest)
        await wait_until(lambda: inventory.tier(digest) is Tier.HOST)
        entry = node.worker.book.find(digest)
        await node.worker.loader.begin_leaving(entry)
        await node.store.shared().request(calls.Drop(digest=digest), timeout_s=10)
        await wait_until(lambda: digest not in inventory.held)
        await node.store.shared().request(calls.Ensure(digest=digest, hold=False), timeout_s=10)
        await wait_until(lambda: digest in inventory.held)
        node.children.store.kill()
        node.children.start_store(store=str(tmp_path / "new-disk"))
        await wait_until(lambda: not inventory.held, within_s=15)
        node.children.store.kill()
    assert len(changes) > seen


BROKEN = [
    ("no msgpack", calls.InventoryState(9), b"\xc1"),
    ("another shape", calls.InventoryState(9), msgspec.msgpack.encode({"d": "disk"})),
    ("a tier that no disk has", calls.InventoryState(9), msgspec.msgpack.encode({"d": ["device", 1]})),
    ("another answer", calls.Done(), b""),
]


async def test_an_answer_that_can_not_be_read_changes_nothing(tmp_path):
    answers: list[tuple[calls.Head, bytes]] = []

    def answer(call: Incoming) -> None:
        call.reply(*answers[-1])

    loop = asyncio.get_running_loop()
    links: list[Link] = []
    server = await loop.create_unix_server(
        lambda: Link(on_call=answer, on_open=links.append), str(tmp_path / "w.sock")
    )

    async def greet(_: Link) -> None:
        pass

    store = Dialer("n/weights", unix_path=str(tmp_path / "w.sock"), greet=greet, on_lost=lambda: None)
    async with server, tasks(store.run()):
        await store.wait_shared(5)
        inventory = Inventory(store, on_change=lambda: None)
        answers.append((calls.InventoryState(3, 5.0, 0.0, 7.0), msgspec.msgpack.encode({"d": ["disk", 5]})))
        await inventory.refresh()
        good = {"d": (Tier.DISK, 5)}
        rates = Rates(region=5.0, origin=7.0)
        assert (inventory.held, inventory.rates) == (good, rates), "what was not measured is guessed"
        for sentence, head, body in BROKEN:
            answers.append((head, body))
            with pytest.raises(EdgeError) as caught:
                await inventory.refresh()
            assert caught.value.reason is Reason.PROTOCOL, sentence
            assert (inventory.held, inventory.rates) == (good, rates), sentence
        answers.append((calls.InventoryState(3), b""))
        await inventory.refresh()
        assert inventory.held == good
        for link in links:
            link.close()
