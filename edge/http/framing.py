"""Our own rules about a request's header block: sizes, request line, Host, where the body ends. Pure.

The C parser is asked as well (`parse.py`); these rules are the ones it does not hold, or holds
without telling which status the client is owed (RFC 9112 sections 3, 5 and 6.3, the strict reading).
It knows bytes and limits, no state and no parser.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from edge.errors import EdgeError, Reason, Source
from edge.limits import HttpLimits

_H2_PREFACE_LINE: Final = b"PRI * HTTP/2.0"
_REQUEST_LINE: Final = re.compile(rb"[A-Z][A-Z-]{0,31} [!-~]+ HTTP/1\.([01])")
_OTHER_VERSION: Final = re.compile(rb"[A-Z][A-Z-]{0,31} [!-~]+ HTTP/\d+(?:\.\d+)?")
_TOKENS: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")
_COMMA: Final = re.compile(rb"[ \t]*,[ \t]*")
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::\d{0,5})?")
#: A Content-Length with more digits is above 2^63 whatever they are; `int` never sees it.
_MAX_LENGTH_DIGITS: Final = 19

Version = tuple[int, int]


def refused(reason: Reason, message: str) -> EdgeError:
    """An error that is the client's. Messages never repeat what it sent."""
    return EdgeError(reason, message, source=Source.DOWNSTREAM)


def bad(message: str) -> EdgeError:
    """400."""
    return refused(Reason.BAD_REQUEST, message)


@lru_cache(maxsize=256)
def check_request_line(line: bytes, limits: HttpLimits) -> Version:
    """The version of a well-formed request line. Raises URI_TOO_LONG, BAD_VERSION, BAD_REQUEST."""
    if len(line) > limits.max_line_bytes:
        raise refused(Reason.URI_TOO_LONG, f"the request line is over {limits.max_line_bytes} bytes")
    found = _REQUEST_LINE.fullmatch(line)
    if found is not None:
        return 1, int(found[1])
    if line != _H2_PREFACE_LINE and _OTHER_VERSION.fullmatch(line):
        raise refused(Reason.BAD_VERSION, "the HTTP version is not 1.0 or 1.1")
    raise bad("the request line is not METHOD SP TARGET SP HTTP/1.1, in ASCII")


def check_size(raw: bytes, eol: int, limits: HttpLimits) -> int:
    """Bytes and lines of a whole block; `eol` is where its request line ends. Raises HEADERS_TOO_LARGE.

    Returns how many CRLF-ended header lines it has: a reader that finds another number reads it differently.
    """
    if len(raw) > min(limits.max_header_bytes, limits.max_header_line_bytes):
        check_block_bytes(len(raw) - eol - 4, limits)
        check_line_bytes(max(map(len, raw[eol + 2 :].split(b"\r\n"))), limits)
    lines = raw.count(b"\r\n") - 2
    if lines > limits.max_headers:
        raise refused(Reason.HEADERS_TOO_LARGE, f"more than {limits.max_headers} headers")
    return lines


def check_block_bytes(size: int, limits: HttpLimits) -> None:
    """All header lines together."""
    if size > limits.max_header_bytes:
        raise refused(Reason.HEADERS_TOO_LARGE, f"headers are over {limits.max_header_bytes} bytes")


def check_line_bytes(size: int, limits: HttpLimits) -> None:
    """One header line."""
    if size > limits.max_header_line_bytes:
        raise refused(Reason.HEADERS_TOO_LARGE, f"a header line is over {limits.max_header_line_bytes} bytes")


@lru_cache(maxsize=256)
def check_host(host: bytes | None, version: Version) -> None:
    """One well-formed Host; HTTP/1.0 may do without. Which names are served is not asked here."""
    if host is None:
        if version == (1, 1):
            raise bad("the Host header is missing")
    elif not _HOST.fullmatch(host):
        raise bad("the Host header is not a host with an optional port")


def check_utf8(values: Iterable[bytes]) -> None:
    """Header values beyond ASCII are UTF-8 or the request is refused, so that nobody guesses."""
    for value in values:
        try:
            value.decode()
        except UnicodeDecodeError:
            raise bad("a header value is not UTF-8") from None


def body_length(fields: Mapping[bytes, bytes], version: Version, limits: HttpLimits) -> int | None:
    """Where the body ends: its bytes (0: none), or None for chunked.

    `fields` are headers by lower-case name, already known to be single. Raises BAD_REQUEST,
    NOT_IMPLEMENTED (another transfer coding), TOO_LARGE.
    """
    coding = fields.get(b"transfer-encoding")
    digits = fields.get(b"content-length")
    if coding is not None:
        if digits is not None:
            raise bad("Content-Length together with Transfer-Encoding")
        if version != (1, 1):
            raise bad("Transfer-Encoding needs HTTP/1.1")
        _check_coding(coding.lower())
        return None
    if digits is None:
        return 0
    if not digits.isdigit():
        raise bad("Content-Length is not a decimal number")
    if len(digits.lstrip(b"0")) > _MAX_LENGTH_DIGITS or (length := int(digits)) > limits.max_body_bytes:
        raise refused(Reason.TOO_LARGE, f"the body is over {limits.max_body_bytes} bytes")
    return length


def _check_coding(coding: bytes) -> None:
    if coding == b"chunked":
        return
    if not _TOKENS.fullmatch(coding) or b"chunked" in _COMMA.split(coding)[:-1]:
        raise bad("Transfer-Encoding is malformed")
    raise refused(Reason.NOT_IMPLEMENTED, "a transfer coding other than chunked")


def why_malformed(raw: bytes) -> EdgeError:
    """The C parser said no to this block: 413 for a Content-Length beyond its integers, else 400."""
    for line in raw.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        digits = value.strip(b" \t")
        too_long = digits.isdigit() and len(digits.lstrip(b"0")) > _MAX_LENGTH_DIGITS
        if too_long and name.lower() == b"content-length":
            return refused(Reason.TOO_LARGE, "Content-Length is above 2^63")
    return bad("the header block is malformed")
