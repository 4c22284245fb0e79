"""Objects whose fetches end in an unlucky order, and holds that come and go, over a real ledger."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from edge.errors import EdgeError, Reason
from edge.weights import entries
from edge.weights.budget import Ledger, Shelf
from edge.weights.entry import SCHEMA, Entry
from edge.weights.keeper import Holder
from edge.weights.layout import blob_key
from edge.weights.objects import Objects
from edge.weights.sources import Moved
from tests.support.wait import wait_until

ENTRY = Entry(schema=SCHEMA, name="a", size_bytes=7, blake3="d" * 64, sha256="e" * 64, chunks=("f" * 64,))
KEY = blob_key(ENTRY.blake3)


class Hydrator:
    """Its fetches are futures that the test ends, each by itself."""

    def __init__(self) -> None:
        self.disk = SimpleNamespace(ledger=Ledger(1 << 20), on_gone=[])
        self.manifests = SimpleNamespace(known={})
        self.fetches: list[asyncio.Future[None]] = []

    async def bring(self, _: Any) -> tuple[Moved, Any]:
        self.fetches.append(asyncio.get_running_loop().create_future())
        await self.fetches[-1]
        self.disk.ledger.put(KEY, ENTRY.size_bytes, 0.0)
        return Moved(), None


class Names:
    """One name, known at once."""

    fresh_ms = 60_000.0

    def at_once(self, _: str) -> Entry:
        return ENTRY

    async def get(self, _: str) -> entries.Answer:
        return entries.Answer(ENTRY, 0)


@pytest.fixture
async def hydrator() -> Hydrator:
    return Hydrator()


@pytest.fixture
async def objects(hydrator: Hydrator) -> AsyncIterator[Objects]:
    stands_for: Any = hydrator
    unused: Any = None
    made = Objects(stands_for, unused, unused)
    names: Any = Names()
    made.entries = names
    yield made
    made.close()


async def test_who_succeeds_after_another_failed_leaves_the_object_booked(
    hydrator: Hydrator, objects: Objects
) -> None:
    holder = Holder()
    ask = [
        asyncio.get_running_loop().create_task(objects.ensure(("a",), 100, 20_000, holder)) for _ in range(2)
    ]
    await wait_until(lambda: len(hydrator.fetches) == 2)
    hydrator.fetches[0].set_exception(EdgeError(Reason.ORIGIN_DOWN, "away"))
    assert (await ask[0]).objects[0].reason == "origin-down"
    hydrator.fetches[1].set_result(None)
    assert not (await ask[1]).objects[0].reason
    assert objects.used_bytes == ENTRY.size_bytes
    again = await objects.ensure(("a",), 100, 20_000, holder)
    assert not again.objects[0].reason
    objects.release((ENTRY.blake3,) * 2, holder)
    assert hydrator.disk.ledger.keys(Shelf.BLOBS) == [KEY]
    assert not hydrator.disk.ledger.pinned(KEY)


async def test_a_hold_that_was_given_back_leaves_nothing(hydrator: Hydrator, objects: Objects) -> None:
    holder = Holder()
    ask = asyncio.get_running_loop().create_task(objects.ensure(("a",), 100, 20_000, holder))
    await wait_until(lambda: hydrator.fetches)
    hydrator.fetches[0].set_result(None)
    await ask
    assert hydrator.disk.ledger.pinned(KEY)
    objects.release((ENTRY.blake3,) * 3, holder)
    assert not hydrator.disk.ledger.pinned(KEY)
    assert not objects._holds[holder]
