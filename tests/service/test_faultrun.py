"""Breaking and healing where something is in the way: what is raised, and what the book says then.

The lab is a state file without programs, so the WAN and everybody else are dead.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from netlab import apply, failverbs, faultacts, faultrun, planetfile, state, well
from netlab.lab import Lab


def remembered(*, bare: bool = False) -> state.State:
    return state.State(
        phase="up",
        topology_file=str(planetfile.PLANET),
        topology_text=planetfile.PLANET.read_text(encoding="utf-8"),
        host_city="nyc",
        bare=bare,
    )


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(state, "ROOT", tmp_path)
    monkeypatch.setattr(well, "wait_until_well", lambda *_: None)
    state.write(remembered())
    return Lab.running()


def hand(monkeypatch: pytest.MonkeyPatch, apply: Callable[[], None], undo: Callable[[], None]) -> None:
    """The link iad-fra can be cut like that."""
    hands = faultacts.Hands(lambda lab, target: apply(), lambda lab, target: undo())
    monkeypatch.setitem(faultacts.HANDS["link"], "cut", hands)


def raises(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def nothing() -> None:
    """As if it had been done."""


@pytest.mark.parametrize(
    ("sentence", "error", "said", "kept"),
    [
        ("a socket that nobody serves", ConnectionRefusedError(111, "refused"), "refused; what was", True),
        ("silence has no words", TimeoutError(), "TimeoutError", True),
        ("a disk that is full", OSError(28, "No space left"), "No space left", True),
        ("a program that says no", RuntimeError("503 busy"), "503 busy", True),
        ("the kernel", apply.ApplyError("Up(...): no"), "Up(...): no", True),
        ("no quotes around a key", KeyError("no lab"), "(cut): no lab; what", True),
        ("nobody to hit", faultacts.NotThereError("it has no process now"), "no process now", False),
    ],
)
def test_a_hand_that_fails_names_target_and_problem(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, sentence: str, error: Exception, said: str, kept: bool
) -> None:
    hand(monkeypatch, raises(error), nothing)
    with pytest.raises(faultrun.FaultError) as refused:
        lab.fail("iad-fra", "cut")
    assert str(refused.value).startswith("iad-fra (cut): "), sentence
    assert said in str(refused.value), sentence
    assert bool(lab.faults()) == kept, sentence


def test_the_shell_says_it_in_one_sentence(lab: Lab) -> None:
    told = CliRunner().invoke(failverbs.fail_verb, ["iad-fra", "--how", "cut"])
    assert told.exit_code == 1
    assert told.output.startswith("poplab: iad-fra (cut): the WAN does not answer")
    assert len(told.output.splitlines()) == 1


def test_who_is_not_there_does_not_strike_out_an_earlier_fault(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand(monkeypatch, nothing, nothing)
    lab.fail("iad-fra", "cut")
    hand(monkeypatch, raises(faultacts.NotThereError("gone")), nothing)
    with pytest.raises(faultrun.FaultError, match="gone"):
        lab.fail("iad-fra", "cut")
    assert [fault.how for fault in lab.faults()] == ["cut"]


def test_a_second_restart_of_a_node_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(faultacts.HANDS["node"], "full", faultacts.Hands(*[lambda lab, target: None] * 2))
    lab.fail("fra-a", "full")
    with pytest.raises(
        faultrun.FaultError, match=r"fra-a is broken already \(full\).*`poplab heal fra-a` first"
    ):
        lab.fail("fra-a/parent", "kill")
    assert [fault.target for fault in lab.faults()] == ["fra-a"]


def test_a_bare_lab_has_no_birds_of_nodes(lab: Lab) -> None:
    state.write(remembered(bare=True))
    with pytest.raises(KeyError, match="it has no fra-a/bird"):
        Lab.running().fail("fra-a/bird", "kill")
    assert lab.faults() == []


def test_heal_without_a_wan_ends_in_a_sentence(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    hand(monkeypatch, nothing, raises(ConnectionError("refused")))
    lab.fail("iad-fra", "cut")
    with pytest.raises(
        faultrun.NotHealedError, match=r"links: the WAN does not answer.*iad-fra \(cut\): refused"
    ):
        lab.heal()
    assert [fault.target for fault in lab.faults()] == ["iad-fra"]


def test_what_needs_somebody_alive_is_undone_after_the_dead_were_started(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = []

    def undo() -> None:
        if not alive:
            raise ConnectionError("refused")

    def revive(_: object) -> list[str]:
        alive.append(True)
        return []

    hand(monkeypatch, nothing, undo)
    monkeypatch.setattr(faultrun.faultrevive, "revive_all", revive)
    lab.fail("iad-fra", "cut")
    assert [fault.target for fault in lab.heal()] == ["iad-fra"]
    assert lab.faults() == []


def test_what_is_done_again_and_fails_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    hand(monkeypatch, nothing, nothing)
    lab.fail("iad-fra", "cut")
    lossy = faultacts.Hands(lambda lab, target: None, lambda lab, target: None)
    monkeypatch.setitem(faultacts.HANDS["link"], "lossy", lossy)
    broken = lab.fail("iad-fra", "lossy")
    hand(monkeypatch, raises(ConnectionError("refused")), nothing)
    with pytest.raises(faultrun.NotHealedError, match="refused"):
        broken.heal()
