"""A hundred planets come, somebody is killed, they go, and the machine's network is what it was.

Each has a seed, which draws who is killed (-9) and when: `poplab up` itself, one program of the lab,
several, or the first `poplab down`. Most are the bare network; some have real nodes, one of which has
answered before.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

import pytest

from netlab import start, sweep
from netlab.clock import wait_until
from netlab.lab import Lab
from tests.support.lab import REPO, poplab
from tests.support.machine import snapshot
from tests.support.remains import marked

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("no_lab")]

CYCLES: Final = 100
#: One in so many has real nodes.
REAL_EVERY: Final = 6
#: `up` tells so many lines of its progress; it is killed up to so long after one of them, or before the first.
LINES: Final = 4
AFTER_S: Final = 1.0
ANSWER_WITHIN_S: Final = 60.0
TEXT: Final = "How do I reach the nearest GPU?"


class Cycle(NamedTuple):
    """One planet's life."""

    seed: int
    bare: bool
    killed: str

    def up(self) -> list[str]:
        """The command's words."""
        return ["up", "--bare"] if self.bare else ["up"]


def drawn(seed: int) -> Cycle:
    """What that seed says."""
    killed = random.Random(seed).choices(list(KILLS), [5, 35, 35, 15, 10])[0]
    return Cycle(seed, seed % REAL_EVERY > 0, killed)


def told(cycle: Cycle) -> str:
    """As in `7-bare-one`."""
    return f"{cycle.seed}-{'bare' if cycle.bare else 'nodes'}-{cycle.killed}"


def come(cycle: Cycle) -> None:
    """Up, and well."""
    done = poplab(*cycle.up(), timeout_s=180)
    assert done.returncode == 0, done.stderr
    if not cycle.bare:
        host = Lab.running().host
        wait_until(
            lambda: host.post("/run/minilm", TEXT).status == 200, "a node answers", within_s=ANSWER_WITHIN_S
        )


def nobody(cycle: Cycle, _: random.Random) -> None:
    """It lives its life."""
    come(cycle)


def the_up(cycle: Cycle, draw: random.Random) -> None:
    """Some way into `up`."""
    cut_off(cycle.up(), draw.randint(0, LINES), draw.uniform(0.0, AFTER_S))


def one(cycle: Cycle, draw: random.Random) -> None:
    """A program of the lab, or a child of one."""
    come(cycle)
    kill([draw.choice(sorted(marked()))])


def several(cycle: Cycle, draw: random.Random) -> None:
    """Some of them, all at most."""
    come(cycle)
    there = sorted(marked())
    kill(draw.sample(there, draw.randint(2, len(there))))


def the_down(cycle: Cycle, draw: random.Random) -> None:
    """Some way into `down`."""
    come(cycle)
    cut_off(["down"], 0, draw.uniform(0.0, 2 * AFTER_S))


KILLS: Final[dict[str, Callable[[Cycle, random.Random], None]]] = {
    "nobody": nobody,
    "up": the_up,
    "one": one,
    "several": several,
    "down": the_down,
}


def kill(pids: list[int]) -> None:
    """Those that have ended meanwhile are dead already."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def cut_off(arguments: list[str], lines: int, after_s: float) -> None:
    """Run `poplab` until it has told so many lines and so long after them; it may end before that."""
    command = [sys.executable, "-m", "netlab.cli", *arguments]
    with subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for _ in range(lines):
            child.stderr.readline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(after_s)
        child.kill()


@pytest.mark.parametrize("cycle", [drawn(seed) for seed in range(CYCLES)], ids=told)
def test_a_planet_leaves_nothing_whoever_was_killed(cycle: Cycle) -> None:
    if not cycle.bare and not (start.MODELS / "catalog.json").is_file():
        pytest.skip("real nodes need models: run `make models`")
    before = snapshot()
    KILLS[cycle.killed](cycle, random.Random(f"{cycle.seed} {cycle.killed}"))
    gone = poplab("down", timeout_s=120)
    assert gone.returncode == 0, gone.stderr
    assert not marked()
    assert not sweep.leftovers()
    assert snapshot() == before
