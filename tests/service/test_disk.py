"""The book of a disk agrees with its files, also when who asked has left and when nothing fits any more."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.errors import EdgeError, Reason
from edge.weights.disk import Disk
from edge.weights.flights import Flights
from edge.weights.layout import blob_key
from edge.weights.store import Store
from edge.weights.unlinked import Evicted
from tests.support.wait import wait_until

DIGEST = "d" * 64
CAPACITY = 1_000


class SlowStore(Store):
    """Unlinks when it may."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, "n")
        self.began, self.may = threading.Event(), threading.Event()

    def evict(self, keys: tuple[str, ...]) -> list[Evicted]:
        if keys:
            self.began.set()
            assert self.may.wait(10)
        return super().evict(keys)


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    with ThreadPoolExecutor(2) as pool:
        flights = Flights(asyncio.get_running_loop().create_task)
        disk = Disk(SlowStore(tmp_path), CAPACITY, pool, flights)
        await disk.open(lambda _: None)
        yield disk
        assert await flights.finish(10)
        disk.close(clean=True)


def lies(disk: Disk, key: str, size_bytes: int) -> None:
    (disk.store.root / key).write_bytes(b"x" * size_bytes)
    disk.ledger.put(key, size_bytes, 1.0)


def writing(disk: Disk, key: str, raw: bytes) -> Callable[[], str]:
    def write() -> str:
        (disk.store.root / key).write_bytes(raw)
        return key

    return write


@pytest.mark.parametrize("dropped", [True, False], ids=["dropped", "for another file"])
async def test_an_eviction_is_booked_though_who_asked_left_meanwhile(disk: Disk, dropped: bool) -> None:
    assert isinstance(disk.store, SlowStore)
    key, gone = blob_key(DIGEST), list[str]()
    disk.on_gone.append(gone.append)
    lies(disk, key, 600)
    act = disk.drop([key]) if dropped else disk.keep(writing(disk, "small", b"y" * 500), 500, "small")
    asked = asyncio.get_running_loop().create_task(act)  # type: ignore[arg-type]
    await wait_until(disk.store.began.is_set)
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked
    assert key not in disk.ledger, "nobody may have it while it goes"
    assert disk.lock.locked(), "nobody enters bytes while a thread is at it"
    disk.store.may.set()
    await wait_until(lambda: not disk.lock.locked())
    assert not (disk.store.root / key).exists()
    assert (disk.ledger.size_bytes(key), gone) == (0, [key])
    assert disk.ledger.size_bytes("small") == (0 if dropped else 500)


@pytest.mark.parametrize(
    ("sentence", "before_bytes", "after_bytes", "fits"),
    [
        ("a smaller one in its place", 100, 90, True),
        ("one of the same size", 100, 100, True),
        ("a larger one", 100, 101, False),
        ("a new one", 0, 1, False),
    ],
)
async def test_a_small_file_on_a_disk_that_is_over_its_budget(
    disk: Disk, sentence: str, before_bytes: int, after_bytes: int, fits: bool
) -> None:
    lies(disk, blob_key(DIGEST), CAPACITY + 500)
    disk.ledger.pin(blob_key(DIGEST))
    if before_bytes:
        lies(disk, "pins.json", before_bytes)
    keeping = disk.keep(writing(disk, "pins.json", b"y" * after_bytes), after_bytes, "pins.json")
    if fits:
        await keeping
    else:
        with pytest.raises(EdgeError) as caught:
            await keeping
        assert caught.value.reason is Reason.NO_SPACE, sentence
    assert disk.ledger.size_bytes("pins.json") == (after_bytes if fits else before_bytes), sentence
