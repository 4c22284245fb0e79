"""What is broken now: one small file per fault in the lab's directory.

A fault is written before it acts and struck out after it was undone, so the book may name one that
never came about, and never misses one. Nobody needs a lock: a file appears and goes whole. It
refuses to know what the faults do.
"""

from pathlib import Path
from typing import Final

import msgspec

from netlab import state
from netlab.faults import WAYS, Fault

_KNOWN: Final = {(way.kind, way.how) for way in WAYS}


def folder() -> Path:
    """Where the faults are written."""
    return state.ROOT / "faults"


def _file(fault: Fault) -> Path:
    # No name of ours holds a "+" or a "~".
    return folder() / f"{fault.target.replace('/', '+')}~{fault.how}.json"


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
