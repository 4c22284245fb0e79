"""What poplab remembers between two commands: one directory, one JSON file, one lock.

Everything in it can be lost: sweep.py finds the lab without it. It refuses to know what the
remembered things are for.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from netlab import mounts
from netlab.clock import DeadlineMissed, wait_until
from netlab.supervise import Process

ROOT: Final = Path("/run/edgepop-lab")
SCHEMA_VERSION: Final = 1
MAX_STATE_BYTES: Final = 1 << 20


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The lab as it was asked for and as it was started."""

    schema_version: int = SCHEMA_VERSION
    #: "starting" until everything answered; a lab that is found so was cut off in the middle.
    phase: str
    topology_file: str
    topology_text: str
    host_city: str
    bare: bool
    #: What runs in each node, up to `-c node.yaml`.
    program: tuple[str, ...] = ()
    #: What the origin serves; empty in a bare lab.
    models: str = ""
    wan_engine: str = "afpacket"
    processes: tuple[Process, ...] = ()


class BusyError(Exception):
    """Another poplab command is changing the lab."""


def logs() -> Path:
    """One log file per process."""
    return ROOT / "logs"


def log_of(name: str) -> Path:
    """The log of one process."""
    return logs() / f"{name}.log"


def node_home(name: str) -> Path:
    """A node's files: node.yaml, certificates, store, sockets."""
    return ROOT / "nodes" / name


def redis_home(region: str) -> Path:
    """redis.conf and the lab's own password for the Redis of a region."""
    return ROOT / "redis" / region


def bird_conf(place: str) -> Path:
    """bird.conf of a router (`r-iad`) or a node (`iad-a`)."""
    return ROOT / "bird" / f"{place}.conf"


def bird_control(place: str) -> Path:
    """Control socket of that BIRD."""
    return ROOT / "bird" / f"{place}.ctl"


def wan_control() -> Path:
    """Control socket of the WAN fabric."""
    return ROOT / "wan.ctl"


def origin_control() -> Path:
    """Control socket of the origin: counters and faults."""
    return ROOT / "origin.ctl"


def read() -> State | None:
    """What is remembered, or None when that is nothing or can't be used."""
    try:
        raw = (ROOT / "state.json").read_bytes()
    except OSError:
        return None
    try:
        state = msgspec.json.decode(raw, type=State)
    except msgspec.DecodeError:
        return None
    return state if len(raw) <= MAX_STATE_BYTES and state.schema_version == SCHEMA_VERSION else None


def process(name: str) -> Process | None:
    """The program of that name as it was started last; None where none is remembered."""
    found = read()
    return next((one for one in found.processes if one.name == name), None) if found is not None else None


def write(state: State) -> None:
    """Remember; whoever reads meanwhile sees the old state or the new one, never half."""
    draft = ROOT / "state.json.new"
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
    draft.replace(ROOT / "state.json")


def erase() -> None:
    """Forget everything, the nodes' stores too."""
    for mounted in mounts.below(ROOT):
        mounts.drop(mounted)
    shutil.rmtree(ROOT, ignore_errors=True)


@contextmanager
def changing(what: str) -> Iterator[Callable[[Process], Process]]:
    """Hold the lab, and note each program that was started in the place of one of the same name.

    Raises KeyError without a lab; `what` ends its sentence: "there is no lab to ...".
    """

    def note(process: Process) -> Process:
        remembered = read()
        if remembered is None:
            raise KeyError(f"there is no lab to {what}")
        others = (process if old.name == process.name else old for old in remembered.processes)
        write(msgspec.structs.replace(remembered, processes=tuple(others)))
        return process

    with locked():
        if read() is None:
            raise KeyError(f"there is no lab to {what}")
        yield note


@contextmanager
def locked(within_s: float = 30.0) -> Iterator[None]:
    """Hold the lab for changing it. Raises BusyError when another command does not finish in time."""
    try:
        descriptor = wait_until(_try_lock, "the lab is free", within_s=within_s, every_s=0.1)
    except DeadlineMissed as missed:
        raise BusyError(f"another poplab command has been changing the lab for {within_s:.0f} s") from missed
    try:
        yield
    finally:
        with suppress(OSError):
            ROOT.rmdir()  # only when it is empty: a lock that led to nothing leaves nothing
        os.close(descriptor)


def _try_lock() -> int:
    """A descriptor that holds the lock, or 0. The directory itself is the lock: nothing is left behind."""
    ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        descriptor = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if ROOT.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return 0
