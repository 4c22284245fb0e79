"""Chunked transfer coding -> data (RFC 9112 section 7.1). Pure: no socket, no clock, no headers.

Strict where lenience has been a smuggling bug somewhere: CRLF only, 1 to 16 hex digits, no bare
CR or LF in an extension, budgets for extensions, trailers and framing. Trailers are counted and
dropped: nothing of them reaches a request, neither this one nor the next.
"""

import re
from enum import Enum
from typing import Final

from edge.errors import Reason
from edge.http.framing import bad, refused
from edge.limits import HttpLimits

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})([ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_MAX_SIZE_DIGITS: Final = 16
_CRLF: Final = b"\r\n"


class _State(Enum):
    SIZE = "size"
    DATA = "data"
    DATA_END = "data-end"
    TRAILERS = "trailers"
    DONE = "done"


class ChunkedBody:
    """Decodes one chunked body, piece by piece. `done` once its last trailer was read."""

    __slots__ = (
        "_extension_bytes",
        "_left",
        "_limits",
        "_overhead",
        "_received",
        "_state",
        "_trailer_bytes",
        "_trailers",
    )

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._state = _State.SIZE
        self._left = 0
        self._received = 0
        self._overhead = 0
        self._extension_bytes = 0
        self._trailers = 0
        self._trailer_bytes = 0

    @property
    def done(self) -> bool:
        """True once the body, trailers included, is complete."""
        return self._state is _State.DONE

    def decode(self, source: bytes | bytearray, start: int, out: list[bytes]) -> int:
        """Decode `source[start:]`, append data to `out`, return the index of the first byte not used.

        Bytes not used are an incomplete line (hand them in again with what follows), or follow the body.
        Raises EdgeError: BAD_REQUEST, TOO_LARGE (above max_body_bytes), HEADERS_TOO_LARGE (trailers).
        """
        at = start
        end = len(source)
        while at < end:
            match self._state:
                case _State.DATA:
                    take = min(self._left, end - at)
                    out.append(bytes(source[at : at + take]))
                    at += take
                    self._left -= take
                    if self._left == 0:
                        self._state = _State.DATA_END
                case _State.DATA_END:
                    ending = source[at : at + 2]
                    if not _CRLF.startswith(ending):
                        raise bad("a chunk is longer than its size says")
                    if len(ending) < len(_CRLF):
                        break
                    at += 2
                    self._count(2)
                    self._state = _State.SIZE
                case _State.SIZE | _State.TRAILERS:
                    eol = source.find(_CRLF, at)
                    if eol < 0:
                        self._check_partial(source, at, end)
                        break
                    line = bytes(source[at:eol])
                    at = eol + 2
                    if self._state is _State.SIZE:
                        self._size(line)
                    else:
                        self._trailer(line)
                case _State.DONE:
                    break
        return at

    def _size(self, line: bytes) -> None:
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise bad("a chunk size is not 1 to 16 hexadecimal digits")
        size = int(found[1], 16)
        self._extension_bytes += len(line) - len(found[1])
        if self._extension_bytes > self._limits.max_chunk_extension_bytes:
            raise bad(f"chunk extensions are over {self._limits.max_chunk_extension_bytes} bytes")
        self._count(len(line) + 2)
        if size >= 1 << 63:
            raise bad("a chunk size is above 2^63")
        if size == 0:
            self._state = _State.TRAILERS
            return
        self._received += size
        if self._received > self._limits.max_body_bytes:
            raise refused(Reason.TOO_LARGE, f"the body is over {self._limits.max_body_bytes} bytes")
        self._left = size
        self._state = _State.DATA

    def _trailer(self, line: bytes) -> None:
        if not line:
            self._state = _State.DONE
            return
        self._trailers += 1
        self._trailer_bytes += len(line) + 2
        self._check_trailer_bytes(len(line), 0)
        if self._trailers > self._limits.max_trailers:
            raise refused(Reason.HEADERS_TOO_LARGE, f"more than {self._limits.max_trailers} trailers")
        if _TRAILER.fullmatch(line) is None:
            raise bad("a trailer line is malformed")

    def _check_partial(self, source: bytes | bytearray, at: int, end: int) -> None:
        """Refuse an unfinished line that no further byte could make right."""
        if source.find(b"\n", at) >= 0:
            raise bad("a line of the chunked body ends in a bare LF")
        if self._state is _State.TRAILERS:
            self._check_trailer_bytes(end - at, end - at)
        elif end - at > _MAX_SIZE_DIGITS + self._limits.max_chunk_extension_bytes - self._extension_bytes + 1:
            raise bad(f"chunk extensions are over {self._limits.max_chunk_extension_bytes} bytes")

    def _check_trailer_bytes(self, line_bytes: int, more_bytes: int) -> None:
        limits = self._limits
        too_long = line_bytes > limits.max_header_line_bytes
        if too_long or self._trailer_bytes + more_bytes > limits.max_header_bytes:
            raise refused(
                Reason.HEADERS_TOO_LARGE,
                f"a trailer is over {limits.max_header_line_bytes} bytes, or all {limits.max_header_bytes}",
            )

    def _count(self, framing_bytes: int) -> None:
        self._overhead += framing_bytes
        if self._overhead > self._received + self._limits.max_chunk_overhead_bytes:
            raise bad("the chunks are so small that their framing outweighs the data: send larger ones")
