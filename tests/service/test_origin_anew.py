"""An origin that was lost and made anew: what nodes refuse of it, how often they read that, what they are told."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.weights import manifest as mf
from edge.weights.catalogue import Catalogues
from edge.weights.disk import Disk
from edge.weights.flights import Flights
from edge.weights.origin import Object, Origin
from edge.weights.publish import Publisher
from edge.weights.store import Store
from tests.support import tiny
from tests.support.stores import a_store, doubler


class Quiet:
    def begins(self, what: str, total_bytes: int) -> None: ...

    def moved(self, count_bytes: int) -> None: ...


class Watched(Origin):
    """Counts how often a catalogue was sent whole."""

    whole = 0

    def small(self, path: str, max_bytes: int, etag: str | None = None) -> Object | None:
        found = super().small(path, max_bytes, etag)
        self.whole += found is not None
        return found


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def push(origin: Path, store: Path, epoch_above: int = 0) -> int:
    publisher = Publisher(f"file://{origin}", stop=threading.Event(), report=Quiet())
    return publisher.push(store, [], None, epoch_above=epoch_above).epoch


async def test_nodes_believe_an_origin_made_anew_once_it_is_above_what_they_hold(
    tmp_path: Path, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("store", "origin"):
        (tmp_path / name / "blobs").mkdir(parents=True)
    blobs = tmp_path / "store/blobs"
    store = a_store(tmp_path / "store", tiny.identity(blobs), doubler(blobs))
    disk = Disk(Store(tmp_path / "n", "n"), 1 << 30, threads, Flights(asyncio.get_running_loop().create_task))
    await disk.open(lambda _: None)
    origin = Watched(f"file://{tmp_path}/origin", request_timeout_ms=5_000, stop=threading.Event())
    node = Catalogues(disk, origin, threads)
    lost = mf.encode_catalogue(
        mf.Catalogue(700, mf.decode_catalogue((store / "catalog.json").read_bytes()).models)
    )
    (tmp_path / "origin/catalog.json").write_bytes(lost)
    await node.ask()
    assert node.state()[0].epoch == 700

    (tmp_path / "origin/catalog.json").unlink()
    assert push(tmp_path / "origin", store) == 1
    before = origin.whole
    for _ in range(3):
        await node.ask()
    assert (node.state()[0].epoch, node.state()[0].origin_up, node.refused) == (700, True, 1)
    assert origin.whole == before + 1, "what was refused is not read again"
    said = "epoch 1 is lower than 700, which is held; publish it with `popctl models push --epoch-above 700`"
    assert said in caplog.text

    assert push(tmp_path / "origin", store, epoch_above=700) == 701, "though nothing else is new"
    assert push(tmp_path / "origin", store, epoch_above=700) == 701, "it is above already"
    await node.ask()
    assert node.state()[0].epoch == 701
    publisher = Publisher(f"file://{tmp_path}/origin", stop=threading.Event(), report=Quiet())
    assert publisher.rollout("identity", "1").epoch == 702
    assert publisher.rollback("identity").epoch == 703, "over the jump"
