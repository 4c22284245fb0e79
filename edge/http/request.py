"""One request as the handler sees it, and its body while it still arrives.

It knows neither sockets nor bytes on the wire: a connection pushes data in, the handler pulls it out,
and `on_read` tells the connection that there is room again.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from edge.errors import EdgeError, Reason, Source
from edge.http.headers import Headers

#: Pieces below this are put together, so that a client that sends single bytes costs single bytes of memory.
_SMALL_BYTES = 4096


class BodyStream:
    """A body on its way: one writer (the connection), one reader (the handler)."""

    __slots__ = ("_on_read", "_pieces", "_small", "_waiter", "complete", "held_bytes")

    def __init__(self, on_read: Callable[[], None]) -> None:
        self._pieces: deque[bytes] = deque()
        self._small = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._on_read = on_read
        self.held_bytes = 0
        self.complete = False

    def push(self, data: bytes) -> None:
        """Data arrived."""
        self.held_bytes += len(data)
        if len(data) < _SMALL_BYTES:
            self._small += data
        else:
            self._flush()
            self._pieces.append(data)
        self._wake()

    def finish(self) -> None:
        """The body is complete."""
        self.complete = True
        self._wake()

    async def read(self) -> bytes:
        """The next piece, b"" at the end. A body that never completes cancels its handler instead."""
        self._on_read()
        while not self.held_bytes:
            if self.complete:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._pop()

    def take_all(self) -> bytes:
        """Everything held, at once."""
        self._flush()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self.held_bytes = 0
        return data

    def _pop(self) -> bytes:
        if not self._pieces:
            self._flush()
        piece = self._pieces.popleft()
        self.held_bytes -= len(piece)
        self._on_read()
        return piece

    def _flush(self) -> None:
        if self._small:
            self._pieces.append(bytes(self._small))
            self._small.clear()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Request:
    """One request. If its client leaves, or its body breaks, what the handler returned is cancelled."""

    __slots__ = (
        "_stream",
        "_whole",
        "client",
        "content_length",
        "headers",
        "method",
        "path",
        "query",
        "received_ms",
    )

    def __init__(
        self,
        method: str,
        path: tuple[str, ...],
        query: str,
        headers: Headers,
        content_length: int | None,
        client: str,
        received_ms: float,
        whole: bytes | None,
        stream: BodyStream | None,
    ) -> None:
        self.method = method
        """GET or POST: a HEAD request arrives as GET, and the door leaves the body of the answer out."""
        self.path = path
        """Decoded segments: `/v2/models/m` is `("v2", "models", "m")`."""
        self.query = query
        """Behind the `?`, not decoded."""
        self.headers = headers
        self.content_length = content_length
        """None for a chunked body and for none at all."""
        self.client = client
        """The client's IP address."""
        self.received_ms = received_ms
        """Monotonic milliseconds when the header block was complete."""
        self._whole = whole
        self._stream = stream

    def body_now(self) -> bytes | None:
        """The whole body if it is here already (small ones come with the head), else None."""
        if self._whole is None and self._stream is not None and self._stream.complete:
            self._whole = self._stream.take_all()
        return self._whole

    async def body(self, limit_bytes: int) -> bytes:
        """The whole body. TOO_LARGE above `limit_bytes`, before reading where the length is known."""
        known = self.content_length if self._whole is None else len(self._whole)
        if known is not None and known > limit_bytes:
            raise _too_large(limit_bytes)
        if self._whole is None:
            pieces: list[bytes] = []
            size = 0
            async for piece in self.chunks():
                size += len(piece)
                if size > limit_bytes:
                    raise _too_large(limit_bytes)
                pieces.append(piece)
            self._whole = b"".join(pieces)
        return self._whole

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces, once, with backpressure: what is not asked for is not received."""
        if self._whole is not None:
            if self._whole:
                yield self._whole
            return
        if self._stream is not None:
            while piece := await self._stream.read():
                yield piece


def _too_large(limit_bytes: int) -> EdgeError:
    return EdgeError(Reason.TOO_LARGE, f"the body is over {limit_bytes} bytes", source=Source.DOWNSTREAM)
