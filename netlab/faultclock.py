"""Another wall clock for a node: libfaketime, a library that is loaded before all others.

It changes what the node's processes read as time of day and leaves their monotonic clock alone. It
refuses to know what they do with either.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from netlab import state

_LIBRARIES: Final = Path("/usr/lib")
_PATTERN: Final = "*/faketime/libfaketimeMT.so.1"
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 -- where the library itself puts its files
_FILES: Final = ("sem.faketime_sem_{}", "faketime_shm_{}")


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


def remember(pids: Iterable[int]) -> None:
    """Of these processes of the lab, note those under such a clock; `sweep` removes what they leave."""
    for pid in filter(is_skewed, pids):
        _remembered().mkdir(mode=0o755, parents=True, exist_ok=True)
        (_remembered() / str(pid)).touch()


def sweep() -> None:
    """Remove the shared memory of programs of the lab that were killed under such a clock; no one else's."""
    for noted in list(_remembered().iterdir()) if _remembered().is_dir() else ():
        if not is_skewed(int(noted.name)):
            for file in _FILES:
                (_MEMORY / file.format(noted.name)).unlink(missing_ok=True)
            noted.unlink(missing_ok=True)


def _remembered() -> Path:
    """One file for each, by pid."""
    return state.ROOT / "skewed"
