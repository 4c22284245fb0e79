"""The weights process: frames in, frames out, and nothing of the work in between.

`main` is what the parent starts, with rights already dropped. The event loop here only
moves frames and keeps the books of `edge.weights`; every disk and network operation runs in
a thread, as hashing gigabytes inside the loop delayed it by tens of milliseconds.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from edge.config import Weights, size_bytes
from edge.errors import EdgeError, Reason, Source
from edge.weights import lending
from edge.weights.appraisal import Appraiser
from edge.weights.catalogue import Catalogues
from edge.weights.disk import Disk
from edge.weights.fetch import Choice, Limits
from edge.weights.flights import Flights
from edge.weights.floors import Floors
from edge.weights.hydrate import MAX_FETCHES, Hydrator
from edge.weights.index import Index
from edge.weights.keeper import Holder, Keeper
from edge.weights.layout import Found
from edge.weights.manifests import Manifests
from edge.weights.objects import Objects
from edge.weights.origin import Origin
from edge.weights.peersource import Peers
from edge.weights.regional import Regional
from edge.weights.report import fetching, weights_state
from edge.weights.scrub import Scrub
from edge.weights.serve import BlobServer, Lender, Lent
from edge.weights.sources import Kind
from edge.weights.store import Store
from edge.weights.tidy import collect, verify
from edge.weights.tls import Papers, context
from edge.wire import calls
from edge.wire.exchange import Incoming
from edge.wire.link import Link

HEARTBEAT_S: Final = 1.0
#: An orphan waits this long for its proxy to leave: longer than any lease that is in use.
ORPHAN_S: Final = 5.0
#: How long a clean stop waits for fetches to notice; one read from the origin takes at most 2 s.
STOP_WAIT_S: Final = 2.5
SWEEP_S: Final = 5.0
MAX_LINKS: Final = 64
MAX_CALLS: Final = 1_024
DISK_THREADS: Final = 4
#: Starting again won't help; the parent knows this status.
EXIT_UNFIT: Final = 3
SMALL_THREADS: Final = 4
_MAX_CALL_BODY_BYTES: Final = 64 * 1024

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


class App:
    """One store, its sources, and whoever is linked to them."""

    def __init__(self, boot: WeightsBoot, group: asyncio.TaskGroup, on_crash: Callable[[], None]) -> None:
        config = boot.weights
        self._group = group
        self._poll_ms = config.catalogue_poll_ms
        self._halt = threading.Event()
        self._deserted = asyncio.Event()
        self._deserted.set()
        self._small_threads = ThreadPoolExecutor(SMALL_THREADS, "weights-small")
        self._fetch_threads = ThreadPoolExecutor(MAX_FETCHES, "weights-fetch")
        self._disk_threads = ThreadPoolExecutor(DISK_THREADS, "weights-disk")
        origin = Origin(config.origin, request_timeout_ms=config.fetch_timeout_ms, stop=self._halt)
        store = Store(Path(config.store), boot.node)
        self.disk = Disk(store, size_bytes(config.disk_bytes), self._disk_threads)
        self.flights = Flights(group.create_task)
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
            region=boot.region,
            node=boot.node,
            shares=self._index is not None,
            nodes=self.regional.nodes,
        )
        self._links: set[Link] = set()
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

    # --- for the blob server

    def _lend(self, key: str) -> Lent | None:
        return lending.lend(self.disk, key, self.hydrator.may_give)

    def _take_back(self, lent: Lent) -> None:
        lending.take_back(self.disk, lent)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.disk.sweep()

    async def wait_until_deserted(self) -> None:
        """The parent died: its proxy still serves until the lease has run out, so this serves it."""
        log.warning("the parent is gone")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ORPHAN_S):
                await self._deserted.wait()

    async def close(self) -> None:
        """End every link and fetch; a store at rest is marked as cleanly stopped."""
        for link in list(self._links):
            link.close()
        self._halt.set()
        at_rest, _ = await asyncio.gather(self.flights.finish(STOP_WAIT_S), self._stop_serving())
        await self.regional.close()
        if self._index is not None:
            await self._index.close()
        self._peers.close()
        for link in list(self._links):
            # Its far end does not read what was written last.
            if link.transport is not None:
                link.transport.abort()
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

    # --- links

    def link(self) -> Link:
        """The protocol of one accepted connection; its holds end with it."""
        holder = Holder()

        def closed(link: Link) -> None:
            self._links.discard(link)
            self.keeper.drop(holder)
            self.objects.drop(holder)
            if not self._links:
                self._deserted.set()

        def opened(link: Link) -> None:
            self._links.add(link)
            self._deserted.clear()
            if len(self._links) > MAX_LINKS:
                log.warning("more than %d links: the newest is closed", MAX_LINKS)
                link.close()

        return Link(
            on_call=lambda call: self._answer(call, holder),
            on_open=opened,
            on_closed=closed,
            max_body_bytes=_MAX_CALL_BODY_BYTES,
            max_calls=MAX_CALLS,
        )

    def _answer(self, call: Incoming, holder: Holder) -> None:
        match call.head:
            case calls.Status():
                served = self.server.served_bytes if self.server is not None else 0
                state = weights_state(self.hydrator, self.keeper, self.floors, self.regional, served)
                state.objects_bytes = self.objects.used_bytes
                state.scrubbed = self.scrub.state()
                call.reply(state)
            case calls.Inventory(newer_than):
                number, body = self.keeper.inventory()
                region, far, origin = (self.choice.rate(kind) for kind in Kind)
                under_way, spoiled = fetching(self.hydrator), sorted(self.keeper.spoiled)
                told = calls.InventoryState(number, region, far, origin, under_way, spoiled)
                call.reply(told, body if number > newer_than else b"")
            case calls.Catalogue(newer_than):
                call.reply(*self.catalogues.state(newer_than))
            case calls.Release(digest):
                try:
                    self.keeper.release(digest, holder)
                except EdgeError as error:
                    call.fail(error)
                else:
                    call.reply(calls.Done())
            case calls.Verify() | calls.Collect():
                tidying = self._group.create_task(self._serve(call, holder))
                call.on_cancel = lambda: _cancel(tidying)
            case calls.ReleaseObjects(digests):
                self.objects.release(digests, holder)
                call.reply(calls.Done())
            case calls.EnsureObjects() | calls.Ensure() | calls.GetManifest() | calls.Drop() | calls.Pin():
                task = self._group.create_task(self._serve(call, holder))
                call.on_cancel = lambda: _cancel(task)
            case other:
                op = type(other).__name__
                call.fail(
                    EdgeError(Reason.PROTOCOL, f"weights does not answer {op}", source=Source.DOWNSTREAM)
                )

    async def _serve(self, call: Incoming, holder: Holder) -> None:
        """A call that may have to wait. Cancelled when its caller leaves."""
        head: calls.Head = calls.Done()
        raw = b""
        try:
            match call.head:
                case calls.Ensure(digest, deadline_ms, hold, far):
                    head, raw = await self.keeper.ensure(digest, deadline_ms, holder if hold else None, far)
                case calls.EnsureObjects(names, max_bytes, deadline_ms):
                    head = await self.objects.ensure(names, max_bytes, deadline_ms, holder)
                case calls.GetManifest(digest, deadline_ms):
                    raw = await self.keeper.manifest(digest, deadline_ms)
                case calls.Drop(digest):
                    self.floors.check_free(digest)
                    await self.keeper.evict(digest)
                case calls.Pin(digest, pinned):
                    await self.floors.pin(digest, pinned=pinned)
                case calls.Verify(digest, deadline_ms):
                    head = await verify(self.hydrator, digest, deadline_ms)
                case calls.Collect(dry_run):
                    catalogue = self.catalogues.state()[1]
                    head = await collect(self.hydrator, catalogue, self.floors, dry_run=dry_run)
                case _:
                    raise EdgeError(Reason.PROTOCOL, "not a call that waits")
        except EdgeError as error:
            call.fail(error)
        except Exception:
            log.exception("a call failed")
            call.fail(EdgeError(Reason.INTERNAL, "the weight store failed; its log says why"))
        else:
            call.reply(head, raw)


def _papers(boot: WeightsBoot) -> Papers:
    return Papers(boot.mesh_ca, boot.mesh_certificate, boot.mesh_key)


def _client_tls(boot: WeightsBoot) -> ssl.SSLContext | None:
    return context(ssl.Purpose.SERVER_AUTH, _papers(boot)) if boot.mesh_ca else None


def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()


async def _beat(parent: Link, app: App) -> None:
    while True:
        parent.event(calls.Heartbeat(ready=app.ready))
        await asyncio.sleep(HEARTBEAT_S)


async def serve(boot: WeightsBoot) -> None:
    """Run until SIGTERM, SIGINT or the parent's end; then stop cleanly within about 3 s.

    Raises EdgeError when the store can't be used.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    _, parent = await loop.create_connection(
        lambda: Link(on_closed=lambda _: stopping.set()), sock=socket.socket(fileno=boot.parent_fd)
    )
    async with asyncio.TaskGroup() as group:
        app = App(boot, group, on_crash=stopping.set)
        background: list[asyncio.Task[Any]] = [group.create_task(_beat(parent, app))]
        try:
            await app.open()
            server = await loop.create_unix_server(app.link, sock=socket.socket(fileno=boot.listen_fd))
            background.append(group.create_task(app.poll()))
            await stopping.wait()
            if parent.closed:
                await app.wait_until_deserted()
            server.close()
        finally:
            for task in background:
                task.cancel()
            await app.close()
            parent.close()


def main(boot: WeightsBoot) -> int:
    """The child process's whole life; its exit status: 0, or EXIT_UNFIT when the store can't be used."""
    try:
        uvloop.run(serve(boot))
    except BaseExceptionGroup as group:
        # A TaskGroup wraps what ends it.
        unusable, others = group.split(EdgeError)
        if unusable is None or others is not None:
            raise
        log.critical("the weight store can't begin: %s", _first(unusable))
        return EXIT_UNFIT
    return 0


def _first(group: BaseExceptionGroup[EdgeError]) -> EdgeError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
