"""A disk that is full at one step of a weights process, and has room again when the test says so.

The process itself fails the call: `open` that creates, `mkdir`, `rename` and `chmod` as the interpreter is
about to make them, `pwrite`, `fallocate`, `fsync` and `fdatasync` in place of `os`'s. Which one is told by
where a symbolic link points, as reading that is no such call. Knows neither the store nor its steps' names.
"""

import errno
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.support.weights import PROGRAM

#: Events that the interpreter tells of before it acts -> (name here, which argument is the path).
_TOLD: Final = {
    "open": ("open", 0),
    "os.mkdir": ("mkdir", 0),
    "os.rename": ("rename", 1),
    "os.chmod": ("chmod", 0),
}
_REPLACED: Final = {
    "pwrite": "pwrite",
    "posix_fallocate": "fallocate",
    "fsync": "fsync",
    "fdatasync": "fdatasync",
}


class FullDisk:
    """The test's end."""

    def __init__(self, folder: Path) -> None:
        self._control = folder / "full"
        self.program = (
            f"from tests.support.fulldisk import install\ninstall({str(self._control)!r})\n{PROGRAM}"
        )

    def fill(self, call: str, path: str, after: int = 0) -> None:
        """From now on `call` fails for paths in which the expression `path` is found, save the first `after` of them."""
        self.free()
        self._control.symlink_to(f"{call}|{path}|{after}")

    def free(self) -> None:
        """There is room again."""
        self._control.unlink(missing_ok=True)


def install(control: str) -> None:
    """In the process: every call of these asks first whether there is room."""
    seen: dict[str, int] = {}

    def check(call: str, where: Any) -> None:
        try:
            told = os.readlink(control)  # noqa: PTH115 -- pathlib says nothing shorter
        except OSError:
            return
        wanted, part, after = told.rsplit("|", 2)
        if call != wanted:
            return
        path = os.readlink(f"/proc/self/fd/{where}") if isinstance(where, int) else os.fsdecode(where)  # noqa: PTH115 -- as above
        if not re.search(part, path):
            return
        seen[told] = seen.get(told, 0) + 1
        if seen[told] > int(after):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if event in _TOLD:
            call, place = _TOLD[event]
            if event != "open" or args[2] & os.O_CREAT:
                check(call, args[place])

    def checked(call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def instead(fd: int, *args: Any) -> Any:
            check(call, fd)
            return real(fd, *args)

        return instead

    for name, call in _REPLACED.items():
        setattr(os, name, checked(call, getattr(os, name)))
    sys.addaudithook(hear)
