"""Where requests wait for a slot: bounded by the policy, first come first woken."""

import asyncio
import heapq
import itertools

from edge.fleet.snapshot import Fleet


class Slots:
    """The queue at the door. A woken request decides again; it was promised nothing but its place."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._places = itertools.count(1)
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def place(self) -> int:
        """A place at the end of the queue; whoever waits again with it stands where it stood."""
        return next(self._places)

    async def wait(self, budget_ms: float, place: int) -> bool:
        """True when something changed within the budget, False when it ran out."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (place, waiter))
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
            if len(self._waiters) > 2 * self._fleet.waiting:
                # Those who left: the heap holds them until their turn.
                self._waiters = [entry for entry in self._waiters if not entry[1].done()]
                heapq.heapify(self._waiters)
        return True

    def freed(self) -> None:
        """A request ended somewhere, or an endpoint changed its state: let the first one look."""
        while self._waiters:
            _, waiter = heapq.heappop(self._waiters)
            if not waiter.done():
                waiter.set_result(None)
                return

    def changed(self) -> None:
        """An endpoint came up or went away: let everybody look."""
        for _ in range(len(self._waiters)):
            self.freed()


def _was_woken(waiter: asyncio.Future[None]) -> bool:
    return waiter.done() and not waiter.cancelled()
