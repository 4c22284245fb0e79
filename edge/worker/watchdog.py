"""Ends what nobody waits for: first the run, then, if the run does not end, the process.

A thread of its own, since a run may block the event loop. A worker that exits is started
again by its parent within a second; one that hangs would hold its device for good.
"""

import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from edge import clock

log = logging.getLogger("edge.worker")

WATCH_S: Final = 0.02
#: After so many looks at nothing it sleeps until something begins; 50 looks a second cost 0.5 % of a core.
IDLE_LOOKS: Final = 50
#: From being told to end until the process exits; ONNX Runtime looks at the flag between two kernels.
GRACE_MS: Final = 250.0
EXIT_HUNG: Final = 70


class Endable(Protocol):
    """Something that runs."""

    def terminate(self) -> None:
        """Ask it to end soon; from any thread."""


class Waiter(Protocol):
    """Somebody who waits for it."""

    @property
    def due_ms(self) -> float:
        """From then on the result is of no use."""

    @property
    def abandoned(self) -> bool:
        """True once the caller has left."""


class _Watched:
    __slots__ = ("run", "since_ms", "told", "until_ms", "useless_since_ms", "waiters", "what")

    def __init__(
        self, run: Endable, waiters: Sequence[Waiter], what: str, since_ms: float, until_ms: float
    ) -> None:
        self.run = run
        self.waiters = waiters
        self.what = what
        self.since_ms = since_ms
        self.until_ms = until_ms
        self.told = False
        self.useless_since_ms: float | None = None


def _exit(message: str) -> None:
    log.critical(message)
    logging.shutdown()
    os._exit(EXIT_HUNG)


class Watchdog:
    """Looks at everything that runs every 20 ms, and sleeps while nothing does.

    `hung` is called with the reason to exit.
    """

    def __init__(self, hung: Callable[[str], None] = _exit) -> None:
        self._hung = hung
        self._lock = threading.Lock()
        self._watched: set[_Watched] = set()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._asleep = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def enter(
        self, run: Endable, waiters: Sequence[Waiter], what: str, now_ms: float, until_ms: float = math.inf
    ) -> _Watched:
        """`run` begins on behalf of `waiters`; give the result to `leave` when it has ended.

        It is told to end when nobody waits for it any more, or at `until_ms`. The process
        exits only if it goes on although nobody waits.
        """
        watched = _Watched(run, waiters, what, now_ms, until_ms)
        with self._lock:
            self._watched.add(watched)
            if self._asleep:
                self._wake.set()
        return watched

    def leave(self, watched: _Watched) -> None:
        """It has ended."""
        with self._lock:
            self._watched.discard(watched)

    def fail(self, message: str) -> None:
        """A thread that the worker can't be without has died."""
        self._hung(message)

    def close(self) -> None:
        """Watch no longer."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def _watch(self) -> None:
        idle = 0
        while not self._stop.wait(WATCH_S):
            if self._watched:
                idle = 0
                with self._lock:
                    self._look(clock.now_ms())
            else:
                idle += 1
                if idle > IDLE_LOOKS:
                    self._sleep()
                    idle = 0

    def _sleep(self) -> None:
        """Until something runs, or the end."""
        with self._lock:
            self._asleep = not self._watched
        if self._asleep:
            self._wake.wait()
            with self._lock:
                self._asleep = False
                if not self._stop.is_set():
                    self._wake.clear()

    def _look(self, now_ms: float) -> None:
        """Under the lock, so that nothing is told to end that has just ended."""
        for watched in self._watched:
            if watched.useless_since_ms is None:
                if all(waiter.abandoned or waiter.due_ms <= now_ms for waiter in watched.waiters):
                    watched.useless_since_ms = now_ms
            elif now_ms - watched.useless_since_ms > GRACE_MS:
                ran_ms = now_ms - watched.since_ms
                self._hung(
                    f"a run of {watched.what} for {len(watched.waiters)} requests took {ran_ms:.0f} ms "
                    f"and did not end {GRACE_MS:.0f} ms after it was told to; this worker exits, "
                    "so that its device is free again"
                )
            if not watched.told and (watched.useless_since_ms is not None or now_ms >= watched.until_ms):
                watched.told = True
                watched.run.terminate()
