"""Mend what is broken without anybody's order: thaw what is stopped, start what is dead.

It looks at the lab's programs, not at the book. It refuses to know how each is started (faultacts.py).
"""

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from netlab import regions, state, supervise, wanprogram
from netlab.birds import process_name
from netlab.chaosnodes import quieten
from netlab.faultacts import HANDS, PROBLEMS, problem
from netlab.faulttarget import Target, every
from netlab.faultways import Kind
from netlab.handles import NodeHandle
from netlab.lab import Lab

Say = Callable[[str], None]
_PROCESS: Final[dict[Kind, Callable[[Target], str]]] = {
    "node": lambda target: target.node,
    "bird": lambda target: process_name(target.of[0]),
    "redis": lambda target: regions.process_name(target.of[0]),
    "origin": lambda target: target.name,
}


def revive_all(say: Say) -> list[str]:
    """Every program of the lab, and every link as on the planet. What could not be mended, and why."""
    problems = list(_tried(wanprogram.NAME, partial(_revive_wan, say)))
    for target in every(Lab.running().topology):
        for how in ("stop", "kill") if target.kind in _PROCESS else ():
            lab = Lab.running()  # what was started anew is seen by the next
            if why := _ails(lab, target, how):
                say(why)
                problems += _tried(target.name, partial(HANDS[target.kind][how].undo, lab, target))
    problems += _tried("links", Lab.running().wan.mend)
    if not Lab.running().state.bare and quieten():
        say("a chaos that was killed left the nodes telling of every request: they stop")
    for node in Lab.running().topology.nodes:
        problems += _tried(node.name, partial(_call_back, Lab.running().node(node.name), say))
    return problems


def _call_back(node: NodeHandle, say: Say) -> None:
    """Undo what an operator asked of it: a drain, a withdrawal. Its parent keeps both over restarts."""
    if node.up and node.held("drained"):
        say(f"{node.name} is drained: it takes requests again")
        node.undrain()
    if node.up and node.held("withdrawn"):
        say(f"{node.name} is withdrawn: it announces again")
        node.announce()


def _tried(name: str, work: Callable[[], None]) -> Iterator[str]:
    try:
        work()
    except PROBLEMS as error:
        yield f"{name}: {problem(error)}"


def _revive_wan(say: Say) -> None:
    process = state.process(wanprogram.NAME)
    if process is None:
        return
    if not supervise.alive(process):
        say("wan is dead: it is started again")
        wanprogram.restart(Lab.running().topology)
    elif supervise.stopped(process.pid):
        say("wan is stopped: it goes on")
        os.kill(process.pid, signal.SIGCONT)


def _ails(lab: Lab, target: Target, how: str) -> str:
    """What `how` would explain; empty when nothing, and where this lab has no such program."""
    process = next((p for p in lab.state.processes if p.name == _PROCESS[target.kind](target)), None)
    if process is None:
        return ""
    pids = lab.node(target.node).pids() if target.kind == "node" else [process.pid]
    if how == "kill":
        return "" if supervise.alive(process) else f"{process.name} is dead: it is started again"
    stopped = supervise.alive(process) and any(supervise.stopped(pid) for pid in pids)
    return f"{process.name} is stopped: it goes on" if stopped else ""
