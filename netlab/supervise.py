"""Start programs inside namespaces, know which of them live, and end them.

A process is a pid *and* its start time, so that a number the kernel has given to somebody else
is never signalled. What no list remembers is found again in /proc: by the namespace it stands
in, by its session, by a mark in its environment. It refuses to know what the programs do.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from netlab import netns
from netlab.clock import DeadlineMissed, wait_until
from netlab.names import ENV_TAG

#: Of the caller's environment only these reach the lab: no secrets, no surprises.
_KEPT: Final = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
_KEPT_PREFIXES: Final = ("LC_", "CUDA_", "NVIDIA_", "ORT_")
TAIL_BYTES: Final = 4096


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One program that was started: the leader of a session of its own."""

    name: str
    ns: str
    pid: int
    started_ticks: int
    log: str


class Stat(msgspec.Struct, frozen=True):
    """What /proc/PID/stat says that matters here."""

    state: str
    session: int
    started_ticks: int


def environment(mark: str) -> dict[str, str]:
    """What a program of the lab gets to see; `mark` finds it again."""
    kept = {k: v for k, v in os.environ.items() if k in _KEPT or k.startswith(_KEPT_PREFIXES)}
    root = str(Path(__file__).resolve().parent.parent)
    return kept | {ENV_TAG: mark, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def start(
    name: str, ns: str, command: Sequence[str], log: Path, env: Mapping[str, str], *, uid: int | None = None
) -> Process:
    """Start `command` inside the namespace; both its outputs go to `log`. Raises OSError.

    With `uid` it runs under that uid and gid, without any other group.
    """
    with log.open("ab") as out:

        def spawn() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=dict(env),
                start_new_session=True,
                user=uid,
                group=uid,
                extra_groups=None if uid is None else [],
            )

        child = netns.inside(ns, spawn)
    stat = read_stat(child.pid)
    _children[child.pid] = child
    return Process(
        name=name, ns=ns, pid=child.pid, started_ticks=stat.started_ticks if stat else 0, log=str(log)
    )


def prefer(process: Process, niceness: int) -> None:
    """Weigh its session by this niceness against all others.

    Where the kernel shares processors among sessions first (sched_autogroup, sched(7)), a niceness of its own
    counts inside its session alone. One busy process beside two others on one core: 20 %, with niceness -10
    21 %, with this 81 %.
    """
    with suppress(OSError):  # a kernel without such groups
        Path(f"/proc/{process.pid}/autogroup").write_text(str(niceness))


#: Programs that this very process started: their ends have to be collected, or they stay as zombies.
_children: Final[dict[int, subprocess.Popen[bytes]]] = {}


def read_stat(pid: int) -> Stat | None:
    """The process's state, or None when there is none with that pid."""
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, so count from its end.
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(state=fields[0], session=int(fields[3]), started_ticks=int(fields[19]))


def alive(process: Process) -> bool:
    """Whether this very process lives (a zombie does not)."""
    stat = read_stat(process.pid)
    return stat is not None and stat.state not in "ZX" and stat.started_ticks == process.started_ticks


def stopped(pid: int) -> bool:
    """Whether a process is frozen by a signal."""
    stat = read_stat(pid)
    return stat is not None and stat.state in "Tt"


def tail(log: str | Path, lines: int = 12) -> str:
    """The last lines of a log, for an error's text."""
    try:
        data = Path(log).read_bytes()[-TAIL_BYTES:]
    except OSError as error:
        return f"(no log: {error})"
    return (
        "\n".join("    " + line for line in data.decode(errors="replace").splitlines()[-lines:])
        or "    (empty)"
    )


class ProgramFailedError(Exception):
    """A program of the lab ended, or did not get ready in time; the text holds the end of its log."""


def wait_until_ready(process: Process, ready: Path | None, within_s: float) -> None:
    """Until the file `ready` exists, or without one until the log holds the line `ready`."""

    def is_ready() -> bool:
        if ready is not None:
            return ready.exists()
        return b"ready" in Path(process.log).read_bytes().splitlines()

    def check() -> None:
        if not alive(process):
            raise ProgramFailedError(
                f"{process.name} ended while starting; its log ends:\n{tail(process.log)}"
            )

    try:
        wait_until(is_ready, f"{process.name} is ready", within_s=within_s, check=check)
    except DeadlineMissed as missed:
        raise ProgramFailedError(
            f"{process.name} was not ready within {within_s:.0f} s; its log ends:\n{tail(process.log)}"
        ) from missed


def find(inodes: set[int], mark: str = "", known: Iterable[Process] = ()) -> set[int]:
    """Every process that is the lab's: known, in one of the namespaces, in their sessions, or marked.

    This process and those it descends from are never among them.
    """
    sessions = {process.pid for process in known if alive(process)}
    wanted = f"{ENV_TAG}={mark}".encode()
    seen: dict[int, Stat] = {}
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or (stat := read_stat(int(entry.name))) is None or stat.state in "ZX":
            continue
        pid = int(entry.name)
        seen[pid] = stat
        try:
            inside = (entry / "ns/net").stat().st_ino in inodes
            if inside or (mark and wanted in (entry / "environ").read_bytes().split(b"\0")):
                found.add(pid)
                sessions.add(stat.session)
        except OSError:
            continue  # it ended, or is a kernel thread
    own = _ancestors()
    sessions -= {seen[pid].session for pid in own if pid in seen}
    found |= {pid for pid, stat in seen.items() if stat.session in sessions}
    return found - own


def _ancestors() -> set[int]:
    pids, pid = set(), os.getpid()
    while pid > 0:
        pids.add(pid)
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(text[text.rindex(")") + 2 :].split()[1])
    return pids


def end(pids: set[int], grace_s: float, within_s: float = 3.0) -> None:
    """Ask politely, then kill. Returns when all are gone. Raises DeadlineMissed."""

    def gone() -> bool:
        return not {pid for pid in pids if (stat := read_stat(pid)) is not None and stat.state not in "ZX"}

    if grace_s > 0:
        _signal(pids, signal.SIGTERM)
        try:
            wait_until(gone, "they ended by themselves", within_s=grace_s)
        except DeadlineMissed:
            pass
        else:
            return
    _signal(pids, signal.SIGKILL)
    wait_until(gone, f"processes {sorted(pids)} are gone", within_s=within_s)


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def python() -> str:
    """The interpreter that runs this: the lab's programs use the same environment."""
    return sys.executable
