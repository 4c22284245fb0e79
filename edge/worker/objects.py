"""Objects that a request names, read from the store's blobs.

The proxy had them brought and verified, and holds them; what it could not have is told here, to the
request that really needs it. Knows no tensors, and nothing of where objects come from.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from edge.errors import STATUS, EdgeError, Reason, Source
from edge.oip.objects import Reader, unprepared
from edge.wire import calls


def reader(given: Sequence[calls.ObjectHere], blobs_dir: Path, max_bytes: int) -> Reader:
    """What hands out the contents of these objects: `max_bytes` at most, counted by each use.

    It raises EdgeError: why one is not there, TOO_LARGE, BLOB_CORRUPT, BAD_INPUT for all others.
    """
    known = {one.name: one for one in given}
    contents: dict[str, bytes] = {}
    used_bytes = 0

    def read(name: str) -> bytes:
        nonlocal used_bytes
        one = known.get(name)
        if one is None:
            raise unprepared(name)
        if one.reason:
            raise _why_not(one)
        used_bytes += one.size_bytes
        if used_bytes > max_bytes:
            raise EdgeError(
                Reason.TOO_LARGE,
                f"with the object {name} ({one.size_bytes} bytes) the inputs amount to more than "
                f"{max_bytes} bytes, named once or more often",
                source=Source.DOWNSTREAM,
            )
        if name not in contents:
            contents[name] = _content(one, blobs_dir)
        return contents[name]

    return read


def _content(one: calls.ObjectHere, blobs_dir: Path) -> bytes:
    try:
        # Read, not mapped: a blob that somebody cuts short is an error here and no SIGBUS.
        opened = os.open(blobs_dir / one.digest, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(opened, "rb") as blob:
            content = blob.read(one.size_bytes + 1)
    except OSError as error:
        raise _bad_blob(one, f"can't be read: {error.strerror}") from error
    if len(content) != one.size_bytes:
        raise _bad_blob(one, f"has {len(content)} of {one.size_bytes} bytes")
    return content


def _bad_blob(one: calls.ObjectHere, what: str) -> EdgeError:
    text = f"blob {one.digest} of the object {one.name} {what}"
    return EdgeError(Reason.BLOB_CORRUPT, text, source=Source.UPSTREAM, retryable=True, retry_after_s=1)


def _why_not(one: calls.ObjectHere) -> EdgeError:
    try:
        reason = Reason(one.reason)
    except ValueError:
        reason = Reason.INTERNAL
    source = Source.DOWNSTREAM if STATUS[reason] < 500 else Source.UPSTREAM
    return EdgeError(
        reason, one.message, source=source, retryable=one.retryable, retry_after_s=one.retry_after_s
    )
