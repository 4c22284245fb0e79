"""Break the running lab and mend it: each fault is written down, done, undone, struck out.

`lab.fail`, `lab.heal` and `lab.faults` are these. The book is written before the deed, so that
whoever comes later can undo what a killed `poplab` began. It refuses to know how (faultacts.py).
"""

from collections.abc import Callable
from types import TracebackType
from typing import Final

from netlab import (
    clock,
    faultacts,
    faultbook,
    faultclock,
    faultdisk,
    faultlinks,
    faultrevive,
    faults,
    faulttarget,
    well,
)
from netlab.faultacts import PROBLEMS, problem
from netlab.faults import Fault
from netlab.faulttarget import Target
from netlab.lab import Lab

WELL_WITHIN_S: Final = 90.0
Say = Callable[[str], None]


class FaultError(RuntimeError):
    """Something could not be broken; the text names it, what was in the way, and the next step."""


class NotHealedError(FaultError):
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
        mine = (self.fault.target, self.fault.how)
        _heal(lambda fault: (fault.target, fault.how) == mine, within_s, well.quiet)

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
    """Break one thing. Raises KeyError for an unknown target or way, NoClockError, FaultError, BusyError."""
    found = faulttarget.parse(target, lab.topology)
    faults.way(found.kind, how)
    if lab.state.bare and (found.node or found.kind not in ("link", "bird")):
        raise KeyError(f"this lab is bare: it has no {found.name}, only links and the BIRDs of its routers")
    fault = Fault(target=found.name, kind=found.kind, how=how, at_s=clock.wall_s())
    with faultbook.held():
        _break(Lab.running(), found, fault)
    return Breakage(found, fault)


def _break(lab: Lab, target: Target, fault: Fault) -> None:
    book = faultbook.entries()
    if old := faults.in_the_way(fault, book):
        raise FaultError(
            f"{old.target} is broken already ({old.how}), and both start the node again, so that one would "
            f"undo the other; `{old.remedy}` first"
        )
    faultbook.enter(fault)
    try:
        faultacts.HANDS[fault.kind][fault.how].apply(lab, target)
    except (faultclock.NoClockError, faultacts.NotThereError, faultdisk.NoRoomError) as error:
        if all((old.target, old.how) != (fault.target, fault.how) for old in book):
            faultbook.strike(fault)  # nothing was broken
        if isinstance(error, faultclock.NoClockError):
            raise
        raise FaultError(f"{fault.target} ({fault.how}): {problem(error)}") from error
    except PermissionError:
        raise
    except PROBLEMS as error:
        raise FaultError(
            f"{fault.target} ({fault.how}): {problem(error)}; what was done of it is in the book: "
            f"`{fault.remedy}` takes it back, and poplab heal starts what is dead too"
        ) from error


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
        return _heal(lambda _: True, within_s, say, everything=True)
    found = faulttarget.parse(target, lab.topology)
    if found.kind == "link" and all(fault.target != found.name for fault in faultbook.entries()):
        try:
            lab.wan.mend(*found.of)  # `poplab link` changes links too, and writes nothing down
        except PermissionError:
            raise
        except PROBLEMS as error:
            raise NotHealedError(f"not healed: {found.name}: {problem(error)}") from error
    return _heal(lambda fault: _belongs(fault.target, found), within_s, say)


def _belongs(name: str, target: Target) -> bool:
    """A node's parts are healed with it."""
    return name == target.name or (target.kind == "node" and name.startswith(f"{target.name}/"))


def _again(lab: Lab, healed: Fault) -> None:
    """A link is mended whole: what else was done to it is done again."""
    for fault in faultbook.entries() if healed.kind == "link" else ():
        if fault.target == healed.target:
            target = faulttarget.parse(fault.target, lab.topology)
            faultacts.HANDS[fault.kind][fault.how].apply(lab, target)


def _heal(
    wanted: Callable[[Fault], bool], within_s: float, say: Say, *, everything: bool = False
) -> list[Fault]:
    with faultbook.held():
        broken = [fault for fault in faultbook.entries() if wanted(fault)]
        problems = _undo(broken, say)
        if everything:
            dead = faultrevive.revive_all(say)
            # Settings can't be put right while who holds them is dead: now it lives.
            problems = [*dead, *_undo([fault for fault in faultbook.entries() if wanted(fault)], say)]
    if problems:
        raise NotHealedError(f"not healed: {'; '.join(problems)}")
    # A link that somebody made worse meanwhile is nothing that a single fault's healing mends.
    if everything or not (faultbook.entries() or faultlinks.unbooked(Lab.running())):
        well.wait_until_well(within_s, say)
    return broken


def _undo(broken: list[Fault], say: Say) -> list[str]:
    """Undo these and strike them out. Those that could not be, and why."""
    problems = []
    for at in faultacts.in_order([(fault.kind, fault.how) for fault in broken]):
        fault = broken[at]
        say(f"{fault.target}: {fault.way.undo}")
        lab = Lab.running()  # what an undoing started anew is seen by the next
        try:
            faultacts.HANDS[fault.kind][fault.how].undo(lab, faulttarget.parse(fault.target, lab.topology))
            faultbook.strike(fault)
            _again(lab, fault)
        except PermissionError:
            raise
        except PROBLEMS as error:
            problems.append(f"{fault.target} ({fault.how}): {problem(error)}")
    return problems
