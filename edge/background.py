"""Background tasks that have a parent.

A TaskGroup ends all of its tasks when one fails; work that may fail alone (a load that
several requests wait for, a hold that is given back) belongs here instead. `close` cancels
what still runs and waits for it, so that nothing outlives its owner.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from edge.errors import EdgeError

log = logging.getLogger(__name__)


class Background:
    """An owner of tasks. A failure is logged once, unless it is an EdgeError that somebody awaits."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start `work`; the result may be awaited or ignored."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, EdgeError):
            log.info("background work failed", extra={"reason": str(error.reason), "error": error.message})
        elif error is not None:
            log.error("background work crashed", exc_info=error)

    async def close(self) -> None:
        """Cancel what runs and wait until it has ended."""
        for task in list(self._tasks):
            task.cancel()
        while self._tasks:
            await asyncio.wait(list(self._tasks))
