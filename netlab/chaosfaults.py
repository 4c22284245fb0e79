"""Carry a schedule of faults out on the running lab, and note when each was really done.

One thing at a time and in the schedule's order, so a deed that takes long delays the next one: the
history tells what was, not what was planned. It refuses to know who suffers.
"""

from collections.abc import Callable, Sequence
from typing import Final

from netlab import clock, faultacts, faultclock, faultrun, faulttarget
from netlab.chaoshistory import Event
from netlab.chaosplan import DRAIN, Planned
from netlab.clock import DeadlineMissed
from netlab.lab import Lab

_PROBLEMS: Final = (*faultacts.PROBLEMS, faultrun.FaultError, faultclock.NoClockError)


class Faults:
    """What of the schedule is still to come, and what is broken now."""

    def __init__(self, planned: Sequence[Planned], note: Callable[[Event], None]) -> None:
        acts = [(one.at_s, 0, one) for one in planned] + [(one.until_s, 1, one) for one in planned]
        self._acts = sorted(acts, key=lambda act: (act[0], -act[1], act[2].target))
        self._note = note
        self._broken: list[Planned] = []

    @property
    def broken(self) -> list[str]:
        """What is broken now."""
        return [f"{one.target} {one.how}" for one in self._broken]

    @property
    def next_s(self) -> float | None:
        """When the next one is due; None when all is done."""
        return self._acts[0][0] if self._acts else None

    def act(self) -> Planned:
        """Do what is due next, and say what it was about. A deed that fails is noted, not raised."""
        _, heals, one = self._acts.pop(0)
        if heals:
            self._heal(one)
        else:
            self._break(one)
        return one

    def end(self) -> None:
        """Heal what is broken now; what is still to come never comes."""
        self._acts.clear()
        for one in list(self._broken):
            self._heal(one)

    def _break(self, one: Planned) -> None:
        self._say(one, "breaking")
        self._broken.append(one)  # also one that fails, or is interrupted, may break something
        try:
            lab = Lab.running()
            if one.conditions:
                lab.wan.set(*_ends(lab, one), **one.conditions)  # type: ignore[arg-type]
            elif one.how == DRAIN:
                lab.node(one.target).drain()
            else:
                lab.fail(one.target, one.how)
        except _PROBLEMS as error:
            self._say(one, "refused", str(error) or type(error).__name__)
        else:
            self._say(one, "broken")

    def _heal(self, one: Planned) -> None:
        self._say(one, "healing")
        try:
            lab = Lab.running()
            if one.conditions:
                lab.wan.mend(*_ends(lab, one))
            elif one.how == DRAIN:
                lab.node(one.target).undrain()
            else:
                _undo(lab, one.target)
        except _PROBLEMS as error:
            self._say(one, "refused", str(error) or type(error).__name__)
        else:
            self._say(one, "healed")
            self._broken.remove(one)

    def _say(self, one: Planned, what: str, text: str = "") -> None:
        self._note(
            Event(
                t=clock.calm_wall_s(),
                at="chaos",
                what=what,
                target=one.target,
                kind=one.kind,
                how=one.how,
                text=text,
            )
        )


def _ends(lab: Lab, one: Planned) -> tuple[str, ...]:
    return faulttarget.parse(one.target, lab.topology).of


def _undo(lab: Lab, target: str) -> None:
    """Undo a fault without waiting until the planet is well: others may come meanwhile."""
    try:
        faultrun.heal(lab, target, within_s=0.0)
    except DeadlineMissed:
        if any(fault.target == target for fault in lab.faults()):
            raise
