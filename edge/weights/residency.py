"""How much of what is held really lies in memory: mincore(2) over its blobs, now and then.

A hold counts against `host_bytes` whether or not its pages are in the page cache; on a host with less
memory than that the kernel drops them, and the next request reads the disk again. This measures what
is there. It warms nothing: pages that a worker no longer reads are best dropped.
"""

import asyncio
import ctypes
import logging
import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from edge.weights.disk import Disk

SAMPLE_S: Final = 5.0
#: Less of what is held than this in memory is said once in the log.
UNDERSIZED: Final = 0.9
_WINDOW_BYTES: Final = 1 << 28
_FAILED: Final = ctypes.c_void_p(-1).value
#: Only the lowest bit of a page's byte says something.
_LOWEST_BIT: Final = bytes(value & 1 for value in range(256))

log = logging.getLogger(__name__)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_longlong,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)


def resident_bytes(path: Path) -> int:
    """Bytes of a file of ours that lie in the page cache now, 1 ms per GiB or so. Raises OSError."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return sum(
            _resident(file.fileno(), at, min(_WINDOW_BYTES, size - at))
            for at in range(0, size, _WINDOW_BYTES)
        )


def _resident(fd: int, at: int, count: int) -> int:
    """Of one window of it. The map is never read, so a file that is cut short meanwhile harms nobody."""
    address = _libc.mmap(None, count, mmap.PROT_READ, mmap.MAP_SHARED, fd, at)
    if address == _FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    try:
        pages = ctypes.create_string_buffer(-(-count // mmap.PAGESIZE))
        if _libc.mincore(address, count, pages) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
    finally:
        _libc.munmap(address, count)
    seen = pages.raw.translate(_LOWEST_BIT)
    beyond = len(seen) * mmap.PAGESIZE - count if seen.endswith(b"\1") else 0
    return seen.count(1) * mmap.PAGESIZE - beyond


class Residency:
    """What was measured last of the blobs that are held; nothing is known of one before its first turn."""

    def __init__(self, disk: Disk, held: Callable[[], Mapping[str, int]]) -> None:
        """`held` are the sizes of the blobs that somebody holds now."""
        self.measured: dict[str, int] = {}
        self._disk = disk
        self._held = held
        self._short = False

    async def run(self) -> None:
        """Measure every SAMPLE_S, until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            await self.sample()

    async def sample(self) -> None:
        """Measure what is held now, in a thread."""
        held = self._held()
        paths = {blob: self._disk.store.blob_path(blob) for blob in held}
        self.measured = await self._disk.run(_measure, paths)
        known = {blob: held[blob] for blob in self.measured}
        short = sum(self.measured.values()) < UNDERSIZED * sum(known.values())
        if short and not self._short:
            log.warning(
                "of %d bytes of weights that are held %d lie in memory: this host has less memory than "
                "weights.host_bytes says; lower it, or models are read from the disk again and again",
                sum(known.values()),
                sum(self.measured.values()),
            )
        self._short = short

    def of(self, blobs: Mapping[str, int]) -> int | None:
        """Bytes in memory of these (digest -> size); None while any of them was not measured."""
        if any(blob not in self.measured for blob in blobs):
            return None
        return sum(self.measured[blob] for blob in blobs)


def _measure(paths: Mapping[str, Path]) -> dict[str, int]:
    measured = {}
    for blob, path in paths.items():
        try:
            measured[blob] = resident_bytes(path)
        except OSError as error:
            log.info("how much of blob %s is in memory can't be told: %s", blob, error.strerror)
    return measured
