"""What an object store says about one file: name, validators, ranges.

Pure but for `open_object`, which opens a file without ever following a link. Knows HTTP's
words for ranges and validators (RFC 9110 sections 8.8, 13 and 14); refuses to know
sockets, faults and counters.
"""

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

MAX_NAME_CHARS = 1024
_DIGEST_NAME = re.compile(r"(?:blobs/([0-9a-f]{64})|manifests/([0-9a-f]{64})\.json)")
_RANGE = re.compile(r"bytes=(\d{0,20})-(\d{0,20})", re.ASCII)


class UnsatisfiableError(ValueError):
    """The Range header can't be served from a file of this size: 416."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `stop` (exclusive) of a file."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """The Content-Range value in a file of `size` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def span_of(header: str | None, size: int) -> Span | None:
    """One byte range of a file of `size` bytes; None without a header.

    Raises `UnsatisfiableError` for a range past the end, for several ranges and for what is no
    range at all: RFC 9110 lets a server ignore those, but a client that asked for a part
    and gets the whole is worse off than one that is told.
    """
    if header is None:
        return None
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        raise UnsatisfiableError(f"{header[:80]!r} is not one byte range, like bytes=0-99")
    first, last = match.groups()
    if first == "":
        span = Span(max(0, size - int(last)), size)
    else:
        span = Span(int(first), min(size, int(last) + 1) if last else size)
    if span.length <= 0:
        raise UnsatisfiableError(f"{header[:80]!r} holds no byte of {size}")
    return span


def etag_of(name: str, size: int, mtime_ns: int) -> str:
    """A strong ETag, quoted: the digest where the name is one, else size and mtime."""
    match = _DIGEST_NAME.fullmatch(name)
    return f'"{match[1] or match[2]}"' if match else f'"{size:x}-{mtime_ns:x}"'


def none_match(header: str | None, etag: str) -> bool:
    """True where If-None-Match names this ETag (weak comparison): 304."""
    if header is None:
        return False
    wanted = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return "*" in wanted or etag in wanted


def range_still_holds(if_range: str | None, etag: str, last_modified: str) -> bool:
    """May the Range be used? False where If-Range names another version: send all of this one."""
    return if_range is None or if_range.strip() in {etag, last_modified}


def open_object(root: Path, name: str) -> tuple[int, os.stat_result]:
    """Open a regular file below `root` for reading: descriptor and stat.

    Walks part by part without following any link, so neither `..` nor a link leads out.
    Raises FileNotFoundError for whatever is no such file.
    """
    parts = name.split("/")
    if len(name) > MAX_NAME_CHARS or not {"", ".", ".."}.isdisjoint(parts):
        raise FileNotFoundError(errno.ENOENT, "no such object", name)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        # O_NONBLOCK: a FIFO somebody left there must not hold the server up.
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except (OSError, ValueError) as error:  # ValueError: a NUL, or what is no text in any encoding
        raise FileNotFoundError(errno.ENOENT, "no such object", name) from error
    finally:
        os.close(folder)
    facts = os.fstat(file)
    if not stat.S_ISREG(facts.st_mode):
        os.close(file)
        raise FileNotFoundError(errno.ENOENT, "no such object", name)
    return file, facts
