"""Where requests wait for a slot: bounded by the policy, first come first woken."""

import asyncio
import contextlib
from collections import deque

from edge.fleet.snapshot import Fleet


class Slots:
    """The queue at the door. A woken request decides again; it was promised nothing."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def wait(self, budget_ms: float) -> bool:
        """True when something changed within the budget, False when it ran out."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._fleet.waiting += 1
        try:
            async with asyncio.timeout(budget_ms / 1000.0):
                await waiter
        except TimeoutError:
            return _was_woken(waiter)
        except asyncio.CancelledError:
            if _was_woken(waiter):
                # It was told of a slot that it will not take: tell the next one.
                self.freed()
            raise
        finally:
            self._fleet.waiting -= 1
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
        return True

    def freed(self) -> None:
        """A request ended somewhere, or an endpoint changed its state: let the first one look."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def changed(self) -> None:
        """An endpoint came up or went away: let everybody look."""
        for _ in range(len(self._waiters)):
            self.freed()


def _was_woken(waiter: asyncio.Future[None]) -> bool:
    return waiter.done() and not waiter.cancelled()
