"""The writing half of a connection: long answers in slices, never more than a bounded part in memory.

It refuses to know requests, deadlines and who reads: `blocked_since_ms` is for whoever keeps the time.
"""

import asyncio
from typing import Final

from edge.clock import now_ms
from edge.http.respond import LAST_CHUNK, Response, chunk

#: What may wait in user space for a client that does not read; a body up to this size is one write.
HIGH_WATER_BYTES: Final = 64 * 1024


class Outgoing:
    """Writes to one transport; `pause` and `resume` are the transport's own signals."""

    __slots__ = ("_transport", "_waiter", "blocked_since_ms")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._waiter: asyncio.Future[None] | None = None
        self.blocked_since_ms: float | None = None
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)

    def pause(self) -> None:
        """The client takes less than we have."""
        self.blocked_since_ms = now_ms()

    def resume(self) -> None:
        """There is room again."""
        self.blocked_since_ms = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def send(self, head: bytes, response: Response, *, chunked: bool) -> None:
        """Write an answer of any length. ValueError if an iterator does not yield `response.length` bytes."""
        self._transport.write(head)
        if isinstance(response.body, bytes | memoryview):
            await self._send_slices(memoryview(response.body).cast("B"))
            return
        sent_bytes = 0
        try:
            async for piece in response.body:
                sent_bytes += len(piece)
                if response.length is not None and sent_bytes > response.length:
                    break
                if piece:
                    await self._send_slices(memoryview(chunk(piece) if chunked else piece))
        finally:
            close = getattr(response.body, "aclose", None)  # a generator left early is closed now, not at gc
            if close is not None:
                await close()
        if response.length is not None and sent_bytes != response.length:
            raise ValueError(f"the answer's body has {sent_bytes} bytes, its length says {response.length}")
        if chunked:
            self._transport.write(LAST_CHUNK)

    async def _send_slices(self, view: memoryview) -> None:
        for start in range(0, len(view), HIGH_WATER_BYTES):
            if self.blocked_since_ms is not None:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            self._transport.write(view[start : start + HIGH_WATER_BYTES])
