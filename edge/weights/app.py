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
from collections.abc import Callable
from typing import Any, Final

import uvloop

from edge.errors import EdgeError, Reason, Source
from edge.weights.keeper import Holder
from edge.weights.parts import Parts, WeightsBoot
from edge.weights.report import fetching, weights_state
from edge.weights.sources import Kind
from edge.weights.tidy import collect, verify
from edge.wire import calls, states
from edge.wire.exchange import Incoming
from edge.wire.link import Link

HEARTBEAT_S: Final = 1.0
#: An orphan waits this long for its proxy to leave: longer than any lease that is in use.
ORPHAN_S: Final = 5.0
MAX_LINKS: Final = 64
MAX_CALLS: Final = 1_024
#: Starting again won't help; the parent knows this status.
EXIT_UNFIT: Final = 3
_MAX_CALL_BODY_BYTES: Final = 64 * 1024

log = logging.getLogger(__name__)


class App:
    """The parts of one store, and whoever is linked to them."""

    def __init__(self, boot: WeightsBoot, group: asyncio.TaskGroup, on_crash: Callable[[], None]) -> None:
        self._group = group
        self._links: set[Link] = set()
        self._deserted = asyncio.Event()
        self._deserted.set()
        self.parts = Parts(boot, group, on_crash)

    async def wait_until_deserted(self) -> None:
        """The parent died: its proxy still serves until the lease has run out, so this serves it."""
        log.warning("the parent is gone")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ORPHAN_S):
                await self._deserted.wait()

    async def close(self) -> None:
        """End every link and all that is under way."""
        for link in list(self._links):
            link.close()
        await self.parts.close()
        for link in list(self._links):
            # Its far end does not read what was written last.
            if link.transport is not None:
                link.transport.abort()

    # --- links

    def link(self) -> Link:
        """The protocol of one accepted connection; its holds end with it."""
        holder, parts = Holder(), self.parts

        def closed(link: Link) -> None:
            self._links.discard(link)
            parts.keeper.drop(holder)
            parts.objects.drop(holder)
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
        parts = self.parts
        match call.head:
            case calls.Status():
                served = parts.server.served_bytes if parts.server is not None else 0
                state = weights_state(parts.hydrator, parts.keeper, parts.floors, parts.regional, served)
                state.objects_bytes = parts.objects.used_bytes
                state.scrubbed = parts.scrub.state()
                call.reply(*states.tell(state))
            case calls.Inventory(newer_than):
                number, body = parts.keeper.inventory()
                region, far, origin = (parts.choice.rate(kind) for kind in Kind)
                under_way, spoiled = fetching(parts.hydrator), sorted(parts.keeper.spoiled)
                told = calls.InventoryState(number, region, far, origin, under_way, spoiled)
                call.reply(told, body if number > newer_than else b"")
            case calls.Catalogue(newer_than):
                call.reply(*parts.catalogues.state(newer_than))
            case calls.Release(digest):
                try:
                    parts.keeper.release(digest, holder)
                except EdgeError as error:
                    call.fail(error)
                else:
                    call.reply(calls.Done())
            case calls.Verify() | calls.Collect():
                tidying = self._group.create_task(self._serve(call, holder))
                call.on_cancel = lambda: _cancel(tidying)
            case calls.ReleaseObjects(digests):
                parts.objects.release(digests, holder)
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
        parts = self.parts
        head: calls.Head = calls.Done()
        raw = b""
        try:
            match call.head:
                case calls.Ensure(digest, deadline_ms, hold, far):
                    head, raw = await parts.keeper.ensure(digest, deadline_ms, holder if hold else None, far)
                case calls.EnsureObjects(names, max_bytes, deadline_ms):
                    head = await parts.objects.ensure(names, max_bytes, deadline_ms, holder)
                case calls.GetManifest(digest, deadline_ms):
                    raw = await parts.keeper.manifest(digest, deadline_ms)
                case calls.Drop(digest):
                    parts.floors.check_free(digest)
                    head = await parts.keeper.evict(digest)
                case calls.Pin(digest, pinned):
                    await parts.floors.pin(digest, pinned=pinned)
                case calls.Verify(digest, deadline_ms, blob):
                    head = await verify(parts.hydrator, digest, deadline_ms, blob)
                case calls.Collect(dry_run):
                    catalogue = parts.catalogues.state()[1]
                    objects = parts.objects.lately()
                    head = await collect(parts.hydrator, catalogue, parts.floors, objects, dry_run=dry_run)
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
        parent.event(calls.Heartbeat(ready=app.parts.ready))
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
            await app.parts.open()
            server = await loop.create_unix_server(app.link, sock=socket.socket(fileno=boot.listen_fd))
            background.append(group.create_task(app.parts.poll()))
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
