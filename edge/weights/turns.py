"""How many blobs are on their way at a time: of the node, and of all that one call brings.

A turn is a thread that decides for one blob; lanes say how many ranges run. First come, first served,
but whoever brings many has a few at a time, so that others' need not wait for all of them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from edge.weights.choice import Party

MAX_FETCHES: Final = 64
FETCHES_EACH: Final = 8


class Turns:
    """Of one node."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(MAX_FETCHES)

    def queue(self) -> "Queue":
        """For the blobs of one call."""
        return Queue(self._all)


class Queue:
    """The blobs of one call. They are one `party` at the lanes, as large as all of them."""

    def __init__(self, everybody: asyncio.Semaphore) -> None:
        self.party = Party()
        self._everybody = everybody
        self._mine = asyncio.Semaphore(FETCHES_EACH)

    @contextlib.asynccontextmanager
    async def turn(self, size_bytes: int) -> AsyncIterator[None]:
        """For a blob of so many bytes, once it is its turn."""
        async with contextlib.AsyncExitStack() as stack:
            self.party.rest_bytes += size_bytes
            try:
                await stack.enter_async_context(self._mine)
                await stack.enter_async_context(self._everybody)
            finally:
                self.party.rest_bytes -= size_bytes
            yield
