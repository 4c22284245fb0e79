"""The reading half of a connection: bytes in, one request at a time, backpressure through TCP.

It refuses to know handlers, answers and phases: `connection.py` says when the next request is due.
"""

import asyncio
from typing import Final

from edge.clock import now_ms
from edge.errors import EdgeError, Reason, Source
from edge.http.deadlines import too_slow
from edge.http.headers import Headers, admit
from edge.http.parse import Bad, Body, End, Event, Head, Parser
from edge.http.request import BodyStream, Request
from edge.http.respond import ALLOWED_METHODS, CONTINUE
from edge.http.target import Target, parse_target
from edge.limits import HttpLimits

_METHODS: Final = frozenset({"GET", "HEAD", "POST"})


class Incoming:
    """Reads from one transport. `head` is the request that is under way, None between requests."""

    __slots__ = (
        "_awaits_continue",
        "_body_bytes",
        "_checked",
        "_client",
        "_hosts",
        "_limits",
        "_paused",
        "_stream",
        "_transport",
        "_window_from_ms",
        "head",
        "parser",
    )

    def __init__(
        self, transport: asyncio.Transport, client: str, limits: HttpLimits, hosts: frozenset[str]
    ) -> None:
        self.parser = Parser(limits)
        self.head: Head | None = None
        self._transport = transport
        self._client = client
        self._limits = limits
        self._hosts = hosts
        self._stream: BodyStream | None = None
        self._awaits_continue = False
        self._body_bytes = 0
        self._window_from_ms = 0.0
        self._paused = False
        self._checked: tuple[Head, Target, Headers] | None = None

    @property
    def complete(self) -> bool:
        """True unless a part of the current request's body is still to come."""
        return self._stream is None or self._stream.complete

    def begin(self, events: list[Event]) -> Request:
        """The first events of a request -> what its handler gets; `head` is set. Raises EdgeError."""
        head, last = events[0], events[-1]
        if isinstance(last, Bad):
            raise last.error
        assert isinstance(head, Head)  # noqa: S101 -- Parser: the first event of a request is its Head
        self.head = head
        received_ms = now_ms()
        whole: bytes | None = None
        stream: BodyStream | None = None
        pieces = [event.data for event in events if type(event) is Body]
        if type(last) is End:
            whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        else:
            stream = BodyStream(self._on_read)
            for piece in pieces:
                stream.push(piece)
            self._awaits_continue = head.expect_continue and not pieces
            self._body_bytes = 0
            self._window_from_ms = received_ms
        self._stream = stream
        target, headers = self._check(head)
        return Request(
            "GET" if head.method == "HEAD" else head.method,
            target.path,
            target.query,
            headers,
            head.content_length,
            self._client,
            received_ms,
            whole,
            stream,
        )

    def _check(self, head: Head) -> tuple[Target, Headers]:
        """Target and headers, once per different head: equal heads of a connection are one object."""
        checked = self._checked
        if checked is not None and checked[0] is head:
            return checked[1], checked[2]
        if head.method not in _METHODS and not (head.method == "OPTIONS" and head.raw_path == "*"):
            raise EdgeError(Reason.BAD_METHOD, f"only {ALLOWED_METHODS} are served", source=Source.DOWNSTREAM)
        target = parse_target(head.method, head.raw_path, self._hosts)
        headers = admit(head.headers)
        self._checked = head, target, headers
        return target, headers

    def take(self, data: bytes) -> None:
        """Bytes that came while a request is under way: its body, or what has to wait. Raises EdgeError."""
        stream = self._stream
        if stream is None or stream.complete:
            self.parser.hold(data)
            return
        for event in self.parser.feed(data):
            if type(event) is Body:
                self._awaits_continue = False
                self._body_bytes += len(event.data)
                stream.push(event.data)
            elif type(event) is End:
                stream.finish()
            elif isinstance(event, Bad):
                raise event.error

    def finish(self) -> None:
        """The current request is answered."""
        self.head = None
        self._stream = None

    def _on_read(self) -> None:
        """The handler wants more of the body."""
        if self._awaits_continue:
            self._awaits_continue = False
            self._window_from_ms = now_ms()
            self._transport.write(CONTINUE)
        self.adjust(busy=True)

    def adjust(self, *, busy: bool) -> None:
        """Push back when too much waits; only the transport is paused, never the parser.

        Never while not `busy`: then what waits is the front of a request, whose rest has to come.
        """
        held = self.parser.held_bytes + (self._stream.held_bytes if self._stream is not None else 0)
        limit = self._limits.max_buffered_bytes
        if self._paused:
            if not busy or held <= limit // 2:
                self.resume()
        elif busy and held > limit:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again; what a pause held back does not count against the client."""
        if self._paused:
            self._paused = False
            self._window_from_ms = now_ms()
            self._body_bytes = 0
            self._transport.resume_reading()

    def is_too_slow(self, at_ms: float) -> bool:
        """True if a body that we wait for came with less than its floor over a whole window."""
        waited_ms = at_ms - self._window_from_ms
        if self.complete or self._paused or self._awaits_continue or waited_ms < self._limits.body_window_ms:
            return False
        if too_slow(self._body_bytes, waited_ms, self._limits):
            return True
        self._body_bytes = 0
        self._window_from_ms = at_ms
        return False
