"""A node's processes seen from outside: who is its parent, and who got a signal."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netlab import handles, netns, planetfile, state, supervise
from netlab.clock import wait_until
from netlab.handles import NodeHandle

PLANET = planetfile.load(planetfile.PLANET)
WAITS = "import signal; signal.pause()"


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[NodeHandle, list[int]]]:
    """A node whose parent runs, and beside it a shell of somebody: both have a -c."""
    monkeypatch.setattr(state, "ROOT", tmp_path)
    with ExitStack() as stack:
        pids = []
        for _ in range(2):
            child = stack.enter_context(subprocess.Popen([sys.executable, "-c", WAITS]))
            stack.callback(child.kill)
            pids.append(child.pid)
        stat = supervise.read_stat(pids[0])
        assert stat is not None
        parent = supervise.Process(name="fra-a", ns="", pid=pids[0], started_ticks=stat.started_ticks, log="")
        monkeypatch.setattr(netns, "inode", lambda _: 1)
        monkeypatch.setattr(supervise, "find", lambda inodes, known: set(pids))
        wait_until(lambda: all(_started(pid) for pid in pids), "both were started", within_s=10)
        yield NodeHandle(PLANET, PLANET.node("fra-a"), parent), pids


def _started(pid: int) -> bool:
    return WAITS.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_shell_beside_it_is_not_its_parent(two: tuple[NodeHandle, list[int]]) -> None:
    node, pids = two
    assert node.pids("parent") == pids[:1]
    assert node.pids() == sorted(pids)


def test_who_ended_meanwhile_got_no_signal(
    two: tuple[NodeHandle, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, pids = two

    def kill(pid: int, number: int) -> None:
        if pid == min(pids):
            raise ProcessLookupError

    with monkeypatch.context() as patched:
        patched.setattr(handles.os, "kill", kill)
        assert node.signal(signal.SIGCONT) == sorted(pids)[1:]


def test_who_is_gone_is_no_member(two: tuple[NodeHandle, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    node, pids = two
    monkeypatch.setattr(supervise, "find", lambda inodes, known: {*pids, (1 << 22) + 1})
    assert [member.pid for member in node.members()] == sorted(pids)
