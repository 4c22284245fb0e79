"""An answer -> bytes. Pure: what is written is decided here, when and where in `connection.py`.

The door owns the framing headers (Content-Length, Transfer-Encoding, Connection); a handler that names
one of them, or a value with a control character, is a bug and raises ValueError before a byte has left.
"""

import re
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final, TypeAlias

import msgspec

from edge.errors import EdgeError, Reason
from edge.http.headers import edge_headers

Content: TypeAlias = bytes | memoryview | AsyncIterator[bytes]

JSON: Final = "application/json"
ALLOWED_METHODS: Final = "GET, HEAD, POST"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OURS: Final = frozenset({"content-length", "transfer-encoding", "connection", "content-type"})
_RETRY_STATUSES: Final = frozenset({429, 503})
_NO_CONTENT: Final = 204


class Response:
    """An answer: `length` is for an iterator whose byte count is known; without it the body is chunked."""

    __slots__ = ("body", "content_type", "headers", "length", "status")

    def __init__(
        self,
        status: int,
        headers: Sequence[tuple[str, str]],
        body: Content,
        content_type: str,
        length: int | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.content_type = content_type
        if isinstance(body, bytes):
            length = len(body)
        elif isinstance(body, memoryview):
            length = body.nbytes
        self.length = length


def error_response(error: EdgeError, retry_after_s: int, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """The JSON error answer for `error`: `Edge-Drop-Reason`, `Retry-After` for 429 and 503, `Allow` for 405.

    `retry_after_s` counts where the error has no opinion; spread it, so that clients don't return at once.
    """
    wait_s = error.retry_after_s
    if wait_s is None and error.status in _RETRY_STATUSES:
        wait_s = retry_after_s
    own = edge_headers(drop_reason=error.reason, retry_after_s=wait_s)
    if error.reason is Reason.BAD_METHOD:
        own.append(("Allow", ALLOWED_METHODS))
    return Response(error.status, [*headers, *own], msgspec.json.encode({"error": error.message}), JSON)


def encode_head(response: Response, *, close: bool, chunked: bool) -> bytes:
    """Status line and headers, blank line included. Raises ValueError for a header that can't be sent."""
    parts = [_status_line(response.status)]
    if response.status != _NO_CONTENT:
        parts.append(f"Content-Type: {response.content_type}\r\n")
        if chunked:
            parts.append("Transfer-Encoding: chunked\r\n")
        elif response.length is not None:
            parts.append(f"Content-Length: {response.length}\r\n")
    for name, value in response.headers:
        _check_name(name)
        parts.append(f"{name}: {value}\r\n")
    if close:
        parts.append("Connection: close\r\n")
    parts.append("\r\n")
    head = "".join(parts)
    lines = len(parts)
    # One look over the whole block instead of one per value: exactly the line ends put in above, and no NUL.
    if head.count("\r") != lines or head.count("\n") != lines or "\0" in head:
        raise ValueError(f"a header of the answer has a control character: {head!r}")
    return head.encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked answer; `data` is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@lru_cache(maxsize=64)
def _status_line(status: int) -> str:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\n"


@lru_cache(maxsize=256)
def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a header name")
    if name.lower() in _OURS:
        raise ValueError(f"the header {name} is set by the front door")
