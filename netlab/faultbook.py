"""What is broken now: one small file per fault in the lab's directory.

A fault is written before it acts and struck out after it was undone, so the book may name one that
never came about, and never misses one. Readers need no lock: a file appears and goes whole. Whoever
breaks or heals holds the book meanwhile, so that the deed and its entry are one step. It refuses to
know what the faults do.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from netlab import state
from netlab.clock import DeadlineMissed, wait_until
from netlab.faults import WAYS, Fault

#: Longer than any one deed, and than healing a few: nodes that are started again take seconds each.
HELD_WITHIN_S: Final = 180.0
_KNOWN: Final = {(way.kind, way.how) for way in WAYS}


def folder() -> Path:
    """Where the faults are written."""
    return state.ROOT / "faults"


def _file(fault: Fault) -> Path:
    # No name of ours holds a "+" or a "~".
    return folder() / f"{fault.target.replace('/', '+')}~{fault.how}.json"


@contextmanager
def held(within_s: float = HELD_WITHIN_S) -> Iterator[None]:
    """Nobody else breaks or heals meanwhile. Raises BusyError, and KeyError without a lab."""

    def lock() -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:
        folder().mkdir(mode=0o755, exist_ok=True)
        descriptor = os.open(folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KeyError("there is no lab to break or to heal: poplab up starts one") from None
    try:
        try:
            wait_until(lock, "nobody else breaks or heals", within_s=within_s, every_s=0.05)
        except DeadlineMissed as missed:
            busy = f"another poplab has been breaking or healing for {within_s:.0f} s"
            raise state.BusyError(busy) from missed
        yield
    finally:
        os.close(descriptor)


def enter(fault: Fault) -> None:
    """Write it down; one that is there already keeps its place and gets the new time."""
    folder().mkdir(mode=0o755, exist_ok=True)
    file = _file(fault)
    draft = file.with_suffix(".new")
    draft.write_bytes(msgspec.json.encode(fault))
    draft.replace(file)


def strike(fault: Fault) -> None:
    """It is no more."""
    _file(fault).unlink(missing_ok=True)


def entries() -> list[Fault]:
    """What is broken, the oldest first."""
    found = []
    for file in folder().glob("*.json") if folder().is_dir() else ():
        try:
            fault = msgspec.json.decode(file.read_bytes(), type=Fault)
        except (OSError, msgspec.DecodeError):
            continue  # struck out meanwhile, or by another version of poplab: well.py still sees its effect
        if (fault.kind, fault.how) in _KNOWN:
            found.append(fault)
    return sorted(found, key=lambda fault: (fault.at_s, fault.target, fault.how))
