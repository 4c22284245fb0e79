"""One client connection: serves its requests in order, keeps its deadlines, ends well.

One request at a time. What a client sends meanwhile waits as bytes, bounded, and is parsed when its
turn comes, so answers can't change order and pipelining needs no queue. FIN means that the client has
left, as in nginx and Go: what the handler returned is cancelled. It knows no route and no model, and
not how it was accepted.
"""

import asyncio
import logging
import socket
import struct
from typing import Any, Final, cast

from edge.clock import now_ms
from edge.errors import EdgeError, Reason, Source
from edge.http.deadlines import ENDING, Phase, overdue
from edge.http.door import Door
from edge.http.incoming import Incoming
from edge.http.outgoing import HIGH_WATER_BYTES, Outgoing
from edge.http.parse import Bad
from edge.http.request import Request
from edge.http.respond import ALLOWED_METHODS, Response, encode_head, error_response
from edge.http.target import ASTERISK

#: SO_LINGER with zero seconds: closing the socket then sends RST.
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """The protocol object of one client."""

    __slots__ = (
        "_answer_started",
        "_door",
        "_in",
        "_loop",
        "_out",
        "_phase",
        "_since_ms",
        "_transport",
        "_work",
        "_yielded",
        "client",
        "refusal",
        "seat",
        "was_made",
    )

    _transport: asyncio.Transport
    _in: Incoming
    _out: Outgoing

    def __init__(
        self,
        door: Door,
        loop: asyncio.AbstractEventLoop,
        seat: str | None = None,
        refusal: EdgeError | None = None,
    ) -> None:
        self.seat = seat
        """What the door counts this connection under; None until it is counted."""
        self.refusal = refusal
        """Why it was over a cap at accept."""
        self.was_made = False
        self.client = ""
        self._door = door
        self._loop = loop
        self._phase = Phase.HEAD
        self._since_ms = 0.0
        self._work: asyncio.Future[Any] | None = None
        self._answer_started = False
        self._yielded = False

    # -- the transport's side ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self.was_made = True
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by type, only by method
        peer = transport.get_extra_info("peername")
        self.client = peer[0].removeprefix("::ffff:") if isinstance(peer, tuple) else ""
        self._in = Incoming(self._transport, self.client, self._door.limits, self._door.hosts)
        self._out = Outgoing(self._transport)
        self._since_ms = now_ms()
        refusal = self._door.opened(self)
        if refusal is not None:
            self._fail(refusal)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._phase = Phase.CLOSED
        self._abandon()
        self._out.resume()
        self._door.closed(self)

    def pause_writing(self) -> None:  # noqa: D102
        self._out.pause()

    def resume_writing(self) -> None:  # noqa: D102
        self._out.resume()
        self._continue()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self._phase in ENDING:
            return  # read and dropped, so that the client gets to see the last answer
        if self._is_free() and not self._yielded:
            self._advance(data)
            return
        try:
            self._in.take(data)
        except EdgeError as error:
            self._fail(error)
        else:
            self._in.adjust(busy=True)

    def eof_received(self) -> None:  # noqa: D102
        if self._phase not in ENDING:
            inside = self._phase is Phase.HEAD or not self._in.complete
            cut_short = self._in.parser.eof() if inside else []
            if cut_short and isinstance(bad := cut_short[0], Bad):
                self._fail(bad.error)
            elif self._in.head is not None:
                self._door.note(Reason.CLIENT_GONE)
            self._abandon()
        self._enter(Phase.CLOSING)  # we return None: the transport closes once what is written is out

    # -- requests ------------------------------------------------------------------------------

    def _advance(self, data: bytes) -> None:
        """Serve what is here until a request takes time, the bytes run out, or it is others' turn."""
        incoming = self._in
        parser = incoming.parser
        for _ in range(self._door.limits.max_pipelined):
            events = parser.feed(data)
            data = b""
            if not events:
                if self._phase is Phase.IDLE and parser.held_bytes:
                    self._enter(Phase.HEAD)
                return
            try:
                request = incoming.begin(events)
            except EdgeError as error:
                self._fail(error)
                return
            self._phase = Phase.REQUEST
            self._since_ms = request.received_ms
            self._start(request)
            if not parser.held_bytes or not self._is_free():
                return
        self._yielded = True
        self._loop.call_soon(self._take_turn)

    def _is_free(self) -> bool:
        """True if the next request may be served."""
        return self._in.head is None and self._phase not in ENDING and self._out.blocked_since_ms is None

    def _take_turn(self) -> None:
        self._yielded = False
        self._continue()

    def _continue(self) -> None:
        """Go on with bytes that waited for the previous answer."""
        if self._is_free() and not self._yielded:
            if self._in.parser.held_bytes:
                self._advance(b"")
            if self._phase not in ENDING:
                self._in.adjust(busy=self._yielded or not self._is_free())

    def _start(self, request: Request) -> None:
        if request.path is ASTERISK.path:
            self._answer(Response(204, [("Allow", ALLOWED_METHODS)], b"", ""))
            return
        self._door.requests += 1
        try:
            answer = self._door.handler(request)
        except Exception as error:  # noqa: BLE001 -- whatever a handler raises is answered, never silence
            self._answer(self._error_answer(error))
            return
        if isinstance(answer, Response):
            self._answer(answer)
            return
        work = answer if asyncio.isfuture(answer) else self._door.run(answer)
        self._work = work
        work.add_done_callback(self._on_answer)

    # -- answers -------------------------------------------------------------------------------

    def _on_answer(self, work: "asyncio.Future[Response]") -> None:
        if not self._is_current(work):
            return
        if work.cancelled():
            error: BaseException | None = asyncio.CancelledError("the handler cancelled itself")
        else:
            error = work.exception()
        self._answer(work.result() if error is None else self._error_answer(error))
        self._continue()

    def _is_current(self, work: "asyncio.Future[Any]") -> bool:
        """False for work that was abandoned: its result is nobody's, its error was ours to cause."""
        self._door.ended(work)
        if work is not self._work:
            if not work.cancelled():
                work.exception()
            return False
        self._work = None
        return True

    def _error_answer(self, error: BaseException) -> Response:
        if not isinstance(error, EdgeError):
            _log.error("the handler failed", exc_info=error)
            error = EdgeError(Reason.INTERNAL, "the request failed inside the node")
        return error_response(error, self._door.retry_after_s())

    def _answer(self, response: Response) -> None:
        head = self._in.head
        assert head is not None  # noqa: S101 -- answers are given to requests
        known = response.length is not None
        chunked = not known and head.version == (1, 1)
        close = not (head.keep_alive and self._in.complete and (known or chunked)) or self._door.lame_duck
        try:
            block = encode_head(response, close=close, chunked=chunked)
        except (ValueError, UnicodeEncodeError) as error:
            response = self._error_answer(error)
            chunked = False
            block = encode_head(response, close=close, chunked=False)
        body = b"" if head.method == "HEAD" else response.body
        self._answer_started = True
        if isinstance(body, bytes) and len(body) <= HIGH_WATER_BYTES:
            self._transport.write(block + body if body else block)
            self._finish(close)
            return
        self._work = work = self._door.run(self._out.send(block, response, chunked=chunked))
        work.add_done_callback(lambda done: self._on_sent(done, close))

    def _on_sent(self, work: "asyncio.Future[None]", close: bool) -> None:
        if not self._is_current(work):
            return
        error = None if work.cancelled() else work.exception()
        if error is not None or work.cancelled():
            _log.error("an answer broke off", exc_info=error)
            self._abort("answer-broken")  # a reset, so that the client can't take a part for the whole
            return
        self._finish(close)
        self._continue()

    def _finish(self, close: bool) -> None:
        """The answer is written; what next?"""
        head, complete = self._in.head, self._in.complete
        self._in.finish()
        self._answer_started = False
        if not close:
            self._enter(Phase.IDLE)
            return
        asked_for = head is not None and not head.keep_alive and not head.chunked
        self._end(linger=not (complete and asked_for) or self._in.parser.held_bytes > 0)

    def _fail(self, error: EdgeError) -> None:
        """The door itself refuses: answer if none has begun, and let the client see it."""
        self._door.note(error.reason)
        self._abandon()
        if self._answer_started:
            self._abort("answer-broken")
            return
        response = error_response(error, self._door.retry_after_s())
        block = encode_head(response, close=True, chunked=False)
        head_only = self._in.head is not None and self._in.head.method == "HEAD"
        body = b"" if head_only or not isinstance(response.body, bytes) else response.body
        self._transport.write(block + body)
        self._end(linger=True)

    # -- the end -------------------------------------------------------------------------------

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._since_ms = now_ms()

    def _abandon(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.cancel()

    def _abort(self, event: str) -> None:
        """End with a reset: a plain end could pass for the end of an answer."""
        self._door.note(event)
        self._abandon()
        self._enter(Phase.CLOSING)
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._transport.abort()

    def _end(self, *, linger: bool) -> None:
        """Close. With input unread a plain close is a reset, which takes the answer away: linger first."""
        self._in.finish()
        if not linger:
            self._enter(Phase.CLOSING)
            self._transport.close()
            return
        self._in.resume()
        self._enter(Phase.LINGER)
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()

    def drain(self) -> None:
        """The door closes: an idle connection ends now, a busy one after its answer."""
        if self._phase is Phase.IDLE or (self._phase is Phase.HEAD and not self._in.parser.held_bytes):
            self._end(linger=False)

    def kill(self) -> None:
        """End now, whatever runs."""
        self._abort("killed")

    def check_deadlines(self, at_ms: float) -> None:
        """Called by the door's timer; `at_ms` is monotonic."""
        limits = self._door.limits
        blocked_ms = self._out.blocked_since_ms
        if blocked_ms is not None and at_ms - blocked_ms >= limits.write_timeout_ms:
            self._abort("write-timeout")
        elif self._phase is Phase.REQUEST:
            if self._in.is_too_slow(at_ms):
                self._time_out(f"the body came with less than {limits.body_min_bytes_per_s} bytes a second")
        elif overdue(self._phase, at_ms - self._since_ms, limits):
            if self._phase is Phase.HEAD:
                self._time_out(f"the headers took over {limits.header_timeout_ms} ms")
            elif self._phase is Phase.CLOSING:
                self._abort("write-timeout")
            else:
                self._end(linger=False)

    def _time_out(self, message: str) -> None:
        self._fail(EdgeError(Reason.TIMEOUT_REQUEST, message, source=Source.DOWNSTREAM))
