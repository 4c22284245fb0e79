"""Objects in a test's origin: the entry that names them and the blob behind it."""

from pathlib import Path

from edge.weights import entry as en
from tests.support.blobs import blob_file


def put_object(root: Path, name: str, content: bytes, *, chunk_bytes: int = 1 << 16) -> en.Entry:
    """Publish `content` under `name` in the folder of an origin, as `popctl data push` does."""
    file = blob_file(name.rpartition("/")[2], content, chunk_bytes=chunk_bytes, role="aux")
    entry = en.Entry(
        schema=en.SCHEMA,
        name=name,
        size_bytes=file.size_bytes,
        blake3=file.blake3,
        sha256=file.sha256,
        chunks=file.chunks,
        chunk_bytes=file.chunk_bytes,
    )
    (root / "blobs" / file.blake3).write_bytes(content)
    write_entry(root, entry)
    return entry


def write_entry(root: Path, entry: en.Entry, name: str = "") -> bytes:
    """The entry alone, with whatever it claims; `name` is where it is put."""
    path = root / en.entry_path(name or entry.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = en.encode(entry)
    path.write_bytes(raw)
    return raw
