"""One file of the store, read piece by piece around the page cache: what the medium holds, nothing warmer.

Pages that others have in memory are neither asked, which would hide what rotted beneath them, nor pushed
out. A file that is open can't be evicted (`edge.weights.unlinked`), so whoever wants it away says
`kept_off`, and it is closed at once. Blocks, and is called from threads. Knows digests, not what they
should be.
"""

import contextlib
import errno
import mmap
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blake3 import blake3

PIECE_BYTES: Final = 1 << 20
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class LetGoError(Exception):
    """Somebody else needed the file away."""


class SlowReader:
    """At most one file at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._fd = -1
        self._direct = False
        self._at = 0
        self._span = sys.maxsize
        self._hasher = blake3()
        self._hashed = 0
        self._digests: list[str] = []
        # Anonymous memory begins at a page, as O_DIRECT wants it.
        self._buffer = mmap.mmap(-1, PIECE_BYTES)

    def begin(self, path: Path, span_bytes: int = sys.maxsize) -> None:
        """Open a file, of which every `span_bytes` get a digest of their own. Raises OSError."""
        with self._lock:
            self._close()
            self._fd, self._direct = _open(path)
            self._path, self._span = path, span_bytes
            self._at = self._hashed = 0
            self._hasher, self._digests = blake3(), []

    def piece(self) -> int:
        """Read and hash some more; how many bytes, 0 at the end. Raises OSError, LetGoError."""
        with self._lock:
            if self._fd < 0:
                raise LetGoError
            with memoryview(self._buffer) as buffer:
                count = self._read(buffer)
                self._hash(buffer[:count])
            self._at += count
            return count

    def _read(self, buffer: memoryview) -> int:
        try:
            return os.preadv(self._fd, [buffer], self._at)
        except OSError as error:
            if not self._direct or error.errno != errno.EINVAL or self._path is None:
                raise
        # A file system that opens it so and does not read it so, or another alignment than a page.
        plain = os.open(self._path, _FLAGS)
        os.close(self._fd)
        self._fd, self._direct = plain, False
        return os.preadv(self._fd, [buffer], self._at)

    def _hash(self, view: memoryview) -> None:
        while view:
            part = view[: self._span - self._hashed]
            self._hasher.update(part)
            self._hashed += len(part)
            view = view[len(part) :]
            if self._hashed == self._span:
                self._next_span()

    def _next_span(self) -> None:
        self._digests.append(self._hasher.hexdigest())
        self._hasher, self._hashed = blake3(), 0

    def end(self) -> list[str]:
        """Close it; the digests of what was read."""
        with self._lock:
            if self._hashed or not self._digests:
                self._next_span()
            self._close()
            return self._digests

    @contextlib.contextmanager
    def kept_off(self, path: Path) -> Iterator[None]:
        """Meanwhile it does not have this file open."""
        with self._lock:
            if path == self._path:
                self._close()
            yield

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._path = -1, None


def _open(path: Path) -> tuple[int, bool]:
    """A descriptor, and whether it reads around the page cache: not every file system can."""
    try:
        return os.open(path, _FLAGS | os.O_DIRECT), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.open(path, _FLAGS), False
