"""Break the running lab and mend it: each fault is written down, done, undone, struck out.

`lab.fail`, `lab.heal` and `lab.faults` are these. The book is written before the deed, so that
whoever comes later can undo what a killed `poplab` began. It refuses to know how (faultacts.py).
"""

from collections.abc import Callable
from types import TracebackType
from typing import Final

from netlab import clock, faultacts, faultbook, faultclock, faultdisk, faults, faulttarget, well
from netlab.apply import ApplyError
from netlab.clock import DeadlineMissed
from netlab.faults import Fault
from netlab.faulttarget import Target
from netlab.lab import Lab
from netlab.resp import RedisError
from netlab.supervise import ProgramFailedError

WELL_WITHIN_S: Final = 90.0
Say = Callable[[str], None]
_PROBLEMS: Final = (
    OSError,
    LookupError,
    RuntimeError,
    ApplyError,
    RedisError,
    DeadlineMissed,
    ProgramFailedError,
)


class NotHealedError(Exception):
    """Some faults could not be undone and are still in the book; the text says which, and why."""


class Breakage:
    """A fault in force. As a context manager it heals at the end; `fault` is what the book says."""

    def __init__(self, target: Target, fault: Fault) -> None:
        self.target = target
        self.fault = fault

    def __str__(self) -> str:
        return f"{self.target.name}: {self.fault.way.does}; undo it with `{self.fault.remedy}`"

    def heal(self, within_s: float = WELL_WITHIN_S) -> None:
        """Undo it; when nothing else is broken, wait until the planet is well.

        Raises DeadlineMissed, NotHealedError.
        """
        _heal([self.fault], within_s, well.quiet)

    def __enter__(self) -> "Breakage":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.heal()


def fail(lab: Lab, target: str | tuple[str, ...], how: str) -> Breakage:
    """Break one thing. Raises KeyError for an unknown target or way, and what its handle raises."""
    found = faulttarget.parse(target, lab.topology)
    faults.way(found.kind, how)
    if lab.state.bare and found.kind not in ("link", "bird"):
        raise KeyError(f"this lab is bare: it has no {found.name}, only links and the BIRDs of its routers")
    fault = Fault(target=found.name, kind=found.kind, how=how, at_s=clock.wall_s())
    faultbook.enter(fault)
    try:
        faultacts.HANDS[found.kind][how].apply(lab, found)
    except (LookupError, faultclock.NoClockError, faultdisk.NoRoomError):
        faultbook.strike(fault)  # nothing was broken
        raise
    return Breakage(found, fault)


def heal(
    lab: Lab,
    target: str | tuple[str, ...] = faulttarget.ALL,
    *,
    within_s: float = WELL_WITHIN_S,
    say: Say = well.quiet,
) -> list[Fault]:
    """Undo every fault of a target, or all; those that were undone.

    `all` also restarts what died without being asked to, and waits until the planet is well; a
    target waits for that when nothing else is broken. Raises KeyError, DeadlineMissed, NotHealedError.
    """
    if target in (faulttarget.ALL, (faulttarget.ALL,)):
        undone = faultbook.entries()
        _heal(undone, within_s, say, everything=True)
        return undone
    found = faulttarget.parse(target, lab.topology)
    undone = [fault for fault in faultbook.entries() if _belongs(fault.target, found)]
    _heal(undone, within_s, say)
    return undone


def _belongs(name: str, target: Target) -> bool:
    """A node's parts are healed with it."""
    return name == target.name or (target.kind == "node" and name.startswith(f"{target.name}/"))


def _again(lab: Lab, healed: Fault) -> None:
    """A link is mended whole: what else was done to it is done again."""
    for fault in faultbook.entries() if healed.kind == "link" else ():
        if fault.target == healed.target:
            target = faulttarget.parse(fault.target, lab.topology)
            faultacts.HANDS[fault.kind][fault.how].apply(lab, target)


def _heal(broken: list[Fault], within_s: float, say: Say, *, everything: bool = False) -> None:
    problems = []
    for at in faultacts.in_order([(fault.kind, fault.how) for fault in broken]):
        fault = broken[at]
        say(f"{fault.target}: {fault.way.undo}")
        lab = Lab.running()  # what an undoing started anew is seen by the next
        try:
            faultacts.HANDS[fault.kind][fault.how].undo(lab, faulttarget.parse(fault.target, lab.topology))
        except _PROBLEMS as error:
            problems.append(f"{fault.target} ({fault.how}): {str(error) or type(error).__name__}")
        else:
            faultbook.strike(fault)
            _again(lab, fault)
    if problems:
        raise NotHealedError(f"not healed: {'; '.join(problems)}")
    if everything:
        faultacts.revive_all(Lab.running(), say)
    if everything or not faultbook.entries():
        well.wait_until_well(within_s, say)
