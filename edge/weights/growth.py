"""Which bytes of an unfinished blob are right: kept where it grows, told to other nodes, read by them.

A chunk counts once it was found right in this run: written and checked, or read again after a start.
What a journal claims does not count. Knows no file, no socket and no clock.
"""

import threading
from typing import Final

import msgspec

from edge.weights.manifest import BlobFile

#: The answer for a blob of 2^20 chunks: 16 TiB at 16 MiB each.
TOLD_MAX_BYTES: Final = (1 << 18) + 512


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node says of one blob. `chunk_bytes` 0: it has all of it.

    `bits` in hexadecimal, a bit per chunk, lowest first. `came_bytes` grows with every byte that comes
    to it, right or not: while it grows, more chunks are to be expected.
    """

    size_bytes: int
    chunk_bytes: int = 0
    bits: str = ""
    came_bytes: int = 0


class Growth:
    """One unfinished blob. Written by the threads that fetch it, read by those that give it."""

    def __init__(self, size_bytes: int, chunk_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.chunk_bytes = chunk_bytes
        self.chunks = -(-size_bytes // chunk_bytes)
        self.count = 0
        self.over = False
        self._came_bytes = 0
        self._bits = bytearray((self.chunks + 7) // 8)
        self._lock = threading.Lock()

    def add(self, index: int) -> None:
        """This chunk is right."""
        with self._lock:
            if not self._bits[index // 8] >> index % 8 & 1:
                self._bits[index // 8] |= 1 << index % 8
                self.count += 1

    def came(self, count: int) -> None:
        """So many bytes arrived."""
        with self._lock:
            self._came_bytes += count

    def end(self) -> None:
        """Nothing is added any more."""
        self.over = True

    def has(self, index: int) -> bool:
        """Is this chunk right?"""
        return bool(self._bits[index // 8] >> index % 8 & 1)

    def covers(self, start: int, end: int) -> bool:
        """Is every byte from `start` up to `end` in a chunk that is right?"""
        if not 0 <= start < end <= self.size_bytes:
            return False
        return all(map(self.has, range(start // self.chunk_bytes, (end - 1) // self.chunk_bytes + 1)))

    def bits(self) -> int:
        """A bit for each chunk that is right."""
        with self._lock:
            return int.from_bytes(self._bits, "little")

    def told(self) -> Told:
        """As other nodes hear it."""
        with self._lock:
            return Told(self.size_bytes, self.chunk_bytes, self._bits.hex(), self._came_bytes)


class Heard:
    """What another node told of a blob, as far as it fits the blob that is meant."""

    def __init__(self, bits: int, came_bytes: int, *, whole: bool = False) -> None:
        self._bits = bits
        self.came_bytes = came_bytes
        self.count = bits.bit_count()
        self.whole = whole

    def has(self, index: int) -> bool:
        """Has it this chunk?"""
        return self.whole or bool(self._bits >> index & 1)

    def exceeds(self, mine: Growth | None) -> bool:
        """Has it any chunk that is not here?"""
        return self.whole or bool(self._bits & ~(mine.bits() if mine is not None else 0))


NOTHING: Final = Heard(0, 0)


def hear(raw: bytes, file: BlobFile) -> Heard | None:
    """Read an answer; None for what is none, or tells of another size or other chunks."""
    try:
        told = msgspec.json.decode(raw, type=Told)
        bits = bytes.fromhex(told.bits)
    except (msgspec.DecodeError, ValueError):
        return None
    if told.size_bytes != file.size_bytes:
        return None
    if told.chunk_bytes == 0:
        return Heard(0, told.size_bytes, whole=True)
    if told.chunk_bytes != file.chunk_bytes or len(bits) != (len(file.chunks) + 7) // 8:
        return None
    return Heard(int.from_bytes(bits, "little"), max(0, told.came_bytes))
