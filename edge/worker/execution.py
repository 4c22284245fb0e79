"""One execution: run several requests together, and if that fails find the guilty one.

Every job ends with outputs or with an error of its own. A failed batch is cut in halves until
the requests that fail stand alone; their neighbours get their answers. Called by whichever
thread runs; knows no queue, no frames and no loop.
"""

import logging
import math
from collections.abc import Sequence
from typing import Protocol

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.oip.datatypes import NamedArray
from edge.worker.engine import Run
from edge.worker.tasks import Task, Work
from edge.worker.watchdog import Watchdog

log = logging.getLogger("edge.worker")


class Caller(Protocol):
    """Who waits for a job."""

    @property
    def cancelled(self) -> bool:
        """True once it has left."""


class Loaded(Protocol):
    """A resident model as an execution sees it."""

    @property
    def name(self) -> str:
        """For errors and the log."""

    @property
    def task(self) -> Task:
        """What it does with a request."""

    def begin(self) -> Run:
        """A new execution over its graphs."""

    def executed(self, work: Work, items: int, duration_ms: float) -> None:
        """One execution of `items`, of the same key as `work`, has succeeded."""

    def failed(self, error: EdgeError) -> None:
        """One request alone has failed, and not by its deadline."""


class Job:
    """One request on its way through the worker. Times are milliseconds.

    When it is finished: `error`, or `outputs`; `queue_ms` from arrival to execution,
    `infer_ms` of the execution, which it shared with `batch` requests in all and which it
    stands for if `lead`.
    """

    __slots__ = (
        "arrived_ms", "batch", "caller", "due_ms", "error", "infer_ms", "items", "lead", "model", "outputs",
        "queue_ms", "work",
    )  # fmt: skip

    def __init__(self, caller: Caller, model: Loaded, work: Work, arrived_ms: float, due_ms: float) -> None:
        self.caller = caller
        self.model = model
        self.work = work
        self.items = work.items
        self.arrived_ms = arrived_ms
        self.due_ms = due_ms
        self.error: EdgeError | None = None
        # Set by `execute`; declared only, since a request costs microseconds here.
        self.outputs: list[NamedArray]
        self.queue_ms: float
        self.infer_ms: float
        self.batch: int
        self.lead: bool

    @property
    def abandoned(self) -> bool:
        """True once the caller has left."""
        return self.caller.cancelled


def late(job: Job) -> EdgeError:
    """What a job gets that was due before it could run."""
    waited_ms = job.due_ms - job.arrived_ms
    return EdgeError(Reason.DEADLINE, f"the deadline of {waited_ms:.0f} ms passed before the model could run")


def execute(jobs: Sequence[Job], watchdog: Watchdog, *, limit_ms: float = math.inf) -> int:
    """Finish every job (all of one group); the number of executions this took.

    0 if the run took longer than `limit_ms` and was given up for that: then nothing has
    happened to the jobs, and somebody else may run them.
    """
    model = jobs[0].model
    run = model.begin()
    started_ms = clock.now_ms()
    watched = watchdog.enter(run, jobs, model.name, started_ms, started_ms + limit_ms)
    error: EdgeError | None = None
    try:
        results = model.task.run([job.work for job in jobs], run)
    except EdgeError as raised:
        error = raised
    except Exception as raised:  # noqa: BLE001 -- whatever a model's outputs did to us, the worker goes on
        log.warning("a run of %s failed: %r", model.name, raised)
        error = EdgeError(
            Reason.INFER_FAILED, f"{model.name} failed: {type(raised).__name__}", source=Source.UPSTREAM
        )
    finally:
        watchdog.leave(watched)
    ended_ms = clock.now_ms()
    if error is None:
        _finish(jobs, results, started_ms, ended_ms - started_ms)
        return 1
    if run.terminated:
        if any(job.due_ms > ended_ms and not job.abandoned for job in jobs):
            return 0
        for job in jobs:
            job.error = error
        return 1
    if len(jobs) == 1:
        jobs[0].error = error
        model.failed(error)
        return 1
    half = len(jobs) // 2
    return 1 + _execute_in_time(jobs[:half], watchdog) + _execute_in_time(jobs[half:], watchdog)


def _finish(
    jobs: Sequence[Job], results: Sequence[list[NamedArray]], started_ms: float, infer_ms: float
) -> None:
    items = 0
    for job, outputs in zip(jobs, results, strict=True):
        job.outputs = outputs
        job.queue_ms = started_ms - job.arrived_ms
        job.infer_ms = infer_ms
        job.batch = len(jobs)
        job.lead = False
        items += job.items
    first = jobs[0]
    first.lead = True
    first.model.executed(first.work, items, infer_ms)


def _execute_in_time(jobs: Sequence[Job], watchdog: Watchdog) -> int:
    """Like `execute`, for those whose time has not run out meanwhile."""
    now_ms = clock.now_ms()
    for job in jobs:
        if job.due_ms <= now_ms:
            job.error = late(job)
    wanted = [job for job in jobs if job.error is None and not job.abandoned]
    return execute(wanted, watchdog) if wanted else 0
