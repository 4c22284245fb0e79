"""Ranges of objects over plain HTTP/1.1, straight from the socket: less CPU a byte than a client library.

Only what a range needs, and that strictly: 206, the very range and size that were asked for, a
Content-Length and no other framing. An object that changes while it is downloaded shows in its ETag
(If-Range). Whatever else an origin may want (TLS, credentials, a proxy, a redirect) is for the library
behind `edge.weights.origin`. Beside that one, over ten runs of `tests.bench.fetchfaults`: 0.51 to 0.79
of its CPU time a byte for ranges alone, 0.75 to 0.9 in a whole fetch; throughput the same within the noise.
"""

import re
import socket
import struct
import threading
import weakref
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit
from urllib.request import getproxies_environment

from edge import clock

CONNECT_TIMEOUT_S: Final = 2.0
#: An answer's head takes no longer than this, however it drips.
HEAD_WITHIN_S: Final = 5.0
MAX_HEAD_BYTES: Final = 16 * 1024
#: What is handed on at a time, and the longest that a part of it is held back: the kernel fills a piece in
#: one call, so that threads seldom ask for the interpreter's lock.
PIECE_BYTES: Final = 512 * 1024
PIECE_MS: Final = 100
#: Less than servers keep an idle connection (nginx, aiohttp: 75 s), so that it is not closed under a request.
IDLE_MS: Final = 10_000.0
MAX_IDLE: Final = 16
MAX_ETAGS: Final = 256
#: Fields that may not come twice with different values.
_ONCE: Final = frozenset({"content-length", "content-range", "transfer-encoding", "etag"})
_TIMEVAL: Final = struct.Struct("@ll")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?")
_LENGTH: Final = re.compile(r"[0-9]{1,15}")
#: A strong one that a request can repeat as it came: RFC 9110 allows bytes above 127 too.
_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]*"')
_RANGE: Final = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")


class Refused(Exception):  # noqa: N818 -- an answer, not a failure: the caller says what it means
    """An answer with another status than 206."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the answer has status {status}")
        self.status = status


class Resized(Exception):  # noqa: N818 -- as above
    """The object has another size than was expected."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"it has {size_bytes} bytes")
        self.size_bytes = size_bytes


class _Head(NamedTuple):
    status: int
    fields: dict[str, str]
    #: Bytes of the body that came with it.
    rest: bytes


class _Idle(NamedTuple):
    connection: socket.socket
    since_ms: float


def serves(url: str) -> bool:
    """Is this an origin for `RawHttp`: plain HTTP without credentials, and no proxy before it?"""
    parts = urlsplit(url)
    plain = parts.scheme == "http" and parts.hostname and "@" not in parts.netloc and not parts.query
    return bool(plain) and not {"http", "all"} & getproxies_environment().keys()


class RawHttp:
    """One origin. For several threads at a time. What is idle is closed when nobody has this any more.

    Raises OSError for what the network does (also ConnectionError for an answer that is not HTTP, or not
    the one that was asked for), Refused, and Resized.
    """

    def __init__(self, url: str, *, read_timeout_s: float, request_timeout_s: float) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or 80
        self._host = parts.netloc
        self._base = parts.path.rstrip("/")
        self._read_timeout_s = read_timeout_s
        self._request_timeout_s = request_timeout_s
        self._lock = threading.Lock()
        self._idle: list[_Idle] = []
        weakref.finalize(self, _close, self._idle)
        #: What each object was when its download began; None once it changed: then digests decide alone.
        self._etags: dict[str, str | None] = {}

    def range(self, path: str, start: int, end: int, object_bytes: int) -> Iterator[memoryview]:
        """Bytes `start` up to `end`; each buffer is good until the next, and empty while nothing comes."""
        until_s = clock.now_s() + self._request_timeout_s
        connection, head = self._ask(path, start, end)
        whole = False
        try:
            self._check(path, head, start, end, object_bytes)
            yield from self._body(connection, head.rest, end - start, until_s)
            whole = head.fields.get("connection", "").lower() != "close"
        finally:
            self._done(connection, reusable=whole)

    # --- one exchange

    def _ask(self, path: str, start: int, end: int) -> tuple[socket.socket, _Head]:
        """Send the request and read the answer's head; once more if a kept connection had died."""
        kept = self._take()
        if kept is not None:
            try:
                return kept, self._exchange(kept, path, start, end)
            except TimeoutError:
                kept.close()
                raise
            except OSError:
                kept.close()
        fresh = socket.create_connection(self._address, CONNECT_TIMEOUT_S)
        try:
            # The kernel's own timeouts: with Python's, MSG_WAITALL would wait for nothing.
            fresh.settimeout(None)
            fresh.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(0, PIECE_MS * 1000))
            fresh.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(2, 0))
            return fresh, self._exchange(fresh, path, start, end)
        except BaseException:
            fresh.close()
            raise

    def _exchange(self, connection: socket.socket, path: str, start: int, end: int) -> _Head:
        etag = self._etags.get(path)
        condition = f"If-Range: {etag}\r\n" if etag else ""
        connection.sendall(
            f"GET {self._base}/{quote(path)} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Range: bytes={start}-{end - 1}\r\n{condition}Accept: */*\r\n\r\n".encode("ascii")
        )
        return self._head(connection)

    def _head(self, connection: socket.socket) -> _Head:
        silent_s, until_s = clock.now_s() + self._read_timeout_s, clock.now_s() + HEAD_WITHIN_S
        raw = bytearray()
        while (at := raw.find(b"\r\n\r\n")) < 0:
            if len(raw) > MAX_HEAD_BYTES:
                raise ConnectionError(f"the answer's head exceeds {MAX_HEAD_BYTES} bytes")
            if clock.now_s() > (until_s if raw else silent_s):
                raise TimeoutError("the answer's head did not come in time")
            try:
                piece = connection.recv(MAX_HEAD_BYTES)
            except BlockingIOError:
                continue
            if not piece:
                raise ConnectionError("the connection ended before an answer")
            raw += piece
        first, *lines = bytes(raw[:at]).split(b"\r\n")
        status = _STATUS.fullmatch(first)
        if status is None:
            raise ConnectionError(f"the answer is not HTTP: {first[:60]!r}")
        fields: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            name, value = name.lower(), value.strip(" \t")
            if not colon or not name or name.strip() != name:
                raise ConnectionError(f"the answer's head has a line that is no field: {line[:60]!r}")
            if name in _ONCE and fields.get(name, value) != value:
                raise ConnectionError(f"the answer's head has two values of {name}")
            fields[name] = value
        return _Head(int(status[1]), fields, bytes(raw[at + 4 :]))

    def _check(self, path: str, head: _Head, start: int, end: int, object_bytes: int) -> None:
        """Is this exactly what was asked for?"""
        if head.status == 200 and self._etags.get(path):
            with self._lock:
                self._etags[path] = None
            raise ConnectionError("it was changed while it was downloaded")
        if head.status != 206:
            raise Refused(head.status)
        got = head.fields.get("content-range", "")
        told = _RANGE.fullmatch(got)
        if told is None:
            raise ConnectionError(f"the answer has no usable Content-Range: {got[:60]!r}")
        if int(told[3]) != object_bytes:
            raise Resized(int(told[3]))
        if (int(told[1]), int(told[2])) != (start, end - 1):
            raise ConnectionError(f"the answer is {got}, not bytes {start}-{end - 1}")
        length = head.fields.get("content-length", "")
        if "transfer-encoding" in head.fields or not _LENGTH.fullmatch(length) or int(length) != end - start:
            raise ConnectionError(f"the answer promises {length[:20] or 'unknown'} bytes, not {end - start}")
        etag = head.fields.get("etag", "")
        if _ETAG.fullmatch(etag) and path not in self._etags:
            with self._lock:
                while len(self._etags) >= MAX_ETAGS:
                    del self._etags[next(iter(self._etags))]
                self._etags[path] = etag

    def _body(
        self, connection: socket.socket, rest: bytes, wanted: int, until_s: float
    ) -> Iterator[memoryview]:
        if len(rest) > wanted:
            raise ConnectionError("the answer is longer than it promises")
        if rest:
            yield memoryview(rest)
            wanted -= len(rest)
        piece = memoryview(bytearray(min(PIECE_BYTES, wanted)))
        silent_s = clock.now_s() + self._read_timeout_s
        while wanted:
            try:
                got = connection.recv_into(piece[: min(len(piece), wanted)], 0, socket.MSG_WAITALL)
            except BlockingIOError:
                if clock.now_s() > silent_s:
                    raise TimeoutError(f"nothing came for {self._read_timeout_s:.0f} s") from None
                got = 0
            else:
                if not got:
                    raise ConnectionError(f"the body ended {wanted} bytes early")
                silent_s = clock.now_s() + self._read_timeout_s
            if clock.now_s() > until_s:
                raise TimeoutError(f"the request took longer than {self._request_timeout_s:.0f} s")
            wanted -= got
            yield piece[:got]

    # --- connections

    def _take(self) -> socket.socket | None:
        youngest_ms = clock.now_ms() - IDLE_MS
        with self._lock:
            stale = [one for one in self._idle if one.since_ms < youngest_ms]
            del self._idle[: len(stale)]
            taken = self._idle.pop().connection if self._idle else None
        _close(stale)
        return taken

    def _done(self, connection: socket.socket, *, reusable: bool) -> None:
        if reusable:
            with self._lock:
                if len(self._idle) < MAX_IDLE:
                    self._idle.append(_Idle(connection, clock.now_ms()))
                    return
        connection.close()


def _close(idle: list[_Idle]) -> None:
    for one in idle:
        one.connection.close()
