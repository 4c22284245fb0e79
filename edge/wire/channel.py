"""The connection under a link: frames that leave together, and pauses in both directions.

Frames written in one turn of the event loop leave in one write. A body of any size leaves
slice by slice, each only when the transport has room, and bodies that share the connection
take turns. Reading stops while one body on it has more buffered than its consumer took.
What a frame means is the link's business.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final, cast

from edge.errors import EdgeError, Reason, Source
from edge.wire import sockopt
from edge.wire.exchange import Body
from edge.wire.frame import SHARED_BODY_BYTES, Kind, encode

#: So many frames leave at once without waiting for the turn's end: else, with all requests of 32
#: connections in one write, the two processes of a hop work in turns instead of side by side
#: (1.09 x the throughput at 32 connections, 5 interleaved rounds).
FLUSH_FRAMES: Final = 8
PAUSE_READING_BYTES: Final = 512 * 1024


def lost(message: str) -> EdgeError:
    """The connection is gone; not retryable unless the caller knows that nothing was sent."""
    return EdgeError(Reason.LINK_LOST, message, source=Source.UPSTREAM)


class Channel(asyncio.Protocol):
    """One transport: buffered writes, the flow control of both directions, its end."""

    def __init__(self, *, max_body_bytes: int, idle_s: float) -> None:
        self.max_body_bytes = max_body_bytes
        self.idle_s = idle_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self.transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._flushing = False
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._turn = asyncio.Lock()
        self._held_by: Body | None = None
        self._pauses_allowed = False

    @property
    def closed(self) -> bool:
        """True once nothing more can be sent."""
        return self.transport is None or self.transport.is_closing()

    @property
    def reading_paused(self) -> bool:
        """True while a body holds the reading."""
        return self._held_by is not None

    def abort(self) -> None:
        """Close now: the other side may not read, or not be there."""
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Send what is written, then close."""
        if self.transport is not None:
            self._flush()
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is there."""
        self.transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        sockopt.tune(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone; who waits to write finds out."""
        self.transport = None
        self._held_by = None
        self._can_write.set()

    def pause_writing(self) -> None:
        """asyncio: the other side does not read."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """asyncio: it reads again."""
        self._can_write.set()

    # --- writing

    def _send(self, frame: bytes, *, alone: bool = False) -> None:
        """Write soon, with what else comes in this turn; at once when nothing else is under way."""
        self._out.append(frame)
        if alone or len(self._out) >= FLUSH_FRAMES:
            self._flush()
        elif not self._flushing and self._loop is not None:
            self._flushing = True
            self._loop.call_soon(self._flush_later)

    def _flush_later(self) -> None:
        self._flushing = False
        self._flush()

    def _flush(self) -> None:
        if self._out and self.transport is not None:
            out, self._out = self._out, []
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))

    async def _pump(self, exchange_id: int, chunks: AsyncIterator[bytes]) -> None:
        """`chunks` as DATA frames, at most one of them waiting in the transport. Raises LINK_LOST."""
        async for chunk in chunks:
            for at in range(0, len(chunk), SHARED_BODY_BYTES):
                # The lock is fair: of several bodies on one connection each sends a slice in its turn.
                async with self._turn:
                    await self._can_write.wait()
                    if self.closed:
                        raise lost("the link was lost while sending")
                    self._send(encode(Kind.DATA, exchange_id, body=chunk[at : at + SHARED_BODY_BYTES]))
                    self._flush()
                # A reader faster than this writer must not keep the loop from everybody else.
                await asyncio.sleep(0)

    # --- reading

    def _allow_pauses(self) -> None:
        """Large bodies travel here: one side or the other will stop reading for a while."""
        if not self._pauses_allowed and self.transport is not None:
            self._pauses_allowed = True
            sockopt.allow_pauses(self.transport)

    def _hold_reading(self, body: Body) -> None:
        """Read no more while this body has too much waiting for its consumer."""
        if self._held_by is None and body.buffered_bytes > PAUSE_READING_BYTES and self.transport is not None:
            self._held_by = body
            self.transport.pause_reading()

    def _read_on(self, body: Body) -> None:
        """Nobody waits for this body any more: if it held the reading, a close would not be seen."""
        if self._held_by is body:
            self._held_by = None
            if self.transport is not None:
                self.transport.resume_reading()

    def body_drained(self, body: Body) -> None:
        """A consumer took bytes of a body; read on if it was the one that held us."""
        if self._held_by is body and body.buffered_bytes <= PAUSE_READING_BYTES // 2:
            self._read_on(body)

    def body_abandoned(self, body: Body) -> None:
        """Nobody reads this body any further: what still comes of it is dropped."""
        body.end(EdgeError(Reason.CLIENT_GONE, "nobody reads this body"))
        self._read_on(body)
