"""One connection that carries many exchanges: the asyncio half of the frames.

The same class serves both ends. A link knows ids, order, bounds and cancellation; it does
not know what a call means. All frames of one read are handled together: at 32 requests in
flight the cost of a hop is shared by all that arrived with it.

A body above `SHARED_BODY_BYTES` is sent with `stream` on a link opened for it alone
(`exclusive=True`): then the pauses of TCP are the pauses of the body. A large *reply* on a
shared link takes turns with the others at the sender, is bounded by `max_body_bytes`, and
what its reader has not taken is buffered here: `BUFFERED_BODIES` times that for all.

Calls go one way on a link: the side that was given `on_call` answers, the other one asks.
Events go both ways. After a `Goodbye` this side opens no more exchanges (`retired`), and
closes the link once the last one has ended.
"""

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.wire import calls, meshcalls
from edge.wire.answering import Answering
from edge.wire.channel import PAUSE_READING_BYTES, lost
from edge.wire.exchange import Body, Incoming, Reply
from edge.wire.frame import Decoder, FrameError, Kind, encode

SWEEP_S: Final = 0.05
IDLE_S: Final = 20.0
#: Replies that are read slowly, on one shared link: so many times `max_body_bytes` in memory.
BUFFERED_BODIES: Final = 4


class _Pending:
    __slots__ = ("due_ms", "future", "reply")

    def __init__(self, future: "asyncio.Future[Reply]", due_ms: float) -> None:
        self.future = future
        self.due_ms = due_ms
        self.reply: Body | None = None


class Link(Answering):
    """Both ends of a connection of frames.

    `on_call` gets each `Incoming` synchronously, in order of arrival; `on_event` each event's
    head and body but `Goodbye`; `on_retired` runs when that came; `on_closed` runs once, after
    every pending exchange has failed with LINK_LOST. `idle_s`: an answer that has begun fails
    with DEADLINE when its reader waited so long for the next byte.
    """

    def __init__(
        self,
        *,
        on_call: Callable[[Incoming], None] | None = None,
        on_event: Callable[[calls.Head, bytes], None] | None = None,
        on_closed: Callable[["Link"], None] | None = None,
        on_open: Callable[["Link"], None] | None = None,
        on_retired: Callable[["Link"], None] | None = None,
        max_body_bytes: int = 64 * 1024 * 1024,
        max_calls: int = 4096,
        exclusive: bool = False,
        idle_s: float = IDLE_S,
    ) -> None:
        super().__init__(max_body_bytes=max_body_bytes, idle_s=idle_s)
        self._on_call = on_call
        self._on_event = on_event
        self._on_closed = on_closed
        self._on_open = on_open
        self._on_retired = on_retired
        self._max_calls = max_calls
        self._exclusive = exclusive
        self._decoder = Decoder()
        self._next_id = 0
        self._pending: dict[int, _Pending] = {}
        self._replies: weakref.WeakSet[Body] = weakref.WeakSet()
        self._sweeper: asyncio.TimerHandle | None = None
        #: The other side said goodbye.
        self.retired = False
        #: Events that this node could not read: of a newer peer, or none at all.
        self.unknown_events = 0

    # --- opened side

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
        pump = asyncio.get_running_loop().create_task(self._pump_all(exchange_id, chunks))
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

    async def _pump_all(self, exchange_id: int, chunks: AsyncIterator[bytes]) -> None:
        await self._pump(exchange_id, chunks)
        self._send(encode(Kind.END, exchange_id))

    def cancel(self, exchange_id: int) -> None:
        """Forget an exchange and tell the other side to stop working on it."""
        pending = self._pending.pop(exchange_id, None)
        if pending is None:
            return
        if not pending.future.done():
            pending.future.cancel()
        if pending.reply is not None:
            pending.reply.end(lost("cancelled"))
            self._read_on(pending.reply)
        if not self.closed:
            self._send(encode(Kind.CANCEL, exchange_id))

    def _open(
        self, kind: Kind, head: calls.Head, body: bytes, timeout_s: float
    ) -> tuple[int, asyncio.Future[Reply]]:
        if self._on_call is not None:
            raise RuntimeError("this side of the link answers calls; it opens none")
        if self.closed or self.retired or self._loop is None:
            error = lost("the other side ends this link" if self.retired else "the link is closed")
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
        overdue = [
            exchange_id
            for exchange_id, pending in self._pending.items()
            if (pending.due_ms if pending.reply is None else pending.reply.due_ms) <= now_ms
        ]
        for exchange_id in overdue:
            pending = self._pending[exchange_id]
            what = "no answer within the deadline" if pending.reply is None else "the answer stalled"
            self._give_up(exchange_id, EdgeError(Reason.DEADLINE, what, source=Source.UPSTREAM))
        if self._pending and self._loop is not None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        elif self.retired:
            self.close()

    def _give_up(self, exchange_id: int, error: EdgeError) -> None:
        """Fail one exchange here, and stop it over there."""
        pending = self._pending.get(exchange_id)
        if pending is not None:
            if not pending.future.done():
                pending.future.set_exception(error)
            if pending.reply is not None:
                pending.reply.end(error)
            self.cancel(exchange_id)

    def _retire(self) -> None:
        if self._on_call is None and not self.retired:
            self.retired = True
            if self._on_retired is not None:
                self._on_retired(self)
            if not self._pending:
                self.close()

    def body_abandoned(self, body: Body) -> None:
        """Nobody reads this reply any further: stop it over there, and free a link that was its own."""
        for exchange_id, pending in self._pending.items():
            if pending.reply is body:
                self.cancel(exchange_id)
                if self._exclusive:
                    self.close()
                return
        super().body_abandoned(body)

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is there."""
        super().connection_made(transport)
        if self._exclusive and self._on_call is None:
            self._allow_pauses()
        if self._on_open is not None:
            self._on_open(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone; everything in it fails, nothing is left waiting."""
        super().connection_lost(exc)
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        error = lost("the link was lost" if exc is None else f"the link was lost: {exc}")
        pending, self._pending = self._pending, {}
        for call in pending.values():
            if not call.future.done():
                call.future.set_exception(error)
            if call.reply is not None:
                call.reply.end(error)
        incoming, self._incoming = self._incoming, {}
        for item in incoming.values():
            self._cancel_incoming(item)
        if self._on_closed is not None:
            self._on_closed(self)

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
                try:
                    reply = Reply(calls.decode_head(head), body, None)
                except EdgeError as unreadable:
                    # The frames are in order: only this exchange can't be used.
                    self._give_up(exchange_id, unreadable)
                    return
                del self._pending[exchange_id]
                if not pending.future.done():
                    pending.future.set_result(reply)
        elif kind is Kind.REPLY_MORE:
            self._handle_reply_more(exchange_id, head, body)
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
        elif kind is Kind.CANCEL:
            item = self._incoming.pop(exchange_id, None)
            if item is not None:
                self._cancel_incoming(item)
        else:
            self._handle_event(head, body)

    def _handle_reply_more(self, exchange_id: int, head: bytes, body: bytes) -> None:
        pending = self._pending.get(exchange_id)
        if pending is None or pending.future.done():
            return
        try:
            typed = calls.decode_head(head)
        except EdgeError as error:
            self._give_up(exchange_id, error)
            return
        pending.reply = Body(self, body, pending.due_ms)
        self._replies.add(pending.reply)
        pending.future.set_result(Reply(typed, b"", pending.reply))

    def _handle_event(self, head: bytes, body: bytes) -> None:
        try:
            typed = calls.decode_head(head)
        except EdgeError:
            self.unknown_events += 1
            return
        if type(typed) is meshcalls.Goodbye:
            self._retire()
        elif self._on_event is not None:
            self._on_event(typed, body)

    def _handle_call(self, kind: Kind, exchange_id: int, head: bytes, body: bytes) -> None:
        if self._on_call is None or exchange_id in self._incoming:
            raise FrameError("a call that this side did not expect")
        rest = None
        if kind is Kind.CALL_MORE:
            rest = Body(self, body)
            self._allow_pauses()
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
        if item is not None and item.rest is not None:
            stream = item.rest
            if kind is Kind.END:
                stream.end()
                return
            stream.feed(body)
        else:
            pending = self._pending.get(exchange_id)
            if pending is None or pending.reply is None:
                return
            stream = pending.reply
            if kind is Kind.END:
                del self._pending[exchange_id]
                stream.end()
                return
            stream.feed(body)
            if not self._exclusive:
                self._bound_buffers(stream)
            if stream.ended:
                self.cancel(exchange_id)
                return
        if self._exclusive:
            self._hold_reading(stream)

    def _bound_buffers(self, body: Body) -> None:
        """Slow readers of large replies share the memory of one link; who keeps up is not touched."""
        if body.buffered_bytes > PAUSE_READING_BYTES:
            limit = BUFFERED_BODIES * self.max_body_bytes
            if sum(reply.buffered_bytes for reply in self._replies) > limit:
                text = f"slow readers hold more than {limit} bytes of one link"
                body.drop(EdgeError(Reason.SATURATED, text, source=Source.DOWNSTREAM))

    def _abort(self, message: str) -> None:
        if self.transport is not None:
            self.transport.abort()
        for call in self._pending.values():
            if not call.future.done():
                call.future.set_exception(EdgeError(Reason.PROTOCOL, message, source=Source.UPSTREAM))
