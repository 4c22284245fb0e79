"""What an object is: the entry `data/<name>.json` in the origin, which names a blob.

The bytes lie beside the models', at `blobs/<digest>`, immutable; the entry is small, and replacing
it is how an object changes. So all that holds for a model's files holds for an object's: chunks
that are checked before use, one fetch per region, peers that give them. Pure, and unlike a manifest
an entry has no digest of its own to be checked by: it is believed as the catalogue is.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from edge.errors import Reason, Source
from edge.oip.objects import NAME_MAX_CHARS, is_object_name
from edge.weights import manifest as mf

#: Enough for an object of 64 GiB in chunks of 8 MiB.
ENTRY_MAX_BYTES: Final = mf.MIB
SCHEMA: Final = 1

_Digest = Annotated[str, Meta(pattern=rf"\A{mf.DIGEST.pattern}\Z")]


class Entry(msgspec.Struct, frozen=True):
    """One object as it was published. Sizes, digests and chunks as in `BlobFile`."""

    schema: Literal[1]
    name: Annotated[str, Meta(max_length=NAME_MAX_CHARS)]
    size_bytes: Annotated[int, Meta(ge=1, le=mf.BLOB_MAX_BYTES)]
    blake3: _Digest
    sha256: _Digest
    chunks: tuple[_Digest, ...]
    chunk_bytes: Annotated[int, Meta(ge=mf.CHUNK_MIN_BYTES, le=mf.CHUNK_MAX_BYTES)] = mf.CHUNK_BYTES

    @property
    def file(self) -> mf.BlobFile:
        """Its blob, as whoever fetches blobs knows them."""
        return mf.BlobFile(
            role="aux",
            name=self.name.rpartition("/")[2],
            size_bytes=self.size_bytes,
            blake3=self.blake3,
            sha256=self.sha256,
            chunks=self.chunks,
            chunk_bytes=self.chunk_bytes,
        )


def entry_path(name: str) -> str:
    """Where the entry of an object lies in the origin."""
    return f"data/{name}.json"


def encode(entry: Entry) -> bytes:
    """Canonical JSON."""
    return msgspec.json.encode(entry, order="sorted")


def decode(raw: bytes, name: str) -> Entry:
    """Bytes of `data/<name>.json` -> a checked entry. Raises ManifestError(BLOB_CORRUPT)."""
    if len(raw) > ENTRY_MAX_BYTES:
        raise _corrupt(name, f"has {len(raw)} bytes; at most {ENTRY_MAX_BYTES} are allowed")
    try:
        entry = msgspec.json.decode(raw, type=Entry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _corrupt(name, f"is not valid: {error}") from error
    if entry.name != name or not is_object_name(name):
        raise _corrupt(name, f"is of the object {entry.name[:80]!r}")
    wanted = -(-entry.size_bytes // entry.chunk_bytes)
    if len(entry.chunks) != wanted:
        raise _corrupt(
            name,
            f"has {len(entry.chunks)} chunks; {entry.size_bytes} bytes in chunks of {entry.chunk_bytes} "
            f"have {wanted}",
        )
    if wanted == 1 and entry.chunks[0] != entry.blake3:
        raise _corrupt(name, "is one chunk, whose digest is not the object's")
    return entry


def _corrupt(name: str, what: str) -> mf.ManifestError:
    return mf.ManifestError(
        Reason.BLOB_CORRUPT,
        f"the entry of the object {name} {what}; publish the object again",
        source=Source.UPSTREAM,
    )
