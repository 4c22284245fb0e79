"""Work that many may wait for and no one of them may stop; and failures worth remembering.

A flight is a task whose outcome is a value, also when it failed: each waiter gets its own
copy of the error, and a flight that nobody waits for any more leaves nothing unheard.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple, TypeVar

from edge import clock
from edge.errors import EdgeError, Reason

#: What has wrong bytes in the origin is not asked for again for this long.
CORRUPT_FOR_MS: Final = 30_000.0

T = TypeVar("T")
Work = Coroutine[Any, Any, T]

log = logging.getLogger(__name__)


class Flights:
    """Owner of every flight; `spawn` gives each a parent."""

    def __init__(self, spawn: Callable[[Work[Any]], "asyncio.Task[Any]"]) -> None:
        self._spawn = spawn
        self._flying: set[asyncio.Task[Any]] = set()

    def start(self, work: Work[T]) -> "asyncio.Task[T | EdgeError]":
        """Run to the end whoever waits for it. Wait with `landed`."""
        task: asyncio.Task[T | EdgeError] = self._spawn(_outcome(work))
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)
        return task

    async def finish(self, within_s: float) -> bool:
        """Wait until nothing flies any more; False if something still does after `within_s`."""
        until_s = clock.now_s() + within_s
        while self._flying:
            left_s = until_s - clock.now_s()
            if left_s <= 0:
                return False
            await asyncio.wait(self._flying, timeout=left_s)
        return True


async def landed(flight: "asyncio.Task[T | EdgeError]") -> T:
    """The flight's value, or its error raised; a waiter that is cancelled cancels only itself."""
    outcome = await asyncio.shield(flight)
    if isinstance(outcome, EdgeError):
        raise again(outcome, outcome.retry_after_s)
    return outcome


async def _outcome(work: Work[T]) -> T | EdgeError:
    try:
        return await work
    except EdgeError as error:
        return error
    except Exception as error:
        log.exception("weights failed")
        return EdgeError(Reason.INTERNAL, f"the weight store failed: {type(error).__name__}: {error}"[:300])


def again(error: EdgeError, retry_after_s: int | None) -> EdgeError:
    """The same failure for one more caller: an exception is raised once, or its traceback grows."""
    return EdgeError(
        error.reason,
        error.message,
        source=error.source,
        retryable=error.retryable,
        retry_after_s=retry_after_s,
    )


class _Failure(NamedTuple):
    error: EdgeError
    until_ms: float


class Failures:
    """What was found corrupt in the origin lately, by digest."""

    def __init__(self) -> None:
        self._known: dict[str, _Failure] = {}

    def remember(self, digest: str, error: EdgeError) -> None:
        """Don't ask for it again for CORRUPT_FOR_MS."""
        now_ms = clock.now_ms()
        self._known = {key: old for key, old in self._known.items() if old.until_ms > now_ms}
        self._known[digest] = _Failure(error, now_ms + CORRUPT_FOR_MS)
        error.retry_after_s = int(CORRUPT_FOR_MS // 1000)

    def check(self, digest: str) -> None:
        """Raises the failure that is remembered, with the seconds that are left of it."""
        failure = self._known.get(digest)
        if failure is None:
            return
        left_ms = failure.until_ms - clock.now_ms()
        if left_ms > 0:
            raise again(failure.error, math.ceil(left_ms / 1000.0))
        del self._known[digest]
