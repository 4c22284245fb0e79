"""The two ends of one exchange: what was asked, what is answered, and a body that streams.

These objects are handed to the code that uses a link; the link itself moves the frames.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TYPE_CHECKING

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.policy.facts import Pulse
from edge.wire import calls

if TYPE_CHECKING:
    from edge.wire.channel import Channel
    from edge.wire.link import Link


class Body:
    """The rest of a body that arrives as DATA frames. Iterate it once.

    `due_ms` is when the link gives it up: the exchange's deadline until somebody begins to read,
    then the link's `idle_s` after each moment from which the reader waits; a reader that takes its
    time is not held against the sender.
    """

    __slots__ = (
        "__weakref__",
        "_chunks",
        "_error",
        "_link",
        "_received",
        "_waiter",
        "buffered_bytes",
        "due_ms",
        "ended",
        "on_end",
    )

    def __init__(self, link: "Channel", first: bytes, due_ms: float = math.inf) -> None:
        self._link = link
        self._chunks: deque[bytes] = deque((first,) if first else ())
        self._error: EdgeError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._received = len(first)
        self.buffered_bytes = len(first)
        self.due_ms = due_ms
        self.ended = False
        #: Runs once, when nothing more will come.
        self.on_end: Callable[[], None] | None = None

    def feed(self, chunk: bytes) -> None:
        """One more DATA frame; past the link's `max_body_bytes` the body fails instead of growing."""
        if self.ended:
            return
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
        if not self.ended:
            self.ended, self._error = True, error
            self._wake()
            if self.on_end is not None:
                self.on_end()

    def drop(self, error: EdgeError) -> None:
        """Fail at once, without what came and was not read yet."""
        self._chunks.clear()
        self.buffered_bytes = 0
        self.end(error)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self.due_ms = math.inf
            self._waiter.set_result(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.due_ms = math.inf
        try:
            while True:
                while self._chunks:
                    chunk = self._chunks.popleft()
                    self.buffered_bytes -= len(chunk)
                    self._link.body_drained(self)
                    yield chunk
                if self.ended:
                    if self._error is not None:
                        raise self._error
                    return
                self.due_ms = clock.now_ms() + self._link.idle_s * 1000.0
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Nobody will read it, or read on: whoever sends it is told to stop."""
        self._chunks.clear()
        self.buffered_bytes = 0
        if self.ended:
            self._link.body_drained(self)
        else:
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
    """A call from the other side. Answer it once, with `reply`, `stream` or `fail`."""

    __slots__ = ("body", "cancelled", "head", "id", "link", "on_cancel", "rest", "sending")

    def __init__(
        self, link: "Link", exchange_id: int, head: calls.Head, body: bytes, rest: Body | None
    ) -> None:
        self.link = link
        self.id = exchange_id
        self.head = head
        self.body = body
        self.rest = rest
        #: True once the caller left, by CANCEL or with its link.
        self.cancelled = False
        self.on_cancel: Callable[[], None] | None = None
        #: The streamed answer that is being sent.
        self.sending: asyncio.Task[None] | None = None

    async def whole(self) -> bytes:
        """The whole body in memory."""
        return self.body if self.rest is None else await self.rest.whole()

    def reply(self, head: calls.Head, body: bytes | memoryview = b"") -> None:
        """Send the answer; nothing happens when the caller has left."""
        if not self.cancelled:
            self.link.send_reply(self.id, head, body)

    async def stream(self, head: calls.Head, chunks: AsyncIterable[bytes]) -> None:
        """Send an answer of any size, only as fast as it is taken; ends when all of it is written.

        Stops, without an error, when the caller leaves: then `cancelled` is true. Raises what
        `chunks` raised, after the reader was told: its body fails, it never just ends. `chunks` is
        closed in every case.
        """
        await self.link.stream_reply(self, head, chunks)

    def fail(self, error: EdgeError, pulse: Pulse | None = None) -> None:
        """Send the error instead of an answer, with the load of the worker that was asked."""
        if not self.cancelled:
            self.link.send_failure(self.id, error, pulse)
