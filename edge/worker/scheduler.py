"""When and on which thread an execution runs.

The device thread takes the next batch the moment it is free; whatever arrived meanwhile
forms it. Runs predicted to take less than `INLINE_MS` are run by the event loop itself,
together with what arrived in the same turn: they don't wait behind a long run of another
model, and two thread hops are saved (identity: 20-25 % of the worker's CPU at one request in
flight, about 10 % at 4, nothing measurable at 32).
A run that takes far longer than predicted is ended and done again on the device thread, where
its group then stays for a while: what it costs may depend on the values sent.
Which requests share a run is `batch.py`'s rule; what an execution is, `execution.py`'s.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from edge import clock
from edge.worker.batch import Group, Taken, Waiting
from edge.worker.execution import Job, execute, late
from edge.worker.watchdog import Watchdog

log = logging.getLogger("edge.worker")

INLINE_MS: Final = 0.3
#: A tiny run still going after this is given up and handed to the device thread.
INLINE_LIMIT_MS: Final = 50.0
#: So many runs its group is then kept off the event loop.
INLINE_PENALTY_RUNS: Final = 1_000
#: The event loop runs tiny batches for this long before it looks at its sockets again.
INLINE_TURN_MS: Final = 2.0
JOIN_S: Final = 1.0


class Scheduler:
    """Runs jobs; `deliver` gets each finished one on the event loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        watchdog: Watchdog,
        deliver: Callable[[Job], None],
        *,
        inline_ms: float = INLINE_MS,
    ) -> None:
        self._loop = loop
        self._watchdog = watchdog
        self._deliver = deliver
        self._inline_ms = inline_ms
        self._tiny: Waiting[Job] = Waiting()
        self._tiny_due = False
        self._tiny_executions = 0
        self._ready = threading.Condition()
        self._waiting: Waiting[Job] = Waiting()
        self._device_executions = 0
        self._finished: deque[Job] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run_device, name="device", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Jobs that wait, those whose callers have left included."""
        return self._tiny.count + self._waiting.count

    @property
    def executions(self) -> int:
        """Executions so far, on either thread."""
        return self._tiny_executions + self._device_executions

    def submit(self, job: Job, group: Group) -> None:
        """Run it as soon as possible; jobs of one group may share an execution."""
        predicted_ms = group.cost.predict_ms(job.items)
        trusted = group.cost.runs >= group.inline_from_run
        if predicted_ms is None or predicted_ms >= self._inline_ms or not trusted:
            self._submit_to_device(group, [job])
            return
        self._tiny.put(group, job)
        if not self._tiny_due:
            self._tiny_due = True
            self._loop.call_soon(self._run_tiny)

    def close(self) -> None:
        """Take nothing more. A run that does not end is left to its daemon thread."""
        with self._ready:
            self._stopping = True
            self._ready.notify()
        self._thread.join(JOIN_S)

    def _submit_to_device(self, group: Group, jobs: Sequence[Job]) -> None:
        with self._ready:
            for job in jobs:
                self._waiting.put(group, job)
            self._ready.notify()

    def _run_tiny(self) -> None:
        self._tiny_due = False
        now_ms = clock.now_ms()
        until_ms = now_ms + INLINE_TURN_MS
        while self._tiny.count:
            if now_ms >= until_ms:
                self._tiny_due = True
                self._loop.call_soon(self._run_tiny)
                return
            taken = self._tiny.take(now_ms)
            if taken.batch:
                executions = execute(taken.batch, self._watchdog, limit_ms=INLINE_LIMIT_MS)
                self._tiny_executions += executions
                group = taken.group
                if not executions and group is not None:
                    group.inline_from_run = group.cost.runs + INLINE_PENALTY_RUNS
                    self._submit_to_device(group, taken.batch)
                    taken.batch.clear()
            for job in _ended(taken):
                self._deliver(job)
            now_ms = clock.now_ms()

    def _run_device(self) -> None:
        try:
            while self._run_next():
                pass
        except BaseException:
            log.exception("the device thread died")
            self._watchdog.fail("without its device thread this worker is of no use; it exits")
            raise

    def _run_next(self) -> bool:
        """Wait for jobs and run one batch; False once the scheduler is closed."""
        with self._ready:
            while not (self._waiting.count or self._stopping):
                self._ready.wait()
            if self._stopping:
                return False
            taken = self._waiting.take(clock.now_ms())
        if taken.batch:
            self._device_executions += execute(taken.batch, self._watchdog)
        self._finished.extend(_ended(taken))
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._deliver_finished)
        return True

    def _deliver_finished(self) -> None:
        while self._finished:
            self._deliver(self._finished.popleft())


def _ended(taken: Taken[Job]) -> list[Job]:
    """All jobs of a turn, the late ones with their error."""
    for job in taken.late:
        job.error = late(job)
    return [*taken.batch, *taken.late, *taken.gone]
