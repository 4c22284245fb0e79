"""A node's disk that is full: its store on a file system in memory without a free byte.

The node must be down for `move` and `clear`, and up for `fill`: a node does not start on a disk
without a byte, and a disk becomes full under one that runs. Nothing is written to the machine's own
disk, and what the store held comes back as it was. It refuses to know what a store is.
"""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from netlab import mounts

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
#: Memory that must be left over when a store has been copied into it.
SPARE_BYTES: Final = 512 << 20
#: What a node may write while it starts.
STARTING_BYTES: Final = 1 << 20


class NoRoomError(Exception):
    """The store does not fit into memory; the text says how much it takes."""


def require_room(home: Path) -> None:
    """Raises NoRoomError."""
    wanted = _bytes_of(home / "store")
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) << 10
    if wanted + SPARE_BYTES > free:
        raise NoRoomError(
            f"{home.name}'s store holds {wanted >> 20} MiB, which a full disk keeps in memory, and "
            f"{free >> 20} MiB are free; evict models first (popctl models evict)"
        )


def _bytes_of(store: Path) -> int:
    """Whole pages, as a file system in memory counts; one for each name beside."""
    size = 0
    for path in store.rglob("*"):
        with suppress(FileNotFoundError):  # evicted since it was listed
            size += -(-path.lstat().st_size // _PAGE) * _PAGE + _PAGE
    return size


def move(home: Path) -> None:
    """The store lies on a small file system from now on; `fill` takes what is free. Raises OSError."""
    store, disk = home / "store", home / "full"
    disk.mkdir(mode=0o755, exist_ok=True)
    mounts.tmpfs(disk, _bytes_of(store) + STARTING_BYTES)
    _copy(store, disk / "store")
    mounts.lay_over(disk / "store", store)


def fill(home: Path) -> None:
    """Not a byte is free where `move` put the store. Raises OSError for all but a full disk."""
    with (home / "full" / "filler").open("wb", buffering=0) as filler:
        try:
            while filler.write(bytes(_PAGE)):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def _copy(one: Path, other: Path) -> None:
    """Copy with owners: the children of a node run under uids of their own. What vanishes is skipped."""

    def copied(file: str, to: str) -> None:
        with suppress(FileNotFoundError):
            shutil.copy2(file, to, follow_symlinks=False)

    shutil.copytree(one, other, symlinks=True, copy_function=copied)
    for path in (one, *one.rglob("*")):
        with suppress(FileNotFoundError):
            facts = path.lstat()
            os.chown(other / path.relative_to(one), facts.st_uid, facts.st_gid, follow_symlinks=False)


def is_full(home: Path) -> bool:
    """Whether `move` was begun for this node and not undone."""
    return (home / "full").is_dir()


def clear(home: Path) -> None:
    """The store lies where it was. Raises OSError."""
    for at in mounts.below(home):
        mounts.drop(at)
    (home / "full").rmdir()
