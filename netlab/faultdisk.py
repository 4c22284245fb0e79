"""A node's disk that is full: its store on a file system in memory without a free byte.

The node must be down for `move` and `clear`, and up for `fill`: a node does not start on a disk
without a byte, and a disk becomes full under one that runs. Nothing is written to the machine's own
disk, and what the store held comes back as it was. It refuses to know what a store is.
"""

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
    return sum(-(-path.lstat().st_size // _PAGE) * _PAGE + _PAGE for path in store.rglob("*"))


def move(home: Path) -> None:
    """The store lies on a small file system from now on; `fill` takes what is free. Raises OSError."""
    store, disk = home / "store", home / "full"
    disk.mkdir(mode=0o755, exist_ok=True)
    mounts.tmpfs(disk, _bytes_of(store) + STARTING_BYTES)
    _copy(store, disk / "store")
    mounts.lay_over(disk / "store", store)


def fill(home: Path) -> None:
    """Not a byte is free where `move` put the store."""
    with (home / "full" / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(bytes(_PAGE)):
            pass  # until there is no space left on the device


def _copy(one: Path, other: Path) -> None:
    """Copy with owners: the children of a node run under uids of their own."""
    shutil.copytree(one, other, symlinks=True)
    for path in (one, *one.rglob("*")):
        twin, facts = other / path.relative_to(one), path.lstat()
        os.chown(twin, facts.st_uid, facts.st_gid, follow_symlinks=False)


def is_full(home: Path) -> bool:
    """Whether `move` was begun for this node and not undone."""
    return (home / "full").is_dir()


def clear(home: Path) -> None:
    """The store lies where it was. Raises OSError."""
    for at in mounts.below(home):
        mounts.drop(at)
    (home / "full").rmdir()
