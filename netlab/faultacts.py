"""The hands of the fault table: how each way of failing is done to a running lab, and undone.

Undoing looks at what is there and asks for no memory of the deed, so that any process can do it, at
any time, twice. Faults that change settings can't be undone while who holds the settings is stopped
or dead: `UNDO_RANK` is the order. It refuses to know what is recorded and who waits for what.
"""

import http.client
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from netlab import faultclock, faultdisk, faultport, names, supervise
from netlab.apply import ApplyError
from netlab.birds import BirdHandle, process_name
from netlab.clock import DeadlineMissed
from netlab.faulttarget import Target
from netlab.faultways import Kind
from netlab.lab import Lab
from netlab.regions import RedisHandle
from netlab.resp import RedisError
from netlab.state import BusyError
from netlab.store import OriginHandle
from netlab.supervise import ProgramFailedError
from netlab.wanhandle import WanHandle

Act = Callable[[Lab, Target], None]

#: What doing or undoing may raise: what the handles of the lab raise. The one list of it.
PROBLEMS: Final = (
    OSError,
    LookupError,
    RuntimeError,
    http.client.HTTPException,
    ApplyError,
    BusyError,
    RedisError,
    DeadlineMissed,
    ProgramFailedError,
    subprocess.SubprocessError,  # popctl, which drains and undrains, may not come to its end
)


def problem(error: BaseException) -> str:
    """One of PROBLEMS as a part of a sentence."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return text or type(error).__name__


class NotThereError(LookupError):
    """Nothing was broken, since what should be has no process now; the text says what to do."""


class Hands(msgspec.Struct, frozen=True):
    """How one way of failing is done and undone. Both may raise PROBLEMS."""

    apply: Act
    undo: Act
    #: Undone in this order: the network carries and the frozen go on, the dead live, settings are right.
    rank: int = 0


RESTART_WITHIN_S: Final = 60.0

# -- nodes -----------------------------------------------------------------------------------


def _signal(number: signal.Signals) -> Act:
    def act(lab: Lab, target: Target) -> None:
        node = lab.node(target.node)
        if not node.signal(number, *target.of):
            next_step = (
                "its parent starts another one: try again in a moment"
                if node.up
                else "poplab heal starts what is dead"
            )
            raise NotThereError(f"it has no process now; {next_step}")

    return act


def _thaw(lab: Lab, target: Target) -> None:
    lab.node(target.node).signal(signal.SIGCONT, *target.of)


def _revive(lab: Lab, target: Target) -> None:
    """Whoever has a parent gets its children back from it; whoever has none is started again."""
    node = lab.node(target.node)
    if not node.up:
        faultclock.remember(node.pids())
        node.end()
        node.restart(RESTART_WITHIN_S)


def _port(act: Callable[[str, str], None]) -> Act:
    def on_port(lab: Lab, target: Target) -> None:
        pop = lab.topology.node(target.node).pop if target.node else lab.topology.origin.pop
        act(names.router(pop), target.name)

    return on_port


def _fill(lab: Lab, target: Target) -> None:
    node = lab.node(target.node)
    faultdisk.require_room(node.home)
    node.end()
    faultdisk.move(node.home)
    node.restart(RESTART_WITHIN_S)
    faultdisk.fill(node.home)


def _unfill(lab: Lab, target: Target) -> None:
    node = lab.node(target.node)
    if faultdisk.is_full(node.home):
        node.end()
        faultdisk.clear(node.home)
    _revive(lab, target)  # also where an earlier deed or undoing was cut off


def _skew(offset: str) -> Hands:
    """The node is started again under another wall clock; its monotonic clock is the kernel's."""

    def act(lab: Lab, target: Target) -> None:
        wanted = faultclock.environment(offset)
        node = lab.node(target.node)
        node.end()
        node.restart(RESTART_WITHIN_S, **wanted)
        faultclock.remember(node.pids())

    def undo(lab: Lab, target: Target) -> None:
        node = lab.node(target.node)
        if any(faultclock.is_skewed(pid) for pid in node.pids("parent")):
            faultclock.remember(node.pids())
            node.end()
        _revive(lab, target)  # also where an earlier deed or undoing was cut off
        faultclock.sweep()

    return Hands(act, undo, rank=1)


# -- BIRD ------------------------------------------------------------------------------------


def _bird(lab: Lab, target: Target) -> BirdHandle:
    place = target.of[0]
    process = next((p for p in lab.state.processes if p.name == process_name(place)), None)
    if process is None:
        raise KeyError(f"{place} has no BIRD in this lab")
    return BirdHandle(place, process)


# -- Redis -----------------------------------------------------------------------------------


def _redis(lab: Lab, target: Target) -> RedisHandle:
    return lab.region(target.of[0]).redis


def _setting(name: str, wrong: str) -> Hands:
    """A setting is wrong until it is what redis.conf says, or Redis's own default, "0"."""

    def write(lab: Lab, target: Target) -> None:
        _redis(lab, target).cli("CONFIG", "SET", name, wrong)

    def put_back(lab: Lab, target: Target) -> None:
        redis = _redis(lab, target)
        redis.cli("CONFIG", "SET", name, redis.configured(name) or "0")

    return Hands(write, put_back, rank=2)


def _wrong_password(lab: Lab, target: Target) -> None:
    redis = _redis(lab, target)
    for node in lab.topology.nodes_of(target.of[0]):
        redis.cli("ACL", "SETUSER", node.name, "resetpass", ">not-what-it-knows")
        redis.cli("CLIENT", "KILL", "USER", node.name)


def _right_password(lab: Lab, target: Target) -> None:
    redis = _redis(lab, target)
    for node in lab.topology.nodes_of(target.of[0]):
        redis.cli("ACL", "SETUSER", node.name, "resetpass", f">{lab.node(node.name).redis_password()}")


def _flush(lab: Lab, target: Target) -> None:
    _redis(lab, target).cli("FLUSHALL")


def _nothing(lab: Lab, target: Target) -> None:
    pass


# -- the origin and the links ----------------------------------------------------------------


def _lie(kind: str) -> Hands:
    def act(lab: Lab, target: Target) -> None:
        lab.origin.heal(kind)  # a second time is not twice as much
        lab.origin.fail(kind, "")

    return Hands(act, lambda lab, target: lab.origin.heal(kind), rank=2)


def _start_origin(lab: Lab, target: Target) -> None:
    if not supervise.alive(lab.origin.process):
        lab.origin.restart()


def _link(change: Callable[[WanHandle, str, str], None]) -> Hands:
    def act(lab: Lab, target: Target) -> None:
        one, other = target.of
        change(lab.wan, one, other)

    def mend(lab: Lab, target: Target) -> None:
        one, other = target.of
        lab.wan.mend(one, other)

    return Hands(act, mend)


def _stop(handle: Callable[[Lab, Target], BirdHandle | RedisHandle | OriginHandle]) -> Hands:
    def stop(lab: Lab, target: Target) -> None:
        program = handle(lab, target)
        if not supervise.alive(program.process):
            raise NotThereError("it has no process now; poplab heal starts what is dead")
        program.signal(signal.SIGSTOP)

    return Hands(stop, lambda lab, target: handle(lab, target).signal(signal.SIGCONT))


LOSS: Final = 0.3
NARROW_BPS: Final = 1_000_000

_PART: Final = {
    "kill": Hands(_signal(signal.SIGKILL), _revive, rank=1),
    "stop": Hands(_signal(signal.SIGSTOP), _thaw),
}
_PORT: Final = Hands(_port(faultport.vanish), _port(faultport.reappear))
_LIES: Final = ("5xx", "stall", "drip", "cut", "corrupt", "200-to-range")

HANDS: Final[dict[Kind, dict[str, Hands]]] = {
    "node": _PART
    | {
        "blackhole": _PORT,
        "full": Hands(_fill, _unfill, rank=1),
        "clock-ahead": _skew("+3600"),
        "clock-behind": _skew("-3600"),
    },
    "parent": _PART,
    "proxy": _PART,
    "weights": _PART,
    "worker": _PART,
    "bird": {
        "kill": Hands(
            lambda lab, target: _bird(lab, target).kill(),
            lambda lab, target: _bird(lab, target).start(),
            rank=1,
        ),
        "stop": _stop(_bird),
    },
    "redis": {
        "kill": Hands(
            lambda lab, target: _redis(lab, target).kill(),
            lambda lab, target: _redis(lab, target).start(),
            rank=1,
        ),
        "stop": _stop(_redis),
        "flush": Hands(_flush, _nothing, rank=2),
        "wrong-password": Hands(_wrong_password, _right_password, rank=2),
        "read-only": _setting("min-replicas-to-write", "1"),
        "out-of-memory": _setting("maxmemory", "1"),
    },
    "origin": {
        "kill": Hands(lambda lab, target: lab.origin.kill(), _start_origin, rank=1),
        "stop": _stop(lambda lab, target: lab.origin),
        "blackhole": _PORT,
        **{kind: _lie(kind) for kind in _LIES},
    },
    "link": {
        "cut": _link(lambda wan, one, other: wan.cut(one, other)),
        "one-way": _link(lambda wan, one, other: wan.cut(one, other, direction="there")),
        "lossy": _link(lambda wan, one, other: wan.set(one, other, loss=LOSS)),
        "narrow": _link(lambda wan, one, other: wan.set(one, other, rate_bps=NARROW_BPS)),
    },
}


def in_order(faults: Sequence[tuple[Kind, str]]) -> list[int]:
    """Indices of `faults` in the order in which they are to be undone."""
    return sorted(range(len(faults)), key=lambda at: HANDS[faults[at][0]][faults[at][1]].rank)
