"""Blobs on their way out: unlinked when nobody uses them, counted while somebody still does.

Whether anybody has a file open or mapped is asked of the kernel. A file that is unlinked while it is
mapped takes its room until the last unmap, so it is kept by descriptor and name until then. Blocks, and
is called from threads, one at a time. Knows no layout and no budget.
"""

import contextlib
import fcntl
import os
import signal
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import NamedTuple


class Gone(Enum):
    """What became of a file that was to be evicted."""

    FREED = "freed"
    #: Unlinked, but somebody had opened it meanwhile: its bytes are free after their last unmap.
    LINGERS = "lingers"
    #: Somebody has it open: unlinking it would free nothing, so it stays.
    IN_USE = "in-use"


class Evicted(NamedTuple):
    """One file that was to go; `lingers_as` names the bytes of one that LINGERS, until `sweep`."""

    key: str
    gone: Gone
    lingers_as: str = ""


class Unlinked:
    """Those of one store that linger, and those that would be known to if another hand unlinked them."""

    def __init__(self) -> None:
        self._lingering: dict[str, int] = {}
        self._gripped: dict[str, int] = {}
        self._count = 0

    def grip(self, files: Mapping[str, Path]) -> None:
        """Know these by more than their names until `let_go`, as somebody is about to map them.

        They are not opened for reading, so it can still be told whether anybody else has.
        """
        for key, path in files.items():
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
                self.let_go(key)
                self._gripped[key] = fd

    def let_go(self, key: str) -> None:
        """Nobody maps it any more."""
        if (fd := self._gripped.pop(key, None)) is not None:
            os.close(fd)

    def lost(self, key: str) -> str:
        """Another hand unlinked it: the name of its bytes while anybody has it open, until `sweep`; or ""."""
        if (grip := self._gripped.pop(key, None)) is None:
            return ""
        try:
            fd = os.open(f"/proc/self/fd/{grip}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        finally:
            os.close(grip)
        if os.fstat(fd).st_nlink or not is_open_elsewhere(fd):
            os.close(fd)
            return ""
        return self._keep(fd)

    def _keep(self, fd: int) -> str:
        self._count += 1
        name = f"lingering/{self._count}"
        self._lingering[name] = fd
        return name

    def unlink(self, key: str, path: Path) -> Evicted:
        """Let go of one file, unless somebody uses it. Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        keep_open = False
        try:
            if is_open_elsewhere(fd):
                return Evicted(key, Gone.IN_USE)
            path.unlink()
            self.let_go(key)
            keep_open = is_open_elsewhere(fd)
            if not keep_open:
                return Evicted(key, Gone.FREED)
        finally:
            if not keep_open:
                os.close(fd)
        return Evicted(key, Gone.LINGERS, self._keep(fd))

    def sweep(self) -> tuple[str, ...]:
        """Names of lingering bytes whose last user has gone since: they are free now."""
        freed = [name for name, fd in self._lingering.items() if not is_open_elsewhere(fd)]
        for name in freed:
            os.close(self._lingering.pop(name))
        return tuple(freed)

    def close(self) -> None:
        """Forget them; the kernel frees their bytes after the last unmap."""
        for fd in (*self._lingering.values(), *self._gripped.values()):
            os.close(fd)
        self._lingering.clear()
        self._gripped.clear()


def is_open_elsewhere(fd: int) -> bool:
    """Has any process this file open or mapped beside `fd`?

    The kernel grants a write lease (fcntl(2), F_SETLEASE) only on a file that is open nowhere
    else, and a map counts as open. File systems without leases: no, as nobody can tell.
    """
    # An open in the instant in which we have the lease signals us; SIGURG is ignored by default.
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
