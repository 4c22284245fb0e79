"""What blocks an event loop is named, once, while it does; who was stopped blames nobody."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.proxy.loopwatch import BLOCKED_S, EVERY_S
from netlab.clock import now_s, wait_until
from tests.support.node import ROOT

PROGRAM = "tests.support.blocking"
SLEEPS, HOGS = "__main__:sleeps", "__main__:hogs"


class Program:
    """One loop in a process of its own; the watcher's words by where."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def tell(self, line: str) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if line:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        counts: dict[str, float] = json.loads(self._process.stdout.readline())
        return counts

    def end(self) -> str:
        """Its log."""
        return self._process.communicate(timeout=10)[1]


@contextlib.contextmanager
def running() -> Iterator[Program]:
    process = subprocess.Popen(
        [sys.executable, "-m", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    program = Program(process)
    try:
        program.tell("")
        yield program
    finally:
        process.kill()
        process.communicate()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(("deed", "where"), [("sleep", SLEEPS), ("hog", HOGS)])
def test_who_blocks_the_loop_is_named_once(deed: str, where: str) -> None:
    """Also one that never lets go of the interpreter's lock, so that nobody could look meanwhile."""
    with running() as program:
        assert program.tell(f"{deed} {5 * (EVERY_S + BLOCKED_S)}")[where] == 1.0
        assert program.tell(f"{deed} {5 * (EVERY_S + BLOCKED_S)}")[where] == 2.0
        log = [json.loads(line) for line in program.end().splitlines()]
    told = [line for line in log if line["event"] == "the event loop is blocked" and line["where"] == where]
    assert len(told) == 2
    assert told[0]["stack"][0].startswith(where)
    assert told[0]["stack"][1].startswith("__main__:main.<locals>.obey")


def test_a_stopped_process_blames_nobody() -> None:
    with running() as program:
        before = program.tell("count")
        for _ in range(5):
            stop(program.pid, 2 * EVERY_S)
            after = program.tell("count")
        assert after == before


def stop(pid: int, for_s: float) -> None:
    """SIGSTOP, and SIGCONT after so long."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state_of(pid) == "T", "it is stopped", within_s=5)
    until_s = now_s() + for_s
    wait_until(lambda: now_s() > until_s, "time passes", within_s=5)
    os.kill(pid, signal.SIGCONT)
