"""Let a child see a few paths that lie below a directory which is closed to it.

A checkout in /root or in a closed home can't be read by another uid, and opening those
directories for everyone would be worse. So, in the child's own mount namespace, the closed
directory is covered by an empty one, and only the wanted paths are bound into it: the child
reaches its code and its store there, and nothing else. Owners and modes of the wanted paths
themselves are untouched.
"""

import ctypes
import os
import stat
from pathlib import Path
from typing import Final

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 1, 2, 4, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18

_libc: Final = ctypes.CDLL(None, use_errno=True)


def open_window(wanted: tuple[str, ...], uid: int) -> list[str]:
    """Make `wanted` reachable for `uid`; returns the directories that were covered.

    Call it in a new mount namespace with CAP_SYS_ADMIN. Paths that do not exist are left out.
    Raises OSError when the kernel refuses.
    """
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    paths = sorted({name for path in wanted for name in (os.path.abspath(path), os.path.realpath(path))})  # noqa: PTH100 -- a link must stay one
    sources = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths if Path(path).exists()}
    covered: list[str] = []
    try:
        for path, source in sources.items():
            cover = closed_above(path, uid)
            if cover is not None:
                _mount("tmpfs", cover, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=64k")
                covered.append(cover)
            if not Path(path).exists():
                _bind(source, path)
        for cover in covered:
            _mount(None, cover, None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    finally:
        for source in sources.values():
            os.close(source)
    return covered


def closed_above(path: str, uid: int) -> str | None:
    """The first directory above `path` that `uid` (in no group but its own) may not enter."""
    for step in reversed(Path(path).parents):
        found = step.stat()
        if found.st_uid == uid:
            entered = found.st_mode & stat.S_IXUSR
        elif found.st_gid == uid:
            entered = found.st_mode & stat.S_IXGRP
        else:
            entered = found.st_mode & stat.S_IXOTH
        if not entered:
            return str(step)
    return None


def _bind(source: int, path: str) -> None:
    target = Path(path)
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if stat.S_ISDIR(os.fstat(source).st_mode):
        target.mkdir(mode=0o755)
    else:
        target.touch(mode=0o644)
    _mount(f"/proc/self/fd/{source}", path, None, MS_BIND | MS_REC)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    if _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), data.encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount on {target}: {os.strerror(code)}")
