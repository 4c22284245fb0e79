"""Blobs of the store as a worker takes them: a regular file of one link and the promised size.

Graphs and aux blobs are read, and their digest is checked here again; weights are mapped by the
runtime, so the weight store's word for their content is taken. Knows no sessions.
"""

import os
import stat
from pathlib import Path
from typing import Final

from edge.errors import EdgeError, Reason, Source
from edge.weights.manifest import BlobFile, digest

#: A graph or an aux blob is read into memory; weights never are.
READ_MAX_BYTES: Final = 64 * 1024 * 1024


class Blobs:
    """The folder they lie in; a blob's name is its digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def checked(self, file: BlobFile) -> Path:
        """The path of a blob that is what the manifest says. Raises EdgeError(BLOB_CORRUPT)."""
        path = self.folder / file.blake3
        try:
            _require_plain(file, os.lstat(path))
        except OSError as error:
            raise _corrupt(file, f"can't be read: {error.strerror}; ensure it is on disk first") from error
        return path

    def read(self, file: BlobFile) -> bytes:
        """The content of a graph or aux blob, its digest verified. Raises EdgeError(BLOB_CORRUPT)."""
        if file.size_bytes > READ_MAX_BYTES:
            raise _corrupt(file, f"has {file.size_bytes} bytes; a {file.role} has at most {READ_MAX_BYTES}")
        try:
            with open(self.checked(file), "rb", opener=_open_no_follow) as opened:
                _require_plain(file, os.fstat(opened.fileno()))
                raw = opened.read(file.size_bytes + 1)
        except OSError as error:
            raise _corrupt(file, f"can't be read: {error.strerror}") from error
        if digest(raw) != file.blake3:
            raise _corrupt(file, "has other content than its digest says; fetch it again")
        return raw


def called(file: BlobFile) -> str:
    """A blob in an error's text."""
    return f"blob {file.blake3} ({file.role} {file.name})"


def _open_no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _require_plain(file: BlobFile, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _corrupt(file, "is no regular file")
    if found.st_nlink != 1:
        raise _corrupt(file, f"has {found.st_nlink} links; it must have one")
    if found.st_size != file.size_bytes:
        raise _corrupt(file, f"has {found.st_size} bytes; the manifest says {file.size_bytes}")


def _corrupt(file: BlobFile, what: str) -> EdgeError:
    return EdgeError(Reason.BLOB_CORRUPT, f"{called(file)} {what}", source=Source.UPSTREAM)
