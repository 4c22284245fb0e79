"""`poplab fail` and `heal`: each way to fail is felt, told, written down and undone, whoever did it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netlab import (
    clock,
    faultbook,
    faultport,
    faultrun,
    mounts,
    names,
    netns,
    planetfile,
    start,
    state,
    supervise,
    well,
)
from netlab.clock import wait_until
from netlab.faults import WAYS, Fault
from netlab.lab import Lab
from tests.support.faults import CASES, Case, once
from tests.support.lab import REPO, STANDIN, poplab, say

pytestmark = pytest.mark.lab


@pytest.mark.usefixtures("no_lab")
def test_down_takes_a_broken_planet_away(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text("{}")
    lab, _ = start.up(
        start.Wish(planet=planetfile.find("two-workers"), models=tmp_path, program=STANDIN), say
    )
    node = lab.topology.nodes[0].name
    (lab.node(node).home / "store").mkdir()
    lab.fail(node, "full")
    lab.fail("r-iad/bird", "stop")
    lab.fail("redis/us", "stop")
    lab.fail("origin", "blackhole")
    assert len(mounts.below(state.ROOT)) == 2
    assert start.down()
    assert not state.ROOT.exists()
    assert mounts.below(state.ROOT) == []
    assert netns.names() == []


def test_every_way_has_a_case() -> None:
    assert {(case.kind, case.how) for case in CASES} == {(way.kind, way.how) for way in WAYS}


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("case", [case for case in CASES if case.quick], ids=lambda case: case.id)
def test_each_way_to_fail_is_felt_and_healed(case: Case) -> None:
    once(case)


def test_from_the_shell(lab: Lab) -> None:
    lab.wait_until_well(within_s=30)
    assert poplab("faults").stdout == "nothing is broken on purpose\n"
    broken = poplab("fail", "fra", "ams", "--how", "cut")
    assert broken.returncode == 0, broken.stderr
    assert "undo it with `poplab heal fra-ams`" in broken.stderr
    (told,) = json.loads(poplab("faults", "--json").stdout)["faults"]
    assert (told["target"], told["how"], told["command"]) == ("fra-ams", "cut", "poplab heal fra-ams")
    healed = poplab("heal")
    assert healed.returncode == 0, healed.stderr
    assert healed.stderr.splitlines()[-1].startswith("1 fault undone in ")
    assert healed.stderr.endswith("the planet is well\n")
    for words, code, sentence in (
        (("fra-b", "--how", "kill"), 4, "did you mean fra-a?"),
        (("fra-a", "--how", "hang"), 4, "did you mean stop?"),
        (("fra-a",), 2, "write --how kill or stop or blackhole"),
        ((), 2, "write what to break"),
    ):
        refused = poplab("fail", *words)
        assert (refused.returncode, sentence in refused.stderr) == (code, True), refused.stderr
    assert lab.faults() == []


def test_what_a_killed_poplab_began_is_healed_by_the_next(lab: Lab) -> None:
    lab.wait_until_well(within_s=30)
    command = [sys.executable, "-m", "netlab.cli", "fail", "nrt-a", "--how", "full"]
    with subprocess.Popen(command, cwd=REPO, stderr=subprocess.DEVNULL) as began:
        wait_until(faultbook.entries, "it is in the book", within_s=10, every_s=0.001)
        wait_until(lambda: not lab.node("nrt-a").up, "the deed has begun", within_s=10, every_s=0.001)
        began.send_signal(signal.SIGKILL)
    (fault,) = Lab.running().faults()
    assert (fault.target, fault.how) == ("nrt-a", "full")
    assert [(one.target, one.how) for one in Lab.running().heal(within_s=60)] == [("nrt-a", "full")]
    assert mounts.below(state.ROOT) == []


def test_heal_mends_what_nobody_wrote_down_too(lab: Lab) -> None:
    lab.wait_until_well(within_s=30)
    dead = {"r-ams.bird": signal.SIGKILL, "redis-ap": signal.SIGKILL, "origin": signal.SIGSTOP}
    for process in lab.state.processes:
        if process.name in dead:
            os.kill(process.pid, dead[process.name])
    lab.node("ams-a").kill()
    lab.wan.cut("iad", "nrt")
    healed = poplab("heal", "all", timeout_s=120)
    assert healed.returncode == 0, healed.stderr
    assert "redis-ap is dead: it is started again" in healed.stderr
    assert "origin is stopped: it goes on" in healed.stderr
    again = Lab.running()
    assert all(supervise.alive(process) for process in again.state.processes)
    again.wait_until_well(within_s=5)


def test_faults_of_one_thing_are_healed_one_by_one_or_together(lab: Lab) -> None:
    lab.wait_until_well(within_s=30)
    cut = lab.fail("iad-nrt", "cut")
    lab.fail("nrt-iad", "lossy")
    cut.heal()
    assert [(fault.target, fault.how) for fault in lab.faults()] == [("iad-nrt", "lossy")]
    assert [link.text() for link in lab.wan.conditions()] == ["80 ms, loss 30%"] * 2
    lab.fail("nrt-a/weights", "stop")
    lab.fail("nrt-a/bird", "stop")
    assert len(lab.heal("nrt-a")) == 2, "a node's parts are healed with it"
    assert len(lab.heal("iad-nrt")) == 1
    assert lab.faults() == []


def test_links_changed_by_hand_are_told_and_stand_in_no_faults_way(lab: Lab) -> None:
    assert poplab("link", "iad", "fra", "--rtt", "120").returncode == 0
    assert "link from iad to fra: 60 ms" in poplab("faults").stdout
    with lab.fail("iad-b/worker", "kill"):
        pass  # its healing does not wait for a link that somebody else changed
    assert poplab("heal", "iad-fra").returncode == 0
    assert lab.wan.conditions() == []


def test_heal_takes_back_what_an_operator_ordered_and_a_killed_chaos_left(lab: Lab) -> None:
    lab.node("ams-a").drain()
    lab.node("nrt-a").withdraw()
    config = lab.node("iad-b").home / "node.yaml"
    before = config.read_text(encoding="utf-8")
    config.write_text(before + "log_level: debug  # poplab chaos\n", encoding="utf-8")
    lab.heal()
    assert config.read_text(encoding="utf-8") == before
    assert not lab.node("ams-a").held("drained")
    assert not lab.node("nrt-a").held("withdrawn")


@pytest.mark.parametrize("how", ["clock-ahead", "full"])
def test_a_deed_that_was_cut_in_the_middle_is_undone_by_its_own_remedy(lab: Lab, how: str) -> None:
    node = lab.node("nrt-a")
    faultbook.enter(Fault(target="nrt-a", kind="node", how=how, at_s=clock.wall_s()))
    node.end()  # and there it was killed
    assert poplab("heal", "nrt-a").returncode == 0
    assert lab.node("nrt-a").up
    assert lab.faults() == []


def test_who_visits_a_node_does_not_fail_with_it(lab: Lab) -> None:
    command = [sys.executable, "-m", "netlab.cli", "exec", "iad-b", "--", "sleep", "60"]
    visitor = subprocess.Popen(command)
    cmdline = Path(f"/proc/{visitor.pid}/cmdline")
    try:
        wait_until(lambda: cmdline.read_bytes().startswith(b"sleep"), "the visitor is there", within_s=10)
        assert visitor.pid in [member.pid for member in lab.node("iad-b").members()]
        assert visitor.pid not in lab.node("iad-b").pids()
    finally:
        visitor.kill()
        visitor.wait()


def test_nobody_stops_who_is_dead(lab: Lab) -> None:
    with lab.fail("r-ams/bird", "kill"):
        with pytest.raises(faultrun.FaultError, match="it has no process now"):
            lab.fail("r-ams/bird", "stop")
        assert [fault.how for fault in lab.faults()] == ["kill"]


def test_a_vanished_machine_leaves_its_routers_carrier_up(lab: Lab) -> None:
    """fra-a is the only machine of its POP: a bridge without a port that forwards would say so."""
    lab.wait_until_well(within_s=30)
    router = names.router("fra")
    faultport.wait_until_running(router, "lan", within_s=1)
    with lab.fail("fra-a", "blackhole"):
        # The kernel takes up to a second to tell of a lost carrier; BFD takes about as long.
        lab.city("ber").wait_until_served_by("ams", within_ms=10_000)
        assert well.felt(lab)
        faultport.wait_until_running(router, "lan", within_s=0)
        assert faultport.exists(router, "h-fra-a")
    assert not faultport.exists(router, "h-fra-a")
