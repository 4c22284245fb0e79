"""A lab comes and goes without a trace, whatever happened to it in between."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netlab import apply, netns, start, state, supervise
from netlab.clock import now_s, wait_until
from netlab.lab import Lab
from tests.support.lab import REPO, poplab, say
from tests.support.machine import snapshot
from tests.support.remains import marked

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("no_lab")]

BARE = start.Wish(bare=True)


def kill_everything() -> None:
    for pid in marked():
        os.kill(pid, signal.SIGKILL)
    # One that is dying has left its namespace before it has died.
    dead = [Lab.running()] if state.read() is not None else []
    wait_until(lambda: not marked() and not any(lab.any_alive() for lab in dead), "all are dead", within_s=5)


def test_cycles_leave_the_machine_as_it_was() -> None:
    """Three here, seven more below with an accident each, one with real nodes in test_planet; a hundred in soak."""
    before = snapshot()
    for _ in range(3):
        _, fresh = start.up(BARE, say)
        assert fresh
        assert start.down()
    assert snapshot() == before
    assert not marked()


def test_up_on_a_running_lab_says_so_and_changes_nothing() -> None:
    assert poplab("up", "--bare").returncode == 0
    pids = [process.pid for process in Lab.running().state.processes]
    again = poplab("up", "--bare")
    assert (again.returncode, again.stdout) == (0, "")
    assert "runs already" in again.stderr
    assert [process.pid for process in Lab.running().state.processes] == pids


def test_down_without_a_lab_is_fine() -> None:
    done = poplab("down")
    assert (done.returncode, done.stdout) == (0, "")
    assert "there is no lab" in done.stderr


def test_down_after_everything_was_killed() -> None:
    before = snapshot()
    start.up(BARE, say)
    kill_everything()
    assert poplab("down").returncode == 0
    assert snapshot() == before


def test_down_with_the_state_file_gone() -> None:
    before = snapshot()
    start.up(BARE, say)
    (state.ROOT / "state.json").unlink()
    assert poplab("down").returncode == 0
    assert not marked()
    assert snapshot() == before


def test_down_after_both() -> None:
    before = snapshot()
    start.up(BARE, say)
    kill_everything()
    state.erase()
    assert poplab("down").returncode == 0
    assert snapshot() == before


def test_up_clears_what_a_dead_lab_left() -> None:
    start.up(BARE, say)
    kill_everything()
    again = poplab("up", "--bare")
    assert again.returncode == 0, again.stderr
    assert "removing what an earlier lab left" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_up_that_is_interrupted_leaves_nothing(number: signal.Signals) -> None:
    before = snapshot()
    # A shell's background job, and all that it starts, would ignore Ctrl-C.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "netlab.cli", "up", "--bare"]
    with subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        assert "network" in child.stderr.readline()
        child.send_signal(number)
        told = child.stderr.read()
        assert child.wait(timeout=20) == 130, told
    assert "taking everything down again" in told
    assert not marked()
    assert snapshot() == before


def test_up_that_is_killed_is_swept_by_down() -> None:
    before = snapshot()
    # A shell's background job, and all that it starts, would ignore Ctrl-C.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "netlab.cli", "up", "--bare"]
    with subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        child.stderr.readline()
        child.kill()
    assert poplab("status").returncode == 4
    assert poplab("down").returncode == 0
    assert snapshot() == before


def test_a_program_that_ends_at_start_fails_up_with_its_log(tmp_path: Path) -> None:
    before = snapshot()
    (tmp_path / "catalog.json").write_text("{}")
    broken = (sys.executable, "-c", "raise SystemExit('no such model')")
    with pytest.raises(
        supervise.ProgramFailedError, match=r"(?s)(iad|fra|ams|nrt)-[ab] ended while starting.*no such model"
    ):
        start.up(start.Wish(models=tmp_path, program=broken), say)
    assert snapshot() == before


def test_up_without_models_says_how_to_make_them(tmp_path: Path) -> None:
    failed = poplab("up", "--models", str(tmp_path))
    assert (failed.returncode, failed.stdout) == (3, "")
    assert "make models" in failed.stderr
    assert not state.ROOT.exists()


def test_up_with_a_wrong_topology_says_where(tmp_path: Path) -> None:
    wrong = tmp_path / "my.yaml"
    wrong.write_text("name: x\npopz: {}\n")
    failed = poplab("up", "-t", str(wrong))
    assert failed.returncode == 1
    assert f"{wrong}:2: popz: unknown setting; did you mean pops?" in failed.stderr


def test_up_refuses_addresses_that_the_machine_routes() -> None:
    """In a namespace that plays a machine of its own, so that nothing real is at stake."""
    script = 'ip link set lo up && ip route add 198.51.100.0/24 dev lo && exec "$@"'
    refused = poplab("up", "--bare", prefix=("unshare", "--net", "sh", "-c", script, "sh"))
    assert refused.returncode == 1
    assert (
        "already has a route for 198.51.100.0/24, which overlaps the lab's 198.51.100.1/32" in refused.stderr
    )
    assert not apply.tagged_namespaces()


def test_namespaces_of_others_are_left_alone() -> None:
    netns.create("ep-somebody", lambda: None)
    try:
        start.up(BARE, say)
        start.down()
        assert netns.names() == ["ep-somebody"]
    finally:
        netns.drop("ep-somebody")


def test_down_is_quick_and_needs_no_kindness() -> None:
    """A stopped process can't be asked; down does not wait for it longer than its grace."""
    start.up(BARE, say)
    for pid in marked():
        os.kill(pid, signal.SIGSTOP)
    started_s = now_s()
    start.down()
    assert now_s() - started_s < 3.0
    assert not marked()
