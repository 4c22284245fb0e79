"""What can be broken on the planet, how, what its users then see, and what takes it back. Pure: tables.

    with lab.fail("fra-a/worker", "kill"):          # netlab/faultrun.py; a Breakage, healed at the end
        ...
    lab.fail("iad-fra", "cut"); lab.faults()        # [Fault(target="iad-fra", how="cut", at_s=..., ...)]
    lab.heal("iad-fra"); lab.heal()                 # one; all, and wait until the planet is well
    lab.wait_until_well(within_s=30)                # netlab/well.py: every check there is
    faulttarget.every(topology)                     # each target there is; with `ways`, all that can happen

A `Fault` is written into the lab's directory before it acts (faultbook.py), and its undoing
(faultacts.py) asks for nothing that only the process that broke it knew. This file refuses to know
processes, sockets and files.

Two ways are left out on purpose. `hang`, a process that is busy rather than stopped, can't be told
from `stop` by anybody outside it, and no program of ours spins on request. `slow` for a process would
take a CPU controller, which not every machine lends; an origin that is slow is `drip` and `stall`, a
link that is slow is `narrow` here, and anything else with `poplab link`.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from netlab.faultways import KINDS, WAYS, Kind, Way
from netlab.topology import unknown

#: What people call it elsewhere.
_MEANT: Final = {
    "crash": "kill",
    "die": "kill",
    "freeze": "stop",
    "hang": "stop",
    "pause": "stop",
    "vanish": "blackhole",
    "drop": "blackhole",
    "isolate": "blackhole",
    "disk-full": "full",
    "oom": "out-of-memory",
    "readonly": "read-only",
    "flushall": "flush",
    "password": "wrong-password",
    "down": "cut",
    "clock": "clock-ahead",
    "skew": "clock-ahead",
    "lose": "lossy",
    "loss": "lossy",
    "rate": "narrow",
    "500": "5xx",
    "503": "5xx",
    "200": "200-to-range",
}


def ways(kind: Kind) -> tuple[Way, ...]:
    """How a target of this kind can fail."""
    return tuple(way for way in WAYS if way.kind == kind)


def way(kind: Kind, how: str) -> Way:
    """The way of that name. Raises KeyError that says which fit this kind."""
    fitting = ways(kind)
    for one in fitting:
        if one.how == how:
            return one
    names = [one.how for one in fitting]
    meant = _MEANT.get(how.lower(), "")
    if how.lower() == "slow":
        meant = "narrow" if kind == "link" else "drip"
    hint = f"did you mean {meant}?" if meant in names else unknown(how, names, "way to fail").split("; ")[1]
    rest = "" if hint.startswith("there are") else f" ({', '.join(names)} fit it)"
    raise KeyError(f"a {kind} can't fail by {how!r}; {hint}{rest}")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault in force: what was broken, how, and when (wall clock, seconds since 1970)."""

    target: str
    kind: Kind
    how: str
    at_s: float

    @property
    def way(self) -> Way:
        """What is known of it."""
        return way(self.kind, self.how)

    @property
    def remedy(self) -> str:
        """The command that takes it back."""
        return f"poplab heal {self.target}"


def in_the_way(new: Fault, book: Iterable[Fault]) -> Fault | None:
    """What must be healed before: both take a restart of one node, and each restart undoes the other.

    Ways of parts that are not `slow` get along with everything.
    """
    if not new.way.slow:
        return None
    node = new.target.partition("/")[0]
    return next((old for old in book if old.way.slow and old.target.partition("/")[0] == node), None)


__all__ = ["KINDS", "WAYS", "Fault", "Kind", "Way", "in_the_way", "way", "ways"]
