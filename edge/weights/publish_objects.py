"""Into an origin: one file as an object that requests may name.

The blob first, checked on the way, then the entry, which is the publication: who reads the old one
still finds the old blob. Blocking, like the Publisher of models, whose uploads these are.
"""

import hashlib
from pathlib import Path
from typing import Final, NamedTuple

from blake3 import blake3

from edge.errors import EdgeError, Reason, Source
from edge.oip.objects import checked_name
from edge.weights import entry as en
from edge.weights import manifest as mf
from edge.weights.origin import ChangedError, Object, OriginError
from edge.weights.publish import MAX_TRIES, Publisher

_PIECE_BYTES: Final = mf.MIB


class Pushed(NamedTuple):
    """What came of it; `changed` false: the origin had this very object under this name."""

    entry: en.Entry
    changed: bool
    uploaded_bytes: int


class ObjectPublisher(Publisher):
    """Writes objects into one origin. Every method raises EdgeError with a sentence that says what to do."""

    def push_object(self, source: Path, name: str) -> Pushed:
        """Publish a file under `name`; an object of that name is replaced."""
        checked_name(name, "this command")
        entry = entry_of(source, name)
        path, before = f"blobs/{entry.blake3}", self._uploaded_bytes
        if not self._has(entry.file):
            self._report.begins(f"{name} {entry.blake3[:12]}", entry.size_bytes)
            self._send_blob(source, path, entry.file)
            self._uploaded_bytes += entry.size_bytes
        raw = en.encode(entry)
        for left in range(MAX_TRIES - 1, -1, -1):
            present = self._entry(name)
            if present is not None and present.raw == raw:
                return Pushed(entry, changed=False, uploaded_bytes=self._uploaded_bytes - before)
            try:
                self._origin.replace(en.entry_path(name), raw, present)
            except ChangedError:
                if not left:
                    raise
            else:
                return Pushed(entry, changed=True, uploaded_bytes=self._uploaded_bytes - before)
        raise AssertionError("the last try returns or raises")

    def show_object(self, name: str) -> en.Entry:
        """The entry of an object as the origin has it, and its blob is there."""
        checked_name(name, "this command")
        found = self._entry(name)
        if found is None:
            text = f"the origin has no object {name}; publish it with `popctl data push FILE {name}`"
            raise EdgeError(Reason.UNKNOWN_OBJECT, text, source=Source.DOWNSTREAM)
        entry = en.decode(found.raw, name)
        if self._origin.size_bytes(f"blobs/{entry.blake3}") != entry.size_bytes:
            raise _wrong(f"the blob of {name} is not whole in the origin; push the object again")
        return entry

    def _entry(self, name: str) -> Object | None:
        try:
            return self._origin.small(en.entry_path(name), en.ENTRY_MAX_BYTES)
        except OriginError as error:
            if error.missing:
                return None
            raise


def entry_of(source: Path, name: str) -> en.Entry:
    """What the entry of this file says, read once. Raises EdgeError for what is no file, or empty."""
    whole, sha256 = blake3(), hashlib.sha256()
    chunks: list[str] = []
    size_bytes = 0
    try:
        if not source.is_file():
            raise _wrong(f"{source} is no file")
        with source.open("rb") as opened:
            chunk, chunk_left = blake3(), mf.CHUNK_BYTES
            while piece := opened.read(min(_PIECE_BYTES, chunk_left)):
                for hasher in (whole, sha256, chunk):
                    hasher.update(piece)
                size_bytes += len(piece)
                chunk_left -= len(piece)
                if not chunk_left:
                    chunks.append(str(chunk.hexdigest()))
                    chunk, chunk_left = blake3(), mf.CHUNK_BYTES
            if chunk_left < mf.CHUNK_BYTES:
                chunks.append(str(chunk.hexdigest()))
    except OSError as error:
        raise _wrong(f"{source}: {error.strerror}") from error
    if not size_bytes:
        raise _wrong(f"{source} is empty: an object has at least one byte")
    return en.Entry(
        schema=en.SCHEMA,
        name=name,
        size_bytes=size_bytes,
        blake3=str(whole.hexdigest()),
        sha256=sha256.hexdigest(),
        chunks=tuple(chunks),
    )


def _wrong(text: str) -> EdgeError:
    return EdgeError(Reason.BAD_REQUEST, text, source=Source.DOWNSTREAM)
