"""The worker process: calls come in as frames, are queued, run, and answered.

One event loop does I/O, small decoding and batching decisions; the runs are the scheduler's.
An `Infer` costs no task of its own: its callback decodes, queues and returns. Only what must
wait (loads, large bodies) gets a task, owned by `App.run`. It knows neither HTTP nor where
blobs come from; its rights were taken before `main`.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from edge import clock
from edge.config import Worker, size_bytes
from edge.errors import EdgeError, Reason, Source
from edge.oip.objects import none_here
from edge.weights import manifest
from edge.wire import calls, states
from edge.wire.exchange import Incoming
from edge.wire.link import Link
from edge.worker import codec
from edge.worker.engine import Device
from edge.worker.execution import Job
from edge.worker.objects import reader
from edge.worker.resident import Resident, Residents
from edge.worker.scheduler import INLINE_MS, Scheduler
from edge.worker.tasks import Work
from edge.worker.watchdog import Watchdog

log = logging.getLogger("edge.worker")

HEARTBEAT_S: Final = 1.0
#: An orphan waits this long for its proxy to leave: longer than any lease that is in use.
ORPHAN_S: Final = 5.0
#: After the parent has died or said stop: what runs may end within this.
FINISH_MS: Final = 2_500.0
#: Bodies and outputs above this are decoded and encoded beside the event loop.
LOOP_CODEC_BYTES: Final = 64 * 1024
#: A planned restart has two proxies for a moment, each with its own hard limit.
PROXIES: Final = 2


class WorkerBoot(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker is told.

    `listen_fd` is a listening UNIX socket, `parent_fd` a socket whose end means that the
    parent is gone. `served_by` names this worker in replies, as in "iad-b/0". It writes to `cache_dir`
    alone, if there is one.
    """

    index: int
    worker: Worker
    blobs_dir: str
    listen_fd: int
    parent_fd: int
    max_body_bytes: int
    served_by: str
    cache_dir: str = ""


class _Asked(Job):
    """A job with what its answer needs."""

    __slots__ = ("head", "incoming", "request", "resident")

    def __init__(
        self, incoming: Incoming, head: calls.Infer, request: codec.Request, resident: Resident, work: Work,
        arrived_ms: float,
    ) -> None:  # fmt: skip
        super().__init__(incoming, resident, work, arrived_ms, arrived_ms + head.deadline_ms)
        self.incoming = incoming
        self.head = head
        self.request = request
        self.resident = resident


class App:
    """A worker on a running event loop."""

    def __init__(self, boot: WorkerBoot) -> None:
        """Raises EdgeError(LOAD_FAILED) if the device is not there."""
        self._boot = boot
        cache_dir = Path(boot.cache_dir) if boot.cache_dir else None
        self._device = Device(boot.worker, Path(boot.blobs_dir), cache_dir)
        self._watchdog = Watchdog()
        self._residents = Residents(self._device, self._watchdog, size_bytes(boot.worker.device_bytes))
        self._codecs = ThreadPoolExecutor(1, "codec")
        self._links: set[Link] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._pending = 0
        self._max_pending = boot.worker.hard_limit * PROXIES
        self._idle = asyncio.Event()
        self._deserted = asyncio.Event()
        self._deserted.set()
        self._stop: asyncio.Event
        self._tasks: asyncio.TaskGroup
        self._scheduler: Scheduler

    async def run(self) -> None:
        """Serve until the parent is gone or SIGTERM came, then finish what runs."""
        loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        # On a GPU even a tiny run waits for the device: never on the event loop.
        self._scheduler = Scheduler(
            loop, self._watchdog, self._deliver, inline_ms=0.0 if self._device.on_gpu else INLINE_MS
        )
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        _, parent = await loop.create_unix_connection(
            lambda: Link(on_closed=lambda _: self._stop.set()),
            sock=socket.socket(fileno=self._boot.parent_fd),
        )
        server = await loop.create_unix_server(self._link, sock=socket.socket(fileno=self._boot.listen_fd))
        log.info("worker ready", extra={"device": self._device.name, "provider": self._device.provider})
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._beat(parent)
                await self._stop.wait()
                if parent.closed:
                    await self._wait_until_deserted()
                server.close()
                # Proxies send nothing more once they have heard it, and leave when all is answered: to
                # look at what has arrived only would lose what is on its way.
                for link in list(self._links):
                    link.goodbye()
                until_ms = clock.now_ms() + FINISH_MS
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FINISH_MS / 1000.0):
                        await self._deserted.wait()
                await self._wait_until_answered(until_ms)
                for task in self._waiting:
                    task.cancel()
        finally:
            for link in [*self._links, parent]:
                link.close()
            self._scheduler.close()
            self._residents.close()
            self._codecs.shutdown(wait=False, cancel_futures=True)
            self._watchdog.close()

    # --- links

    def _link(self) -> Link:
        return Link(
            on_call=self._on_call,
            on_open=self._opened,
            on_closed=self._closed,
            max_body_bytes=self._boot.max_body_bytes,
        )

    def _opened(self, link: Link) -> None:
        self._links.add(link)
        self._deserted.clear()

    def _closed(self, link: Link) -> None:
        self._links.discard(link)
        if not self._links:
            self._deserted.set()

    async def _wait_until_deserted(self) -> None:
        """The parent died: its proxy still serves until the lease has run out, so this serves it."""
        log.warning("the parent is gone")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ORPHAN_S):
                await self._deserted.wait()

    def _beat(self, parent: Link) -> None:
        """Tell the parent that this loop turns; the timer is the loop's own."""
        if not self._stop.is_set():
            parent.event(calls.Heartbeat())
            asyncio.get_running_loop().call_later(HEARTBEAT_S, self._beat, parent)

    def _on_call(self, incoming: Incoming) -> None:
        """One call of a proxy; runs inside the link's read callback."""
        head = incoming.head
        if isinstance(head, calls.Infer):
            arrived_ms = clock.now_ms()
            small = incoming.rest is None and len(incoming.body) <= LOOP_CODEC_BYTES
            if small and not head.content_encoding and not head.objects:
                self._infer(incoming, head, arrived_ms)
            else:
                self._spawn(incoming, self._infer_large(incoming, head, arrived_ms))
        elif isinstance(head, calls.Status):
            incoming.reply(*states.tell(self._state()))
        elif isinstance(head, calls.Load):
            self._spawn(incoming, self._load(incoming, head))
        elif isinstance(head, calls.Unload):
            self._spawn(incoming, self._unload(incoming, head))
        else:
            incoming.fail(EdgeError(Reason.PROTOCOL, f"a worker does not answer {type(head).__name__}"))

    def _spawn(self, incoming: Incoming, answer: Coroutine[None, None, None]) -> None:
        """Answer a call that must wait for something."""
        task = self._tasks.create_task(self._guarded(incoming, answer))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _guarded(self, incoming: Incoming, answer: Coroutine[None, None, None]) -> None:
        """Every call ends with an answer, and none takes the others down."""
        try:
            await answer
        except EdgeError as error:
            incoming.fail(error)
        except Exception:
            log.exception("a call failed")
            incoming.fail(EdgeError(Reason.INTERNAL, "the worker failed; its log says more"))

    # --- infer

    def _infer(self, incoming: Incoming, head: calls.Infer, arrived_ms: float) -> None:
        """The hot path: decode, queue, return."""
        try:
            resident = self._admit(head)
            request = self._read(head, incoming.body, resident)
            work = resident.task.accept(request.inputs)
        except EdgeError as error:
            incoming.fail(error)
            return
        self._submit(_Asked(incoming, head, request, resident, work, arrived_ms))

    async def _infer_large(self, incoming: Incoming, head: calls.Infer, arrived_ms: float) -> None:
        """The same with the decoding on a thread; counted from its first byte on."""
        resident = self._admit(head)
        body = await incoming.whole()
        loop = asyncio.get_running_loop()

        def prepare() -> tuple[codec.Request, Work]:
            request = self._read(head, body, resident)
            return request, resident.task.accept(request.inputs)

        request, work = await loop.run_in_executor(self._codecs, prepare)
        if self._residents.find(head.digest) is not resident:
            raise _not_loaded(head)
        self._submit(_Asked(incoming, head, request, resident, work, arrived_ms))

    def _admit(self, head: calls.Infer) -> Resident:
        resident = self._residents.find(head.digest)
        if resident is None:
            raise _not_loaded(head)
        if self._pending >= self._max_pending:
            raise EdgeError(
                Reason.SATURATED,
                f"the worker has {self._pending} requests",
                source=Source.UPSTREAM,
                retryable=True,
            )
        return resident

    def _read(self, head: calls.Infer, body: bytes, resident: Resident) -> codec.Request:
        limit = self._boot.max_body_bytes
        read_object = reader(head.objects, Path(self._boot.blobs_dir), limit) if head.objects else none_here
        return codec.read(head, body, resident.manifest, max_body_bytes=limit, read_object=read_object)

    def _submit(self, asked: _Asked) -> None:
        resident = asked.resident
        if log.isEnabledFor(logging.DEBUG):
            # Before it runs: a worker that is killed has said what it had.
            log.debug("request taken", extra={"id": asked.head.request_id, "model": asked.head.model})
        if not self._pending:
            self._idle.clear()
        self._pending += 1
        resident.pending += 1
        self._scheduler.submit(asked, resident.group(asked.work.key))

    def _deliver(self, job: Job) -> None:
        """One job has ended: answer it."""
        assert isinstance(job, _Asked)  # noqa: S101 -- this app submits nothing else
        resident = job.resident
        self._pending -= 1
        if not self._pending:
            self._idle.set()
        resident.delivered()
        if resident.wants_prepack:
            self._residents.prepack(resident)
        if job.incoming.cancelled:
            return
        if job.error is not None:
            job.incoming.fail(job.error)
        elif sum([output.array.nbytes for output in job.outputs]) <= LOOP_CODEC_BYTES:
            try:
                self._answer(job, self._write(job))
            except EdgeError as error:
                job.incoming.fail(error)
        else:
            self._spawn(job.incoming, self._deliver_large(job))

    async def _deliver_large(self, job: _Asked) -> None:
        loop = asyncio.get_running_loop()
        self._answer(job, await loop.run_in_executor(self._codecs, self._write, job))

    def _write(self, job: _Asked) -> tuple[calls.Inferred, bytes]:
        return codec.write(
            job.head,
            job.resident.manifest,
            job.request,
            job.outputs,
            max_body_bytes=self._boot.max_body_bytes,
        )

    def _answer(self, job: _Asked, written: tuple[calls.Inferred, bytes]) -> None:
        head, body = written
        head.queue_ms = job.queue_ms
        head.infer_ms = job.infer_ms
        head.items = job.items
        head.batch = job.batch
        head.lead = job.lead
        head.served_by = self._boot.served_by
        job.incoming.reply(head, body)

    async def _wait_until_answered(self, until_ms: float) -> None:
        """Jobs first, then the tasks that write their answers."""
        if self._pending:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout((until_ms - clock.now_ms()) / 1000.0):
                    await self._idle.wait()
        if self._waiting:
            await asyncio.wait(self._waiting, timeout=max(0.0, until_ms - clock.now_ms()) / 1000.0)

    # --- load, unload, status

    async def _load(self, incoming: Incoming, head: calls.Load) -> None:
        due_ms = clock.now_ms() + head.deadline_ms
        wanted = manifest.decode(await incoming.whole(), expect_digest=head.digest)
        resident = await self._residents.load(head.digest, wanted, due_ms)
        incoming.reply(calls.Loaded(resident.held_bytes, resident.load_ms, self._device.provider))

    async def _unload(self, incoming: Incoming, head: calls.Unload) -> None:
        await self._residents.unload(head.digest)
        incoming.reply(calls.Done())

    def _state(self) -> calls.WorkerState:
        return calls.WorkerState(
            device=self._device.name,
            provider=self._device.provider,
            device_bytes=self._residents.limit_bytes,
            used_bytes=self._residents.used_bytes,
            queued=self._scheduler.queued,
            executions=self._scheduler.executions,
            models=[
                calls.LoadedModel(
                    resident.digest,
                    resident.manifest.name,
                    resident.manifest.version,
                    resident.held_bytes,
                    resident.batch_cap,
                )
                for resident in self._residents.all()
            ],
        )


def _not_loaded(head: calls.Infer) -> EdgeError:
    # The proxy loads the model and asks again.
    return EdgeError(
        Reason.NO_ENDPOINT, f"{head.model[:128]} is not loaded", source=Source.UPSTREAM, retryable=True
    )


def main(boot: WorkerBoot) -> None:
    """Run the worker; returns never: ends the process with 0, or 1 if it can't begin."""
    status = 0
    try:
        uvloop.run(_serve(boot))
    except EdgeError as error:
        log.critical("the worker can't begin: %s", error.message)
        status = 1
    except Exception:
        log.exception("the worker failed")
        status = 1
    logging.shutdown()
    # Threads inside the runtime can't be interrupted, and waiting for them is what must not happen.
    os._exit(status)


async def _serve(boot: WorkerBoot) -> None:
    await App(boot).run()
