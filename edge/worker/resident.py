"""The models on the device: load once, count what they hold, give it back.

The device's memory is a budget of our own, reserved before anything is opened: ONNX Runtime
limits each session alone. Loads and prepacking run on threads beside the serving ones; the
table itself belongs to the event loop. Knows no frames and no tensors.
"""

import asyncio
import functools
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.weights.manifest import Manifest
from edge.worker import tasks
from edge.worker.batch import Group
from edge.worker.engine import Device, Model, Run
from edge.worker.tasks import Work
from edge.worker.trust import Trust
from edge.worker.watchdog import Watchdog

log = logging.getLogger("edge.worker")

#: Shapes whose cost is remembered, per model; beyond, the oldest is forgotten.
MAX_SHAPES: Final = 64
#: A model that has batched, or run this often, is worth the seconds that finding out takes.
PREPACK_AFTER_RUNS: Final = 16
#: What is run to find out, of a model that has batched.
PROBE_ITEMS: Final = 4
#: What has run before gets so long when the device is in doubt.
EXAMPLE_MS: Final = 10_000.0
MIB: Final = 1 << 20


class Resident:
    """One loaded model: what it is, what it costs, who uses it."""

    def __init__(
        self,
        digest: str,
        model: Model,
        task: tasks.Task,
        held_bytes: int,
        load_ms: float,
        trust: Trust,
        example: Callable[[], str] | None,
    ) -> None:
        """`example` runs what has run on this device before; None where nothing has."""
        self.digest = digest
        self.model = model
        self.manifest = model.manifest
        #: For people.
        self.name = f"{model.manifest.name} version {model.manifest.version}"
        self.task = task
        self.held_bytes = held_bytes
        self.load_ms = load_ms
        self.runs = 0
        self.batched = False
        self.may_prepack = not model.prepacked
        self._prepack_after_runs = PREPACK_AFTER_RUNS
        self._probed_batched = False
        self.prepacking: asyncio.Future[bool] | None = None
        #: Jobs accepted and not yet delivered; unloading waits for them.
        self.pending = 0
        self._trust = trust
        self._example = example
        self._idle: asyncio.Future[None] | None = None
        self._groups: dict[object, Group] = {}

    @property
    def batch_cap(self) -> int:
        """The most items that now run together, over the shapes seen."""
        groups = list(self._groups.values())
        return max((group.cost.cap(group.max_batch) for group in groups), default=1)

    def group(self, key: object) -> Group:
        """The group of requests of this shape."""
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= MAX_SHAPES:
                del self._groups[next(iter(self._groups))]
            group = self._groups[key] = Group(self.manifest.max_batch)
        return group

    def begin(self) -> Run:
        """A new execution over its graphs."""
        return self.model.begin()

    def executed(self, work: Work, items: int, duration_ms: float) -> None:
        """One execution has succeeded; called by the thread that ran it."""
        self.runs += 1
        self._trust.succeeded()
        self.batched = self.batched or items > 1
        group = self._groups.get(work.key)
        if group is not None:
            group.cost.observe(items, duration_ms)

    def failed(self, error: EdgeError) -> None:
        """A request of it has failed alone; called by the thread that ran it."""
        if error.reason is Reason.INFER_FAILED and self._example is not None:
            self._trust.failed(self.name, error.message, self._example)

    @property
    def wants_prepack(self) -> bool:
        """True once what prepacking gains is likely to be worth what it takes."""
        return self.may_prepack and (self.batched or self.runs >= self._prepack_after_runs)

    def prepack(self, watched: Callable[[Run, Callable[[], object]], None]) -> bool:
        """Swap to prepacked sessions if they are faster at what it does; on the prepacker's thread.

        `watched` makes one run of it and ends one that takes too long. Raises EdgeError.
        """
        if self._example is None:
            return self.model.prepack()
        self._probed_batched = self.batched
        items = min(PROBE_ITEMS, self.manifest.max_batch) if self.batched else 1
        works = [self.task.example()] * items
        return self.model.prepack(lambda run: watched(run, lambda: self.task.run(works, run)))

    def gained_nothing(self) -> None:
        """Prepacking did not pay. If that was one at a time, several at once are another question."""
        self.may_prepack = not self._probed_batched
        self._prepack_after_runs = sys.maxsize

    def forget_costs(self) -> None:
        """The sessions were changed: learn anew."""
        self._groups = {}

    def delivered(self) -> None:
        """One job of this model has been answered."""
        self.pending -= 1
        if self.pending == 0 and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def wait_until_idle(self) -> None:
        """Return once no job of this model is queued or running; their deadlines bound this."""
        if self.pending:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle


class _Loading:
    """A load, for the watchdog: one waiter, and no way to end it but the process."""

    abandoned = False

    def __init__(self, due_ms: float) -> None:
        self.due_ms = due_ms

    def terminate(self) -> None:
        """Nothing can be done from outside."""


class Residents:
    """The table: digest -> Resident, and the budget in bytes."""

    def __init__(self, device: Device, watchdog: Watchdog, limit_bytes: int) -> None:
        self._device = device
        self._watchdog = watchdog
        self._trust = Trust(watchdog.fail)
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._table: dict[str, Resident] = {}
        self._loading: dict[str, asyncio.Future[Resident]] = {}
        self._unloading: dict[str, asyncio.Future[None]] = {}
        self._loader = ThreadPoolExecutor(1, "loader")
        self._prepacker = ThreadPoolExecutor(1, "prepacker")
        #: digest -> Resident, None where it is not on the device.
        self.find = self._table.get

    def all(self) -> list[Resident]:
        """Every resident model."""
        return list(self._table.values())

    async def load(self, digest: str, manifest: Manifest, due_ms: float) -> Resident:
        """Make a model resident; many callers share one load, and it goes on if they leave.

        Raises EdgeError: NO_MEMORY if the budget can't hold it, LOAD_FAILED or BLOB_CORRUPT as
        the engine says, DEADLINE if it is not there in time.
        """
        if digest in self._unloading:
            await asyncio.wait({self._unloading[digest]})
        found = self._table.get(digest)
        if found is not None:
            return found
        loading = self._loading.get(digest) or self._begin(digest, manifest, due_ms)
        await asyncio.wait({loading}, timeout=max(0.0, due_ms - clock.now_ms()) / 1000.0)
        if not loading.done():
            raise EdgeError(
                Reason.DEADLINE,
                f"{manifest.name} did not load within the deadline; the load goes on",
                retryable=True,
            )
        return loading.result()

    async def unload(self, digest: str) -> None:
        """Drop a model; returns once its jobs are answered and its memory is given back."""
        if digest in self._loading:
            await asyncio.wait({self._loading[digest]})
        if digest in self._unloading:
            await asyncio.wait({self._unloading[digest]})
        resident = self._table.pop(digest, None)
        if resident is None:
            return
        loop = asyncio.get_running_loop()
        gone = self._unloading[digest] = loop.create_future()
        try:
            await resident.wait_until_idle()
            if resident.prepacking is not None:
                await asyncio.wait({resident.prepacking})
            await loop.run_in_executor(self._loader, resident.model.close)
        finally:
            self.used_bytes -= resident.held_bytes
            del self._unloading[digest]
            gone.set_result(None)
        log.info("unloaded", extra={"model": resident.name, "used_bytes": self.used_bytes})

    def prepack(self, resident: Resident) -> None:
        """Begin to build the prepacked sessions, if the budget holds them beside the weights."""
        resident.may_prepack = False
        more_bytes = resident.model.weights_bytes
        if self.used_bytes + more_bytes > self.limit_bytes:
            log.info("not prepacked: the device is full", extra={"model": resident.name, "bytes": more_bytes})
            return
        self.used_bytes += more_bytes
        resident.held_bytes += more_bytes
        loop = asyncio.get_running_loop()
        watched = functools.partial(self._watched, resident.name + " (prepacking)", EXAMPLE_MS)
        resident.prepacking = loop.run_in_executor(self._prepacker, resident.prepack, watched)
        resident.prepacking.add_done_callback(lambda done: self._prepacked(resident, more_bytes, done))

    def close(self) -> None:
        """Take no more loads; those that run are left to end."""
        self._loader.shutdown(wait=False, cancel_futures=True)
        self._prepacker.shutdown(wait=False, cancel_futures=True)

    def _prepacked(self, resident: Resident, more_bytes: int, done: "asyncio.Future[bool]") -> None:
        error = None if done.cancelled() else done.exception()
        if error is None and not done.cancelled() and done.result():
            resident.forget_costs()
            log.info("prepacked", extra={"model": resident.name, "bytes": more_bytes})
            return
        self.used_bytes -= more_bytes
        resident.held_bytes -= more_bytes
        if done.cancelled():
            return
        if error is not None:
            log.warning("not prepacked: %s", error, extra={"model": resident.name})
            return
        resident.gained_nothing()
        log.info("not prepacked: nothing is gained by it", extra={"model": resident.name})

    def _begin(self, digest: str, manifest: Manifest, due_ms: float) -> "asyncio.Future[Resident]":
        held_bytes = max(manifest.device_bytes, manifest.size_bytes)
        if self.used_bytes + held_bytes > self.limit_bytes:
            raise self._no_memory(manifest, held_bytes)
        self.used_bytes += held_bytes
        loop = asyncio.get_running_loop()
        loading = loop.run_in_executor(self._loader, self._open, digest, manifest, held_bytes, due_ms)
        self._loading[digest] = loading
        loading.add_done_callback(lambda done: self._loaded(digest, held_bytes, done))
        return loading

    def _no_memory(self, manifest: Manifest, held_bytes: int) -> EdgeError:
        needed, limit = held_bytes / MIB, self.limit_bytes / MIB
        free = limit - self.used_bytes / MIB
        return EdgeError(
            Reason.NO_MEMORY,
            f"{manifest.name} version {manifest.version} needs {needed:.1f} MiB of {self._device.name}, "
            f"of whose {limit:.1f} MiB {free:.1f} are free; unload a model or raise device_bytes",
        )

    def _loaded(self, digest: str, held_bytes: int, done: "asyncio.Future[Resident]") -> None:
        del self._loading[digest]
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            self.used_bytes -= held_bytes
            log.warning("not loaded: %s", error or "the worker stops", extra={"digest": digest})
            return
        resident = self._table[digest] = done.result()
        log.info("loaded", extra={"model": resident.name, "load_ms": round(resident.load_ms, 1)})

    def _open(self, digest: str, manifest: Manifest, held_bytes: int, due_ms: float) -> Resident:
        """On the loader's thread: sessions, task, and one run that shows that the device works."""
        started_ms = clock.now_ms()
        loading = _Loading(due_ms + self._device.load_grace_ms)
        watched = self._watchdog.enter(loading, [loading], manifest.name + " (load)", started_ms)
        try:
            model = Model(self._device, manifest, tasks.signatures(manifest))
            try:
                task = tasks.make(manifest, model.aux)
                proven = self._warm_up(model, task, due_ms)
            except BaseException:
                model.close()
                raise
        except EdgeError:
            raise
        except Exception as error:
            message = (
                f"{manifest.name} version {manifest.version} can't be loaded: {type(error).__name__}: {error}"
            )
            raise EdgeError(Reason.LOAD_FAILED, message, source=Source.UPSTREAM) from error
        finally:
            self._watchdog.leave(watched)
        example = (lambda: self._fails(model, task)) if proven else None
        load_ms = clock.now_ms() - started_ms
        return Resident(digest, model, task, held_bytes, load_ms, self._trust, example)

    def _fails(self, model: Model, task: tasks.Task) -> str:
        """Why the model's example does not run; empty when it does."""
        try:
            self._run_example(model, task, clock.now_ms() + EXAMPLE_MS)
        except EdgeError as error:
            return error.message
        return ""

    def _run_example(self, model: Model, task: tasks.Task, due_ms: float) -> None:
        run = model.begin()
        name = model.manifest.name + " (example)"
        self._watched(name, due_ms - clock.now_ms(), run, lambda: task.run([task.example()], run))

    def _watched(self, name: str, within_ms: float, run: Run, work: Callable[[], object]) -> None:
        """One execution that no request waits for, ended when it takes longer. Raises EdgeError."""
        now_ms = clock.now_ms()
        watched = self._watchdog.enter(run, [_Loading(now_ms + within_ms)], name, now_ms)
        try:
            work()
        finally:
            self._watchdog.leave(watched)

    def _warm_up(self, model: Model, task: tasks.Task, due_ms: float) -> bool:
        """On a GPU it must succeed; on a CPU an example that does not suit the graph proves nothing."""
        try:
            self._run_example(model, task, due_ms)
        except EdgeError as error:
            if self._device.on_gpu or error.reason is Reason.DEADLINE:
                raise EdgeError(
                    Reason.LOAD_FAILED,
                    f"{model.manifest.name} was loaded on {self._device.name}, but its first run failed: "
                    f"{error.message}",
                    source=Source.UPSTREAM,
                ) from error
            log.info("no warm-up run: %s", error.message, extra={"model": model.manifest.name})
            return False
        return True
