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
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from edge.config import Weights, size_bytes
from edge.errors import EdgeError, Reason, Source
from edge.weights.catalogue import Catalogues
from edge.weights.disk import Disk
from edge.weights.fetch import Limits
from edge.weights.flights import Flights
from edge.weights.hydrate import Hydrator, Threads
from edge.weights.keeper import Holder, Keeper
from edge.weights.origin import Origin
from edge.weights.store import Store
from edge.wire import calls
from edge.wire.exchange import Incoming
from edge.wire.link import Link

HEARTBEAT_S: Final = 1.0
#: An orphan waits this long for its proxy to leave: longer than any lease that is in use.
ORPHAN_S: Final = 5.0
#: How long a clean stop waits for fetches to notice; one read from the origin takes at most 2 s.
STOP_WAIT_S: Final = 2.5
SWEEP_S: Final = 5.0
MAX_FETCHES: Final = 4
MAX_LINKS: Final = 64
MAX_CALLS: Final = 1_024
DISK_THREADS: Final = 4
#: Starting again won't help; the parent knows this status.
EXIT_UNFIT: Final = 3
ORIGIN_THREADS: Final = 4
_MAX_CALL_BODY_BYTES: Final = 64 * 1024

log = logging.getLogger(__name__)


class WeightsBoot(msgspec.Struct):
    """What the parent hands over: a UNIX socket that listens, and its end of a pair to the parent."""

    node: str
    weights: Weights
    listen_fd: int
    parent_fd: int


class App:
    """One store, one origin, and whoever is linked to them."""

    def __init__(self, boot: WeightsBoot, group: asyncio.TaskGroup) -> None:
        config = boot.weights
        self._group = group
        self._poll_ms = config.catalogue_poll_ms
        self._halt = threading.Event()
        self._deserted = asyncio.Event()
        self._deserted.set()
        self._threads = Threads(
            ThreadPoolExecutor(ORIGIN_THREADS, "weights-origin"),
            ThreadPoolExecutor(MAX_FETCHES, "weights-fetch"),
        )
        self._disk_threads = ThreadPoolExecutor(DISK_THREADS, "weights-disk")
        origin = Origin(config.origin, request_timeout_ms=config.fetch_timeout_ms, stop=self._halt)
        store = Store(Path(config.store), boot.node)
        self.disk = Disk(store, size_bytes(config.disk_bytes), self._disk_threads)
        self.flights = Flights(group.create_task)
        limits = Limits(config.fetch_parallel, config.min_bytes_per_s)
        self.hydrator = Hydrator(self.disk, origin, self._threads, limits, self.flights, self._halt)
        self.keeper = Keeper(self.hydrator, size_bytes(config.host_bytes))
        self.catalogues = Catalogues(self.disk, origin, self._threads.origin)
        self._links: set[Link] = set()
        self.ready = False

    async def open(self) -> None:
        """Look at the store. Raises EdgeError when it can't be used."""
        found = await self.disk.open()
        self.hydrator.begin(found)
        self.catalogues.begin(found.catalogue)
        self.ready = True

    async def poll(self) -> None:
        """Ask for the catalogue, and look after lingering bytes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.catalogues.poll(self._poll_ms))
            group.create_task(self._sweep())

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
        at_rest = await self.flights.finish(STOP_WAIT_S)
        for link in list(self._links):
            # Its far end does not read what was written last.
            if link.transport is not None:
                link.transport.abort()
        for pool in self._threads:
            pool.shutdown(wait=False, cancel_futures=True)
        if at_rest:
            self._disk_threads.shutdown()
        else:
            log.warning("a fetch did not end in time: blobs are verified at the next start")
        self.disk.store.close(clean=at_rest and self.ready)

    # --- links

    def link(self) -> Link:
        """The protocol of one accepted connection; its holds end with it."""
        holder = Holder()

        def closed(link: Link) -> None:
            self._links.discard(link)
            self.keeper.drop(holder)
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
                call.reply(self.keeper.state())
            case calls.Catalogue(newer_than):
                call.reply(*self.catalogues.state(newer_than))
            case calls.Release(digest):
                try:
                    self.keeper.release(digest, holder)
                except EdgeError as error:
                    call.fail(error)
                else:
                    call.reply(calls.Done())
            case calls.Ensure() | calls.GetManifest():
                task = self._group.create_task(self._serve(call, holder))
                call.on_cancel = lambda: _cancel(task)
            case other:
                op = type(other).__name__
                call.fail(
                    EdgeError(Reason.PROTOCOL, f"weights does not answer {op}", source=Source.DOWNSTREAM)
                )

    async def _serve(self, call: Incoming, holder: Holder) -> None:
        """A call that may have to wait. Cancelled when its caller leaves."""
        head: calls.Head
        try:
            match call.head:
                case calls.Ensure(digest, deadline_ms):
                    head, raw = await self.keeper.ensure(digest, deadline_ms, holder)
                case calls.GetManifest(digest, deadline_ms):
                    head, raw = calls.Done(), await self.keeper.manifest(digest, deadline_ms)
                case _:
                    raise EdgeError(Reason.PROTOCOL, "not a call that waits")
        except EdgeError as error:
            call.fail(error)
        except Exception:
            log.exception("a call failed")
            call.fail(EdgeError(Reason.INTERNAL, "the weight store failed; its log says why"))
        else:
            call.reply(head, raw)


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
        app = App(boot, group)
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
