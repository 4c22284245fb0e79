"""What a child may do: its own uid, no capability, bounded memory, and for a worker no network.

`enter` is called once by a child, before it imports anything of its role, while it has one
thread. It knows nothing of roles: a `Cell` says everything. Without root the uid, the
capabilities and the network stay as they are, and the notices that come back say so.
"""

import ctypes
import errno
import os
import resource
from pathlib import Path
from typing import Final

import msgspec

from edge.parent.window import open_window

PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWNET: Final = 0x40000000

_libc: Final = ctypes.CDLL(None, use_errno=True)


class JailError(Exception):
    """The child can't be confined, or can't read its own code once it is; the text says what to change."""


class Cell(msgspec.Struct, frozen=True):
    """The rights of one child. `uid` is also its gid; `readable` are paths that it must reach.

    `data_bytes` bounds private memory (RLIMIT_DATA), 0 leaves it as it is.
    """

    uid: int
    network: bool
    readable: tuple[str, ...]
    nofile: int = 65_536
    data_bytes: int = 0
    umask: int = 0o077


def enter(cell: Cell) -> list[str]:
    """Give up everything the cell does not grant; returns what could not be given up.

    Raises JailError when the rights did not go, or when `readable` can't be reached without them.
    """
    notices: list[str] = []
    root = os.geteuid() == 0
    if not cell.network and not _unshare(CLONE_NEWNET):
        notices.append("keeps the network: a network namespace takes root with CAP_SYS_ADMIN")
    if root and _unshare(CLONE_NEWNS):
        open_window(cell.readable, cell.uid)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, cell.nofile)
    if cell.data_bytes:
        _limit(resource.RLIMIT_DATA, cell.data_bytes)
    os.umask(cell.umask)
    os.chdir("/")
    if root:
        _change_user(cell.uid)
    else:
        notices.append(f"keeps uid {os.getuid()}: another uid takes root")
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    if root:
        _require_gone(cell.uid)
    for path in cell.readable:
        _require_reachable(path)
    return notices


def _change_user(uid: int) -> None:
    os.setgroups([])
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    capability = 0
    while _libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
        _prctl(PR_CAPBSET_DROP, capability)
        capability += 1
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _require_gone(uid: int) -> None:
    """Believe the kernel, not the return values."""
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
    )
    wanted = {"Uid": [str(uid)] * 4, "Gid": [str(uid)] * 4, "NoNewPrivs": ["1"]}
    wanted |= {name: ["0" * 16] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    for name, value in wanted.items():
        if status.get(name, "").split() != value:
            raise JailError(f"rights were not given up: {name} is {status.get(name)!r}")


def _require_reachable(path: str) -> None:
    if os.access(path, os.R_OK | (os.X_OK if Path(path).is_dir() else 0)):
        return
    closed = next(
        (step for step in (*reversed(Path(path).parents), Path(path)) if not os.access(step, os.X_OK)),
        Path(path),
    )
    raise JailError(
        f"uid {os.getuid()} can't read {path}: {closed} is closed to it; "
        f"chmod a+rx {closed}, or put the programs and the node's directories elsewhere"
    )


def _limit(kind: int, value: int) -> None:
    """Both limits, within the hard one that is there."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _unshare(flag: int) -> bool:
    if _libc.unshare(flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EPERM, errno.EINVAL, errno.ENOSPC):
        return False
    raise JailError(f"unshare: {os.strerror(code)}")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise JailError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")
