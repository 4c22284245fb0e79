"""File systems mounted below the lab's directory: made small, laid over, taken away. Linux, root.

What is mounted is read from the kernel each time. It refuses to know what for.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

_MS_BIND, _MS_NOSUID, _MS_NODEV, _MNT_DETACH = 0x1000, 2, 4, 2
_MOUNT_POINT: Final = 4  # the field of /proc/self/mountinfo, proc(5)
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def tmpfs(at: Path, size_bytes: int) -> None:
    """Mount a file system in memory that holds `size_bytes` and no more. Raises OSError."""
    options = f"size={size_bytes},mode=0755".encode()
    _call("mount", b"tmpfs", str(at).encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options)


def lay_over(what: Path, at: Path) -> None:
    """`at` shows what lies in `what`, until it is dropped. Raises OSError."""
    _call("mount", str(what).encode(), str(at).encode(), b"none", _MS_BIND, None)


def below(root: Path) -> list[Path]:
    """Where something is mounted at or below `root`, the last one first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # Blanks in names are written \040; ours hold none.
        at = Path(line.split()[_MOUNT_POINT])
        if at == root or root in at.parents:
            found.append(at)
    return found[::-1]


def drop(at: Path) -> None:
    """Take the topmost mount at `at` away; who has files of it open keeps them. Raises OSError."""
    _call("umount2", str(at).encode(), _MNT_DETACH)
