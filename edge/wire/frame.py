"""Bytes <-> frames. Pure: no socket, no clock, no meaning.

One frame is a fixed header, a msgpack head and a raw body:

    offset  size  field
    0       4     length    of everything behind this field, big endian
    4       1     version   1; a higher one is refused, so that fleets are upgraded by adding kinds and fields
    5       1     kind      see `Kind`
    6       2     head_len  bytes of msgpack head
    8       8     id        of the exchange, chosen by the side that opened it; 0 for events

An exchange is CALL [DATA* END] one way and REPLY [DATA* END] or ERROR the other; the flag in
`Kind` (`CALL_MORE`, `REPLY_MORE`) says that DATA follows. CANCEL ends an exchange from the
caller's side without closing the link. EVENT expects no answer.
"""

import struct
from enum import IntEnum
from typing import Final, NamedTuple

VERSION: Final = 1
HEADER: Final = struct.Struct("!IBBHQ")
AFTER_LENGTH: Final = HEADER.size - 4
MAX_HEAD_BYTES: Final = 0xFFFF
#: A body above this travels as DATA frames on a link of its own, so that TCP is its flow control.
SHARED_BODY_BYTES: Final = 256 * 1024
#: The largest single frame that a decoder accepts; manifests and catalogues are the largest (4 MiB each).
MAX_FRAME_BYTES: Final = 5 * 1024 * 1024


class Kind(IntEnum):
    """What a frame is."""

    CALL = 1
    CALL_MORE = 2
    DATA = 3
    END = 4
    REPLY = 5
    REPLY_MORE = 6
    ERROR = 7
    CANCEL = 8
    EVENT = 9


_KINDS: Final = {int(kind): kind for kind in Kind}


class Frame(NamedTuple):
    """One frame; `head` is msgpack, `body` raw."""

    kind: Kind
    id: int
    head: bytes
    body: bytes


class FrameError(Exception):
    """The peer does not speak our frames; the link cannot be used further."""


def encode(kind: Kind, exchange_id: int, head: bytes = b"", body: bytes | memoryview = b"") -> bytes:
    """One frame as bytes. Raises FrameError when head or body exceed what a decoder accepts."""
    head_len = len(head)
    length = AFTER_LENGTH + head_len + len(body)
    if head_len > MAX_HEAD_BYTES:
        raise FrameError(f"head of {head_len} bytes exceeds {MAX_HEAD_BYTES}")
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"frame of {length} bytes exceeds {MAX_FRAME_BYTES}; send the body as DATA frames")
    return b"".join((HEADER.pack(length, VERSION, kind, head_len, exchange_id), head, body))


class Decoder:
    """Turns a byte stream into frames; all frames of one read come out together."""

    __slots__ = ("_buffer", "_need")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = HEADER.size

    def feed(self, data: bytes) -> list[Frame]:
        """Frames completed by `data`, in order. Raises FrameError; the decoder is then useless."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        frames: list[Frame] = []
        new = tuple.__new__
        position, available = 0, len(data)
        self._need = HEADER.size
        while available - position >= HEADER.size:
            length, version, kind_code, head_len, exchange_id = HEADER.unpack_from(data, position)
            if version != VERSION:
                raise FrameError(f"frame version {version}, this node speaks {VERSION}")
            if length > MAX_FRAME_BYTES or length < AFTER_LENGTH + head_len:
                raise FrameError(f"frame length {length} is out of bounds")
            kind = _KINDS.get(kind_code)
            if kind is None:
                raise FrameError(f"unknown frame kind {kind_code}")
            end = position + 4 + length
            if end > available:
                self._need = end - position
                break
            head_at = position + HEADER.size
            body_at = head_at + head_len
            # Half the cost of Frame(...): its constructor is Python, and this runs once per request.
            frames.append(new(Frame, (kind, exchange_id, data[head_at:body_at], data[body_at:end])))
            position = end
        if position < available:
            self._buffer += data[position:] if position else data
        return frames

    @property
    def buffered_bytes(self) -> int:
        """Bytes of a frame that is not yet complete."""
        return len(self._buffer)
