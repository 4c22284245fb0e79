"""One connection that carries many exchanges: the asyncio half of the frames.

The same class serves both ends. A link knows ids, order, bounds and cancellation; it does
not know what a call means. Frames written in one turn of the event loop leave in one
write, and all frames of one read are handled together: at 32 requests in flight the cost
of a hop is shared by all that arrived with it.

A body above `SHARED_BODY_BYTES` is sent with `stream` on a link opened for it alone
(`exclusive=True`): then the pauses of TCP are the pauses of the body. A large *reply* on a
shared link is bounded by `max_body_bytes` and buffered.

Calls go one way on a link: the side that was given `on_call` answers, the other one asks.
Events go both ways.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, cast

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.wire import calls
from edge.wire.exchange import Body, Incoming, Reply
from edge.wire.frame import SHARED_BODY_BYTES, Decoder, FrameError, Kind, encode

SWEEP_S: Final = 0.05
#: So many frames leave at once without waiting for the turn's end: else, with all requests of 32
#: connections in one write, the two processes of a hop work in turns instead of side by side
#: (1.09 x the throughput at 32 connections, 5 interleaved rounds).
FLUSH_FRAMES: Final = 8
PAUSE_READING_BYTES: Final = 512 * 1024


def _lost(message: str) -> EdgeError:
    return EdgeError(Reason.LINK_LOST, message, source=Source.UPSTREAM)


class _Pending:
    __slots__ = ("due_ms", "future", "reply")

    def __init__(self, future: "asyncio.Future[Reply]", due_ms: float) -> None:
        self.future = future
        self.due_ms = due_ms
        self.reply: Body | None = None


class Link(asyncio.Protocol):
    """Both ends of a connection of frames.

    `on_call` gets each `Incoming` synchronously, in order of arrival; `on_event` each event's
    head; `on_closed` runs once, after every pending exchange has failed with LINK_LOST.
    """

    def __init__(
        self,
        *,
        on_call: Callable[[Incoming], None] | None = None,
        on_event: Callable[[calls.Head], None] | None = None,
        on_closed: Callable[["Link"], None] | None = None,
        on_open: Callable[["Link"], None] | None = None,
        max_body_bytes: int = 64 * 1024 * 1024,
        max_calls: int = 4096,
        exclusive: bool = False,
    ) -> None:
        self._on_call = on_call
        self._on_event = on_event
        self._on_closed = on_closed
        self._on_open = on_open
        self.max_body_bytes = max_body_bytes
        self._max_calls = max_calls
        self._exclusive = exclusive
        self._decoder = Decoder()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.transport: asyncio.Transport | None = None
        self._next_id = 0
        self._pending: dict[int, _Pending] = {}
        self._incoming: dict[int, Incoming] = {}
        self._out: list[bytes] = []
        self._flushing = False
        self._writable: asyncio.Future[None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._reading_paused = False

    # --- opened side

    @property
    def closed(self) -> bool:
        """True once nothing more can be sent."""
        return self.transport is None or self.transport.is_closing()

    @property
    def in_flight(self) -> int:
        """Exchanges opened from this side that have no answer yet."""
        return len(self._pending)

    def submit(
        self, head: calls.Head, body: bytes = b"", *, timeout_s: float
    ) -> tuple[int, asyncio.Future[Reply]]:
        """Open an exchange; the future ends in a Reply or an EdgeError.

        Raises EdgeError(LINK_LOST, retryable) when nothing was sent.
        """
        return self._open(Kind.CALL, head, body, timeout_s)

    async def request(self, head: calls.Head, body: bytes = b"", *, timeout_s: float) -> Reply:
        """Open an exchange and wait for its answer; a cancelled caller cancels it over there."""
        exchange_id, future = self._open(Kind.CALL, head, body, timeout_s)
        try:
            return await future
        except asyncio.CancelledError:
            self.cancel(exchange_id)
            raise

    async def stream(self, head: calls.Head, chunks: AsyncIterator[bytes], *, timeout_s: float) -> Reply:
        """Like `request`, with a body of any size that is sent only as fast as it is taken.

        Stops sending as soon as an answer is there: a refusal need not wait for the body.
        """
        exchange_id, future = self._open(Kind.CALL_MORE, head, b"", timeout_s)
        # Beside the answer, not before it: a body that stalls must not hide a refusal or the deadline.
        pump = asyncio.get_running_loop().create_task(self._pump(exchange_id, chunks))
        try:
            either: set[asyncio.Future[Any]] = {pump, future}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                await pump
            return await future
        except BaseException:
            self.cancel(exchange_id)
            raise
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _pump(self, exchange_id: int, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            for at in range(0, len(chunk), SHARED_BODY_BYTES):
                self._send(encode(Kind.DATA, exchange_id, body=chunk[at : at + SHARED_BODY_BYTES]))
            await self._drain()
        self._send(encode(Kind.END, exchange_id))

    def event(self, head: calls.Head) -> None:
        """Tell the other side something that needs no answer; lost with the link."""
        if not self.closed:
            self._send(encode(Kind.EVENT, 0, calls.encode_head(head)))

    def cancel(self, exchange_id: int) -> None:
        """Forget an exchange and tell the other side to stop working on it."""
        pending = self._pending.pop(exchange_id, None)
        if pending is None:
            return
        if not pending.future.done():
            pending.future.cancel()
        if pending.reply is not None:
            pending.reply.end(_lost("cancelled"))
        if not self.closed:
            self._send(encode(Kind.CANCEL, exchange_id))

    def abort(self) -> None:
        """Close now: the other side may not read, or not be there."""
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Send what is written, then close."""
        if self.transport is not None:
            self._flush()
            self.transport.close()

    def _open(
        self, kind: Kind, head: calls.Head, body: bytes, timeout_s: float
    ) -> tuple[int, asyncio.Future[Reply]]:
        if self._on_call is not None:
            raise RuntimeError("this side of the link answers calls; it opens none")
        if self.closed or self._loop is None:
            error = _lost("the link is closed")
            error.retryable = True
            raise error
        self._next_id += 1
        exchange_id = self._next_id
        frame = encode(kind, exchange_id, calls.encode_head(head), body)
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._pending[exchange_id] = _Pending(future, clock.now_ms() + timeout_s * 1000.0)
        self._send(frame, alone=len(self._pending) == 1)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        return exchange_id, future

    def _sweep(self) -> None:
        self._sweeper = None
        now_ms = clock.now_ms()
        overdue = [key for key, pending in self._pending.items() if pending.due_ms <= now_ms]
        for exchange_id in overdue:
            pending = self._pending[exchange_id]
            if not pending.future.done():
                pending.future.set_exception(
                    EdgeError(Reason.DEADLINE, "no answer within the deadline", source=Source.UPSTREAM)
                )
            self.cancel(exchange_id)
        if self._pending and self._loop is not None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    # --- answering side

    def send_reply(self, exchange_id: int, head: calls.Head, body: bytes | memoryview) -> None:
        """Answer a call; a large body leaves in DATA frames. Unknown ids are a cancelled caller."""
        if self._incoming.pop(exchange_id, None) is None or self.closed:
            return
        self._read_on()
        raw = calls.encode_head(head)
        if len(body) <= SHARED_BODY_BYTES:
            self._send(encode(Kind.REPLY, exchange_id, raw, body), alone=not self._incoming)
            return
        view = memoryview(body)
        self._send(encode(Kind.REPLY_MORE, exchange_id, raw))
        for at in range(0, len(view), SHARED_BODY_BYTES):
            self._send(encode(Kind.DATA, exchange_id, body=view[at : at + SHARED_BODY_BYTES]))
        self._send(encode(Kind.END, exchange_id))

    def send_failure(self, exchange_id: int, error: EdgeError) -> None:
        """Answer a call with an error."""
        if self._incoming.pop(exchange_id, None) is not None and not self.closed:
            self._read_on()
            self._send(encode(Kind.ERROR, exchange_id, calls.encode_failure(error)))

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is there."""
        self.transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        if self._on_open is not None:
            self._on_open(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone; everything in it fails, nothing is left waiting."""
        self.transport = None
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        error = _lost("the link was lost" if exc is None else f"the link was lost: {exc}")
        pending, self._pending = self._pending, {}
        for call in pending.values():
            if not call.future.done():
                call.future.set_exception(error)
            if call.reply is not None:
                call.reply.end(error)
        incoming, self._incoming = self._incoming, {}
        for item in incoming.values():
            self._cancel_incoming(item)
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self._on_closed is not None:
            self._on_closed(self)

    def pause_writing(self) -> None:
        """asyncio: the other side does not read."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """asyncio: it reads again."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes; every frame in them is handled now."""
        try:
            for kind, exchange_id, head, body in self._decoder.feed(data):
                self._handle(kind, exchange_id, head, body)
        except (FrameError, EdgeError) as error:
            self._abort(str(error))

    def _handle(self, kind: Kind, exchange_id: int, head: bytes, body: bytes) -> None:
        if kind is Kind.CALL or kind is Kind.CALL_MORE:
            self._handle_call(kind, exchange_id, head, body)
        elif kind is Kind.REPLY:
            pending = self._pending.get(exchange_id)
            if pending is not None:
                if pending.reply is not None:
                    raise FrameError("a second answer to one call")
                # Read first: what can't be read ends the link, and this exchange with it.
                reply = Reply(calls.decode_head(head), body, None)
                del self._pending[exchange_id]
                if not pending.future.done():
                    pending.future.set_result(reply)
        elif kind is Kind.ERROR:
            pending = self._pending.pop(exchange_id, None)
            if pending is not None:
                error = calls.decode_failure(head)
                if not pending.future.done():
                    pending.future.set_exception(error)
                elif pending.reply is not None:
                    pending.reply.end(error)
        elif kind is Kind.DATA or kind is Kind.END:
            self._handle_data(kind, exchange_id, body)
        elif kind is Kind.REPLY_MORE:
            pending = self._pending.get(exchange_id)
            if pending is not None and not pending.future.done():
                pending.reply = Body(self, body)
                pending.future.set_result(Reply(calls.decode_head(head), b"", pending.reply))
        elif kind is Kind.CANCEL:
            item = self._incoming.pop(exchange_id, None)
            if item is not None:
                self._cancel_incoming(item)
                self._read_on()
        elif self._on_event is not None:
            self._on_event(calls.decode_head(head))

    def _handle_call(self, kind: Kind, exchange_id: int, head: bytes, body: bytes) -> None:
        if self._on_call is None or exchange_id in self._incoming:
            raise FrameError("a call that this side did not expect")
        rest = Body(self, body) if kind is Kind.CALL_MORE else None
        try:
            typed = calls.decode_head(head)
        except EdgeError as error:
            # An unknown call is refused alone: a newer peer may know more than we do.
            self._send(encode(Kind.ERROR, exchange_id, calls.encode_failure(error)))
            return
        item = Incoming(self, exchange_id, typed, b"" if rest else body, rest)
        self._incoming[exchange_id] = item
        if len(self._incoming) > self._max_calls:
            refusal = EdgeError(Reason.SATURATED, "too many calls on one link", source=Source.UPSTREAM)
            self.send_failure(exchange_id, refusal)
            return
        self._on_call(item)

    def _handle_data(self, kind: Kind, exchange_id: int, body: bytes) -> None:
        """DATA belongs to a call that we answer or to a reply that we await."""
        item = self._incoming.get(exchange_id)
        pending = self._pending.get(exchange_id)
        stream = item.rest if item is not None and item.rest is not None else None
        if stream is None and pending is not None:
            stream = pending.reply
        if stream is None:
            return
        if kind is Kind.END:
            stream.end()
            if pending is not None and stream is pending.reply:
                del self._pending[exchange_id]
            return
        stream.feed(body)
        if (
            self._exclusive
            and not self._reading_paused
            and stream.buffered_bytes > PAUSE_READING_BYTES
            and self.transport is not None
        ):
            self._reading_paused = True
            self.transport.pause_reading()

    def _read_on(self) -> None:
        """The call whose body held the reading has its answer: without it a close would not be seen."""
        if self._reading_paused and not self._incoming and self.transport is not None:
            self._reading_paused = False
            self.transport.resume_reading()

    def body_drained(self, body: Body) -> None:
        """A consumer took bytes of a body; read on if it was the one that held us."""
        if self._reading_paused and body.buffered_bytes <= PAUSE_READING_BYTES // 2 and not self.closed:
            self._reading_paused = False
            if self.transport is not None:
                self.transport.resume_reading()

    def body_abandoned(self, body: Body) -> None:
        """Nobody reads this reply any further: stop it over there, and free a link that was its own."""
        for exchange_id, pending in list(self._pending.items()):
            if pending.reply is body:
                self.cancel(exchange_id)
                if self._exclusive:
                    self.close()

    def _cancel_incoming(self, item: Incoming) -> None:
        item.cancelled = True
        if item.rest is not None:
            item.rest.end(EdgeError(Reason.CLIENT_GONE, "the caller left", source=Source.DOWNSTREAM))
        if item.on_cancel is not None:
            item.on_cancel()

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

    async def _drain(self) -> None:
        self._flush()
        if self._writable is not None:
            await self._writable
        if self.closed:
            raise _lost("the link was lost while sending")

    def _abort(self, message: str) -> None:
        if self.transport is not None:
            self.transport.abort()
        for call in self._pending.values():
            if not call.future.done():
                call.future.set_exception(EdgeError(Reason.PROTOCOL, message, source=Source.UPSTREAM))
