"""Bytes of one connection -> Head, Body, End or Bad. Pure: no socket, no clock, no answer.

The only file that knows the HTTP parser: aiohttp's C `HttpRequestParser` (llhttp). It is asked one
question only, "is this header block a request?", and it is asked only about complete blocks.

Decision, by tests (tests/spec/test_parse.py holds each as a case): fed a raw stream, that parser
leaks the last chunked trailer into the next request, loses a good request when garbage follows it in
the same segment, leaves a payload without end after a chunk error, returns a request from half a head
at end of file, keeps its pause flag, swallows what follows `Upgrade`, and accepts in silence megabytes
of chunk extensions, HTTP/0.9, "HTTP/2.0", `gzip, chunked` and coding on HTTP/1.0. All of these live in
the stream, none in the header block. So the stream is ours: a head ends at the first CRLF CRLF, and
the parser's header count must be the number of CRLF lines, so nothing else has ended a line;
Content-Length is counted; chunked is `chunked.py`, and the connection ends after it. With
`response_with_body=False` the parser is back at its start after every head: no byte of a body ever
enters it and nothing can be carried over. httptools (the same llhttp) was therefore not needed: what
it frames better is not asked of either, and asked for one head at a time it costs the same (one
interleaved run: 42 against 44 us of a request's CPU, 25 without either). A head equal to the
connection's last one is not parsed again, which is what most clients send.
"""

from typing import Final, NamedTuple, TypeAlias

import msgspec
from aiohttp import http_parser
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError

from edge.errors import EdgeError, Reason
from edge.http.chunked import ChunkedBody
from edge.http.framing import (
    Version,
    bad,
    body_length,
    check_block_bytes,
    check_host,
    check_line_bytes,
    check_request_line,
    check_size,
    check_utf8,
    refused,
    why_malformed,
)
from edge.limits import HttpLimits

if http_parser.HttpRequestParser is not getattr(http_parser, "HttpRequestParserC", None):
    raise ImportError(
        "aiohttp's C parser is not loaded: its Python parser accepts other input and is not tested here. "
        "Install aiohttp as a binary wheel and unset AIOHTTP_NO_EXTENSIONS."
    )

_END_OF_HEAD: Final = b"\r\n\r\n"
#: The C parser's own limits are above ours, so that ours decide and name the status.
_ABOVE_OURS: Final = 1 << 24


class Head(NamedTuple):
    """A request's header block, checked for framing. Equal bytes on a connection give the same object."""

    method: str
    raw_path: str
    version: Version
    headers: tuple[tuple[bytes, bytes], ...]
    """(lower-case name, value without surrounding blanks), in order; names are tokens, values are UTF-8."""
    keep_alive: bool
    """False also for chunked requests and for `Upgrade`: the connection ends after the answer."""
    content_length: int | None
    chunked: bool
    expect_continue: bool


class Body(msgspec.Struct, frozen=True, gc=False):
    """A piece of the current request's body, not empty."""

    data: bytes


class End(NamedTuple):
    """The current request is complete."""


class Bad(NamedTuple):
    """The input can't be understood further; nothing follows and the connection has to end."""

    error: EdgeError


Event: TypeAlias = Head | Body | End | Bad
END: Final = End()


class Parser:
    """The requests of one connection, one at a time and in order.

    `feed` returns the events of at most one request: bytes behind its End wait in the parser until
    `feed` is called again (`feed(b"")` will do), so the caller decides when the next one is due. Behind a
    request that is not `keep_alive`, and behind Bad, nothing is read any more.
    """

    __slots__ = (
        "_chunked",
        "_dead",
        "_held",
        "_is_last",
        "_last",
        "_last_raw",
        "_left",
        "_limits",
        "_line_seen",
        "_llhttp",
        "_scanned",
    )

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._held = bytearray()
        self._scanned = 0
        self._line_seen = False
        self._left = 0
        self._chunked: ChunkedBody | None = None
        self._dead = False
        self._is_last = False
        self._last_raw = b""
        self._last: Head | None = None
        self._llhttp: http_parser.HttpRequestParser | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes received and not yet turned into events."""
        return len(self._held)

    def hold(self, data: bytes) -> None:
        """Keep bytes for a later `feed`, unread."""
        if not self._dead:
            self._held += data

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes in, give back what they mean; a list with Bad in it ends with it."""
        if self._dead:
            return []
        events: list[Event] = []
        source: bytes | bytearray = data
        if self._held:
            self._held += data
            source = self._held
        try:
            used = self._advance(source, events)
        except EdgeError as error:
            self._die()
            events.append(Bad(error))
            return events
        if source is self._held:
            del self._held[:used]
        elif used < len(data):
            self._held += data[used:]
        return events

    def eof(self) -> list[Event]:
        """The client will send no more: Bad if that cuts a request short, else nothing."""
        if self._dead or not (self._held or self._left or self._chunked is not None):
            return []
        self._die()
        return [Bad(bad("the connection ended inside a request"))]

    def _die(self) -> None:
        self._dead = True
        self._held.clear()

    def _advance(self, source: bytes | bytearray, events: list[Event]) -> int:
        """Events of at most one request from the front of `source`; returns how much of it was used."""
        if self._left or self._chunked is not None:
            return self._advance_body(source, 0, events)
        start = 2 if source.startswith(b"\r\n") else 0  # RFC 9112 2.2: one empty line before a request
        end = source.find(_END_OF_HEAD, start + max(0, self._scanned - 3))
        if end < 0:
            self._check_partial(source, start)
            return 0
        end += len(_END_OF_HEAD)
        raw = bytes(source[start:end])
        self._scanned = 0
        self._line_seen = False
        if raw == self._last_raw and self._last is not None:
            head = self._last
        else:
            head = self._last = self._parse(raw)
            self._last_raw = raw
        events.append(head)
        self._is_last = not head.keep_alive
        if head.chunked:
            self._chunked = ChunkedBody(self._limits)
        elif head.content_length:
            self._left = head.content_length
        else:
            self._end(events)
            return end
        return self._advance_body(source, end, events)

    def _advance_body(self, source: bytes | bytearray, at: int, events: list[Event]) -> int:
        if self._chunked is not None:
            pieces: list[bytes] = []
            try:
                at = self._chunked.decode(source, at, pieces)
            finally:
                events.extend(Body(piece) for piece in pieces)
            if self._chunked.done:
                self._chunked = None
                self._end(events)
            return at
        take = min(self._left, len(source) - at)
        if take:
            events.append(Body(bytes(source[at : at + take])))
            self._left -= take
            if self._left == 0:
                self._end(events)
        return at + take

    def _end(self, events: list[Event]) -> None:
        events.append(END)
        self._dead = self._is_last

    def _check_partial(self, source: bytes | bytearray, start: int) -> None:
        """Refuse an unfinished head that no further byte could make right, before a deadline has to."""
        limits = self._limits
        size = len(source) - start
        fresh = start + max(0, self._scanned - 1)
        if size and not 65 <= source[start] <= 90 and source[start:] != b"\r":
            raise bad("the request does not start with a method in upper case")
        eol = source.find(b"\r\n", start)
        if eol < 0:
            if source.find(b"\n", fresh) >= 0:
                raise bad("a line ends in a bare LF")
            if size > limits.max_line_bytes + 1:
                raise refused(Reason.URI_TOO_LONG, f"the request line is over {limits.max_line_bytes} bytes")
        else:
            if not self._line_seen:
                check_request_line(bytes(source[start:eol]), limits)
                self._line_seen = True
            counted_before = source[fresh : fresh + 1] == b"\n"
            if source.count(b"\n", fresh) != source.count(b"\r\n", fresh) + counted_before:
                raise bad("a line ends in a bare LF")
            check_line_bytes(len(source) - source.rfind(b"\r\n") - 3, limits)
            check_block_bytes(len(source) - eol - 4, limits)
        self._scanned = size

    def _parse(self, raw: bytes) -> Head:
        """One complete head, blank line included. Raises EdgeError."""
        eol = raw.find(b"\r\n")
        version = check_request_line(raw[:eol], self._limits)
        lines = check_size(raw, eol, self._limits)
        if self._llhttp is None:
            self._llhttp = http_parser.HttpRequestParser(
                None,  # the protocol it would pause: it never holds a body
                None,  # the loop, likewise
                0,
                max_line_size=_ABOVE_OURS,
                max_field_size=_ABOVE_OURS,
                max_headers=_ABOVE_OURS,
                response_with_body=False,
                auto_decompress=False,
            )
        try:
            messages, _, behind = self._llhttp.feed_data(raw)
        except BadHttpMethod:
            raise refused(Reason.NOT_IMPLEMENTED, "the method is not known") from None
        except HttpProcessingError:
            raise why_malformed(raw) from None
        if len(messages) != 1 or behind:
            raise bad("the header block is malformed")
        message = messages[0][0]
        # A list inside, not a generator: half the time, for every request.
        headers = tuple([(name.lower(), value) for name, value in message.raw_headers])
        if len(headers) != lines:  # it took a bare CR or LF, or a fold, for a line's end, or missed one
            raise bad("a line ends in a bare CR or LF")
        fields = dict(headers)  # of a repeated name the last; names that frame are single, or it was refused
        if not raw.isascii():
            check_utf8(value for _, value in headers)
        check_host(fields.get(b"host"), version)
        length = body_length(fields, version, self._limits)
        chunked = length is None
        return Head(
            message.method,
            message.path,
            version,
            headers,
            not (message.should_close or chunked or version == (1, 0) or b"upgrade" in fields),
            length if b"content-length" in fields else None,
            chunked,
            fields.get(b"expect", b"").lower() == b"100-continue" and version == (1, 1),
        )
