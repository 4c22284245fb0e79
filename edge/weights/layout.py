"""Where things lie in a store, and which of the files in it are ours.

    node.json  catalog.json  pins.json  uses.json
    manifests/<digest>.json  blobs/<digest>  ingest/<digest>/  quarantine/

A key is a path in the store. Reads names, types and sizes, never contents, and changes nothing.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from edge.weights.budget import Shelf, shelf_of
from edge.weights.manifest import DIGEST, Manifest

DIRECTORIES: Final = ("blobs", "manifests", "ingest", "quarantine")
BLOBS: Final = "blobs/"

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """What lay in the store at the start. `sizes` has every file by key, in order of age.

    `seals` has, of blobs that nobody has touched since the last stop, when they changed last.
    """

    sizes: dict[str, int]
    manifests: dict[str, Manifest]
    catalogue: bytes | None
    clean: bool
    seals: dict[str, int]
    pins: bytes | None = None
    uses: bytes | None = None


def blob_key(digest: str) -> str:
    """Path of a blob in the store."""
    return f"{BLOBS}{digest}"


def manifest_key(digest: str) -> str:
    """Path of a manifest in the store."""
    return f"manifests/{digest}.json"


def ingest_key(digest: str) -> str:
    """Path of an unfinished blob's directory in the store."""
    return f"ingest/{digest}"


def sizes_in(root: Path) -> dict[str, int]:
    """Bytes of every file by key, oldest first; an unfinished blob is one entry, strangers are theirs."""
    found: list[tuple[float, str, int]] = []
    for path in [*root.iterdir(), *(inner for name in DIRECTORIES for inner in (root / name).iterdir())]:
        info = path.lstat()
        key = str(path.relative_to(root))
        if key in DIRECTORIES:
            continue
        if not _is_ours(key, info):
            log.warning("%s in the store is not ours: it is counted and left alone", key)
            key = f"strangers/{key}"
        size = info.st_size
        if stat.S_ISDIR(info.st_mode):
            size = sum(inner.lstat().st_size for inner in path.rglob("*") if not inner.is_dir())
        found.append((info.st_mtime, key, size))
    return {key: size for _, key, size in sorted(found)}


def _is_ours(key: str, info: os.stat_result) -> bool:
    name = key.rpartition("/")[2]
    regular = stat.S_ISREG(info.st_mode) and info.st_nlink == 1
    match shelf_of(key):
        case Shelf.BLOBS:
            return regular and DIGEST.fullmatch(name) is not None
        case Shelf.MANIFESTS:
            return regular and DIGEST.fullmatch(name.removesuffix(".json")) is not None
        case Shelf.INGEST:
            return stat.S_ISDIR(info.st_mode) and DIGEST.fullmatch(name) is not None
        case Shelf.QUARANTINE:
            return regular
        case _:
            return regular and key in ("node.json", "catalog.json", "pins.json", "uses.json")


def seals_in(root: Path, digests: Iterable[str]) -> dict[str, int]:
    """When each of these blobs changed last: ctime in ns, which nobody sets. Absent ones are left out."""
    found = {}
    for digest in digests:
        with contextlib.suppress(OSError):
            found[digest] = (root / blob_key(digest)).lstat().st_ctime_ns
    return found
