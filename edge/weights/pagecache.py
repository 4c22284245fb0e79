"""The page cache under a file of ours: how much of it is there, and reading more of it in. Blocks.

What is resident is told by mincore(2), 1 ms per GiB or so; the kernel is asked, never forced: nothing
here locks a page. Knows no blobs.
"""

import contextlib
import ctypes
import mmap
import os
from pathlib import Path
from typing import Final

#: Read at a time: a blob is open, and so can't be evicted, for no longer than that takes.
PIECE_BYTES: Final = 16 << 20
#: Of one request for more, the kernel heeds its readahead window or what one command of the device takes,
#: and forgets the rest: 8 MiB of 256 were read here.
ASK_BYTES: Final = 1 << 20
#: What is asked for ahead of a load; the load reads the rest as it comes there.
AHEAD_MAX_BYTES: Final = 1 << 28
_WINDOW_BYTES: Final = 1 << 28
_FAILED: Final = ctypes.c_void_p(-1).value
#: Only the lowest bit of a page's byte says something.
_LOWEST_BIT: Final = bytes(value & 1 for value in range(256))

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


def ask_for(path: Path) -> None:
    """Ask the kernel to read a file in, its beginning if it is large, and wait for little of that."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        for at in range(0, min(os.fstat(file.fileno()).st_size, AHEAD_MAX_BYTES), ASK_BYTES):
            os.posix_fadvise(file.fileno(), at, ASK_BYTES, os.POSIX_FADV_WILLNEED)


def read_piece(path: Path, at: int) -> int:
    """One piece, to nowhere; how much of it there was. The next load tells of what can't be read."""
    buffer, done = bytearray(ASK_BYTES), 0
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
        while done < PIECE_BYTES and (count := os.preadv(file.fileno(), [buffer], at + done)):
            done += count
    return done
