"""The two ends of one exchange: what was asked, what is answered, and a body that streams.

These objects are handed to the code that uses a link; the link itself moves the frames.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from edge.errors import EdgeError, Reason, Source
from edge.wire import calls

if TYPE_CHECKING:
    from edge.wire.link import Link


class Body:
    """The rest of a body that arrives as DATA frames. Iterate it once."""

    __slots__ = ("_chunks", "_ended", "_error", "_link", "_received", "_waiter", "buffered_bytes", "on_end")

    def __init__(self, link: "Link", first: bytes) -> None:
        self._link = link
        self._chunks: deque[bytes] = deque((first,) if first else ())
        self._ended = False
        self._error: EdgeError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._received = len(first)
        self.buffered_bytes = len(first)
        #: Runs once, when nothing more will come.
        self.on_end: Callable[[], None] | None = None

    def feed(self, chunk: bytes) -> None:
        """One more DATA frame; past the link's `max_body_bytes` the body fails instead of growing."""
        self._received += len(chunk)
        if self._received > self._link.max_body_bytes:
            limit = self._link.max_body_bytes
            self.end(EdgeError(Reason.TOO_LARGE, f"body exceeds {limit} bytes", source=Source.DOWNSTREAM))
            return
        self._chunks.append(chunk)
        self.buffered_bytes += len(chunk)
        self._wake()

    def end(self, error: EdgeError | None = None) -> None:
        """No more frames follow; with `error`, what came is not the whole body."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()
            if self.on_end is not None:
                self.on_end()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while True:
                while self._chunks:
                    chunk = self._chunks.popleft()
                    self.buffered_bytes -= len(chunk)
                    self._link.body_drained(self)
                    yield chunk
                if self._ended:
                    if self._error is not None:
                        raise self._error
                    return
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        finally:
            if not self._ended:
                self._link.body_abandoned(self)

    async def whole(self) -> bytes:
        """All of it in memory; bounded by the link's `max_body_bytes`."""
        return b"".join([chunk async for chunk in self])


class Reply:
    """An answer: its typed head, its first bytes, and the rest when it is large."""

    __slots__ = ("body", "head", "rest")

    def __init__(self, head: calls.Head, body: bytes, rest: Body | None) -> None:
        self.head = head
        self.body = body
        self.rest = rest

    async def whole(self) -> bytes:
        """The whole body in memory."""
        return self.body if self.rest is None else await self.rest.whole()


class Incoming:
    """A call from the other side. Answer it once, with `reply` or `fail`."""

    __slots__ = ("body", "cancelled", "head", "id", "link", "on_cancel", "rest")

    def __init__(
        self, link: "Link", exchange_id: int, head: calls.Head, body: bytes, rest: Body | None
    ) -> None:
        self.link = link
        self.id = exchange_id
        self.head = head
        self.body = body
        self.rest = rest
        self.cancelled = False
        self.on_cancel: Callable[[], None] | None = None

    async def whole(self) -> bytes:
        """The whole body in memory."""
        return self.body if self.rest is None else await self.rest.whole()

    def reply(self, head: calls.Head, body: bytes | memoryview = b"") -> None:
        """Send the answer; nothing happens when the caller has left."""
        if not self.cancelled:
            self.link.send_reply(self.id, head, body)

    def fail(self, error: EdgeError) -> None:
        """Send the error instead of an answer."""
        if not self.cancelled:
            self.link.send_failure(self.id, error)
