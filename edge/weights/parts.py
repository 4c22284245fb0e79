"""The parts of the weights process: one store, its sources, the region's index, and what goes on unasked.

Made here once and connected. Knows no call: what is asked of them, and by whom, is `edge.weights.app`'s
business.
"""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from edge.config import Weights, size_bytes
from edge.weights import lending
from edge.weights.appraisal import Appraiser
from edge.weights.catalogue import Catalogues
from edge.weights.disk import Disk
from edge.weights.fetch import Choice, Limits
from edge.weights.flights import Flights
from edge.weights.floors import Floors
from edge.weights.hydrate import Hydrator
from edge.weights.index import Index
from edge.weights.keeper import Keeper
from edge.weights.layout import Found
from edge.weights.manifests import Manifests
from edge.weights.objects import Objects
from edge.weights.origin import Origin
from edge.weights.peersource import Peers
from edge.weights.regional import Regional
from edge.weights.scrub import Scrub
from edge.weights.serve import BlobServer, Lender, Lent
from edge.weights.store import Store
from edge.weights.tls import Papers, context
from edge.weights.turns import MAX_FETCHES

#: How long a clean stop waits for fetches to notice; one read from the origin takes at most 2 s.
STOP_WAIT_S: Final = 2.5
SWEEP_S: Final = 5.0
DISK_THREADS: Final = 4
SMALL_THREADS: Final = 4

log = logging.getLogger(__name__)


class WeightsBoot(msgspec.Struct):
    """What the parent hands over: a UNIX socket that listens, and its end of a pair to the parent.

    `boot` is a random id of this very start. `blobs_fd` is a TCP socket that listens; blobs are given
    and taken only with the mesh's papers (PEM texts).
    """

    node: str
    weights: Weights
    listen_fd: int
    parent_fd: int
    region: str = ""
    boot: str = "0"
    blobs_fd: int | None = None
    index_password: str = ""
    mesh_ca: str = ""
    mesh_certificate: str = ""
    mesh_key: str = ""


class Parts:
    """Everything that one weights process is made of. `on_crash` is called when the blob server dies."""

    def __init__(self, boot: WeightsBoot, group: asyncio.TaskGroup, on_crash: Callable[[], None]) -> None:
        config = boot.weights
        self._poll_ms = config.catalogue_poll_ms
        self._halt = threading.Event()
        self._small_threads = ThreadPoolExecutor(SMALL_THREADS, "weights-small")
        self._fetch_threads = ThreadPoolExecutor(MAX_FETCHES, "weights-fetch")
        self._disk_threads = ThreadPoolExecutor(DISK_THREADS, "weights-disk")
        origin = Origin(config.origin, request_timeout_ms=config.fetch_timeout_ms, stop=self._halt)
        store = Store(Path(config.store), boot.node)
        self.flights = Flights(group.create_task)
        self.disk = Disk(store, size_bytes(config.disk_bytes), self._disk_threads, self.flights)
        self.choice = Choice()
        self.server = self._make_server(boot, on_crash)
        self._index = self._make_index(boot) if self.server is not None else None
        self._peers = Peers(_client_tls(boot), self._halt)
        self.regional = Regional(
            self._index,
            node=boot.node,
            peers=self._peers,
            origin=origin,
            lease_ms=config.index.lease_ms if config.index is not None else 0,
            stop=self._halt,
        )
        manifests = Manifests(
            self.disk, origin, self._small_threads, self.flights, self.regional, self.choice
        )
        self.disk.appraiser = Appraiser(manifests, self.regional, self.choice)
        self.hydrator = Hydrator(
            self.disk,
            manifests,
            self.regional,
            self.choice,
            self._fetch_threads,
            Limits(config.fetch_parallel, config.min_bytes_per_s),
            self.flights,
            self._halt,
        )
        self.scrub = Scrub(
            self.hydrator,
            self.flights,
            bytes_per_s=config.scrub_bytes_per_s,
            every_s=config.scrub_every_s,
        )
        self.keeper = Keeper(self.hydrator, size_bytes(config.host_bytes))
        self.objects = Objects(self.hydrator, origin, self.flights)
        self.catalogues = Catalogues(self.disk, origin, self._small_threads)
        self.floors = Floors(
            self.hydrator,
            self.catalogues,
            self.flights,
            region=boot.region,
            node=boot.node,
            shares=self._index is not None,
            nodes=self.regional.nodes,
        )
        self.ready = False

    def _make_server(self, boot: WeightsBoot, on_crash: Callable[[], None]) -> BlobServer | None:
        if boot.blobs_fd is None:
            return None
        listener = socket.socket(fileno=boot.blobs_fd)
        if not boot.mesh_ca:
            listener.close()
            log.warning(
                "weights.blobs is set but mesh is not: no blobs are given or taken without its papers"
            )
            return None
        tls = context(ssl.Purpose.CLIENT_AUTH, _papers(boot))
        return BlobServer(listener, tls, Lender(self._lend, self._take_back), on_crash)

    def _make_index(self, boot: WeightsBoot) -> Index | None:
        if boot.weights.index is None:
            return None
        return Index(
            boot.weights.index,
            region=boot.region,
            node=boot.node,
            boot=boot.boot,
            blobs=boot.weights.blobs,
            password=boot.index_password,
            stored=lambda: self.hydrator.stored(),
            on_change=lambda: None,
        )

    async def open(self) -> None:
        """Look at the store. Raises EdgeError when it can't be used."""
        await self.disk.open(self._begin)
        self.ready = True
        if self.server is not None:
            self.server.start()

    def _begin(self, found: Found) -> None:
        self.hydrator.begin(found)
        self.objects.begin()
        self.catalogues.begin(found.catalogue)
        self.floors.begin(found)

    async def poll(self) -> None:
        """Everything that goes on without being asked for, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.catalogues.poll(self._poll_ms))
            group.create_task(self._sweep())
            group.create_task(self.hydrator.settle_doubts())
            group.create_task(self.scrub.run())
            group.create_task(self.floors.run())
            group.create_task(self.keeper.residency.run())
            if self._index is not None:
                group.create_task(self._index.run())

    def _lend(self, key: str) -> Lent | None:
        return lending.lend(self.disk, key, self.hydrator.may_give)

    def _take_back(self, lent: Lent) -> None:
        lending.take_back(self.disk, lent)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.disk.sweep()

    async def close(self) -> None:
        """End every fetch; a store at rest is marked as cleanly stopped."""
        self._halt.set()
        at_rest, _ = await asyncio.gather(self.flights.finish(STOP_WAIT_S), self._stop_serving())
        await self.regional.close()
        if self._index is not None:
            await self._index.close()
        self._peers.close()
        for pool in (self._small_threads, self._fetch_threads):
            pool.shutdown(wait=False, cancel_futures=True)
        self.choice.close(wait=False)
        self.objects.close()
        if at_rest:
            self._disk_threads.shutdown()
        else:
            log.warning("a fetch did not end in time: blobs are verified at the next start")
        self.disk.close(clean=at_rest and self.ready and not self.hydrator.in_doubt)

    async def _stop_serving(self) -> None:
        if self.server is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.server.stop)


def _papers(boot: WeightsBoot) -> Papers:
    return Papers(boot.mesh_ca, boot.mesh_certificate, boot.mesh_key)


def _client_tls(boot: WeightsBoot) -> ssl.SSLContext | None:
    return context(ssl.Purpose.SERVER_AUTH, _papers(boot)) if boot.mesh_ca else None
