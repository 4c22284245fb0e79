"""Another wall clock for a node: libfaketime, a library that is loaded before all others.

It changes what the node's processes read as time of day and leaves their monotonic clock alone. It
refuses to know what they do with either.
"""

import re
from pathlib import Path
from typing import Final

from netlab import supervise

_LIBRARIES: Final = Path("/usr/lib")
_PATTERN: Final = "*/faketime/libfaketimeMT.so.1"
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 -- where the library itself puts its files
_FILE: Final = re.compile(r"(?:sem\.faketime_sem|faketime_shm)_(\d+)")


class NoClockError(Exception):
    """libfaketime is not there; the text says what to install."""


def environment(offset: str) -> dict[str, str]:
    """What shifts the clock of a program by `offset` seconds, as in "+3600". Raises NoClockError.

    Source: libfaketime 0.9.10, README.
    """
    library = next(_LIBRARIES.glob(_PATTERN), None)
    if library is None:
        raise NoClockError(
            f"another clock takes libfaketime, which is not in {_LIBRARIES}: apt-get install faketime"
        )
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": offset,
        # Deadlines are monotonic: with these two clocks apart they must hold.
        "DONT_FAKE_MONOTONIC": "1",
    }


def is_skewed(pid: int) -> bool:
    """Whether a process was started under such a clock."""
    try:
        return b"FAKETIME=" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def sweep() -> None:
    """Remove the shared memory of programs that were killed under such a clock; theirs alone names them."""
    for file in _MEMORY.iterdir() if _MEMORY.is_dir() else ():
        found = _FILE.fullmatch(file.name)
        if found and supervise.read_stat(int(found[1])) is None:
            file.unlink(missing_ok=True)
