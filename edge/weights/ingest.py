"""One blob on its way in: `ingest/<digest>/{data,journal}`.

The data file has its full size from the start, so that a full disk shows before the first
byte. The journal has one bit per chunk that was written and found good: a hint for the next
start, re-hashed before it is believed. Knows files and digests, not where bytes come from.

Chunks are written with pwrite, not through a map: the bytes come in buffers of the origin's
client, pwrite copies them without the interpreter lock, and a failing disk is an OSError
instead of a SIGBUS. A client that receives into memory of ours would map `data` here.
"""

import errno
import logging
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from blake3 import blake3

from edge.errors import EdgeError, Reason
from edge.weights.growth import Growth
from edge.weights.manifest import BlobFile
from edge.weights.prefix import Prefix

_HEADER: Final = struct.Struct("<8sQQ")
_MAGIC: Final = b"edgepop1"
_HASH_THREADS: Final = 2

log = logging.getLogger(__name__)


def called(file: BlobFile) -> str:
    """A blob, for people."""
    return f"blob {file.blake3} ({file.name})"


def journal_bytes(chunks: int) -> int:
    """Size of the journal of a blob of so many chunks."""
    return _HEADER.size + (chunks + 7) // 8


def ingest_bytes(file: BlobFile) -> int:
    """What `ingest/<digest>/` of this blob takes from the disk budget."""
    return file.size_bytes + journal_bytes(len(file.chunks))


class Ingest:
    """The files of one unfinished blob. `write`, `mark` and `lend` may be called from several threads.

    `growth` is what of it may be given to others; `on_close` is called once, in the closing thread.
    """

    def __init__(
        self, directory: Path, file: BlobFile, on_close: Callable[[], object] = lambda: None
    ) -> None:
        self.file = file
        self.growth = Growth(file.size_bytes, file.chunk_bytes)
        self._on_close = on_close
        self.directory = directory
        self.data_path = directory / "data"
        self._lock = threading.Lock()
        directory.mkdir(mode=0o755, exist_ok=True)
        self.fd = os.open(self.data_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._journal_fd = os.open(
                directory / "journal", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError:
            os.close(self.fd)
            raise
        try:
            self._claimed = self._open()
        except BaseException:
            self.close()
            raise
        self._prefix = Prefix(self.fd, len(file.chunks), self.bounds)

    def _open(self) -> bytearray:
        """Bits of the journal; all zero unless it belongs to this very layout of the blob."""
        size, chunks = self.file.size_bytes, len(self.file.chunks)
        header = _HEADER.pack(_MAGIC, size, self.file.chunk_bytes)
        wanted = journal_bytes(chunks)
        raw = os.pread(self._journal_fd, wanted + 1, 0)
        fits = len(raw) == wanted and raw[: _HEADER.size] == header
        if fits and os.fstat(self.fd).st_size == size:
            return bytearray(raw[_HEADER.size :])
        try:
            os.ftruncate(self.fd, 0)
            os.posix_fallocate(self.fd, 0, size)
            os.ftruncate(self._journal_fd, 0)
            os.pwrite(self._journal_fd, header + bytes(wanted - _HEADER.size), 0)
        except OSError as error:
            raise disk_error(error, f"allocate {size} bytes for {called(self.file)}") from error
        return bytearray(wanted - _HEADER.size)

    def bounds(self, index: int) -> tuple[int, int]:
        """First byte of a chunk and the one behind its last."""
        start = index * self.file.chunk_bytes
        return start, min(start + self.file.chunk_bytes, self.file.size_bytes)

    def missing(self) -> list[int]:
        """Chunks to fetch: those not claimed, and those that are not what the journal claims."""
        missing = []
        # What was hashed so far may have been what the disk gives back wrong.
        self._prefix = Prefix(self.fd, len(self.file.chunks), self.bounds)
        for index in range(len(self.file.chunks)):
            if self._is_good(index):
                self.growth.add(index)
                self._prefix.add(index)
            else:
                missing.append(index)
        return missing

    def _is_good(self, index: int) -> bool:
        if not self._claimed[index // 8] >> index % 8 & 1:
            return False
        at, end = self.bounds(index)
        hasher = blake3()
        while at < end:
            piece = os.pread(self.fd, min(1024 * 1024, end - at), at)
            if not piece:
                return False
            hasher.update(piece)
            at += len(piece)
        return hasher.hexdigest() == self.file.chunks[index]

    def write(self, at: int, buffer: bytes | memoryview) -> None:
        """Put bytes in their place. Raises EdgeError(NO_SPACE) or INTERNAL."""
        view = memoryview(buffer)
        try:
            while view:
                written = os.pwrite(self.fd, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            raise disk_error(error, f"write {self._chunk(at // self.file.chunk_bytes)}") from error
        self.growth.came(len(buffer))

    def mark(self, index: int) -> None:
        """The chunk was written and its digest was right. Raises EdgeError(NO_SPACE) or INTERNAL."""
        try:
            with self._lock:
                self._claimed[index // 8] |= 1 << index % 8
                byte = self._claimed[index // 8 : index // 8 + 1]
                os.pwrite(self._journal_fd, byte, _HEADER.size + index // 8)
        except OSError as error:
            raise disk_error(error, f"note {self._chunk(index)}") from error
        self.growth.add(index)
        self._prefix.add(index)
        try:
            self._prefix.advance()
        except OSError as error:
            raise disk_error(error, f"read {called(self.file)}") from error

    def _chunk(self, index: int) -> str:
        return f"chunk {index} of {called(self.file)}"

    def lend(self) -> int:
        """The data file, opened once more; who reads from it closes it. OSError if this is closed."""
        with self._lock:
            if self.growth.over:
                raise OSError(errno.EBADF, "the blob is not fetched any more")
            return os.dup(self.fd)

    def digest(self) -> str:
        """BLAKE3 of the whole file; most of it was hashed while it came. Raises EdgeError(INTERNAL)."""
        try:
            return self._prefix.digest()
        except OSError as error:
            raise disk_error(error, f"read {called(self.file)}") from error

    def seal(self) -> None:
        """Make the data read-only, ready to be renamed."""
        try:
            os.fchmod(self.fd, 0o444)
        except OSError as error:
            raise disk_error(error, f"seal {called(self.file)}") from error

    def close(self) -> None:
        """Close both files; what they hold stays for the next attempt."""
        with self._lock:
            self.growth.end()
            os.close(self.fd)
            os.close(self._journal_fd)
        self._on_close()


def settle(path: Path) -> bool:
    """Make a file durable, content and name; False if it has gone meanwhile.

    EdgeError: it is not, and what the kernel keeps of it in memory is no longer what the disk has.
    """
    try:
        with path.open("rb") as file:
            os.fdatasync(file.fileno())
        sync_names(path.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise disk_error(error, f"sync blob {path.name}") from error
    return True


def sync_names(directory: Path) -> None:
    """Make durable what was renamed into a directory. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def keep_names(directory: Path) -> None:
    """The same, after a rename that is done whatever the disk says of it: only a power cut may undo it."""
    try:
        sync_names(directory)
    except OSError as error:
        log.warning("a power cut may lose what came last in %s: %s", directory, error.strerror)


def file_digest(path: Path) -> str:
    """BLAKE3 of a file, mapped. Only for files that nobody else may shorten."""
    return str(blake3(max_threads=_HASH_THREADS).update_mmap(path).hexdigest())


def disk_error(error: OSError, what: str) -> EdgeError:
    """A full disk is NO_SPACE: another node may have room. The rest is ours: INTERNAL."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EdgeError(
            Reason.NO_SPACE,
            f"the disk is full: can't {what}; free space or lower weights.disk_bytes",
            retryable=True,
            retry_after_s=10,
        )
    return EdgeError(Reason.INTERNAL, f"the disk failed: can't {what}: {error.strerror}")
