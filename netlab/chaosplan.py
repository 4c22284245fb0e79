"""What is broken when: a schedule drawn from a seed. Pure.

    plan(topology, seed=7, seconds=120.0)     # the same arguments, the same schedule

Rules: at most `AT_ONCE` things are broken at a time, never two of one place, never every ingress,
ways that restart a node only every `SLOW_EVERY_S`; it begins and ends with a calm, and every fault
is healed before the last one. It refuses to know how anything is broken.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from netlab import faults, faulttarget
from netlab.faulttarget import Target
from netlab.topology import Topology

AT_ONCE: Final = 2
#: Calm before the first fault and after the last one, and their share of a short run at most.
LEAD_S: Final = 5.0
TAIL_S: Final = 15.0
LEAD_SHARE: Final = 0.15
TAIL_SHARE: Final = 0.3
#: How long a fault lasts, and until the next one begins.
LASTS_S: Final = (2.0, 9.0)
GAP_S: Final = (0.5, 6.0)
#: Some gaps are long enough for the planet to be quiet in them.
LONG_GAP_S: Final = 35.0
LONG_GAP_SHARE: Final = 0.1
SLOW_EVERY_S: Final = 60.0
#: How often a kind is drawn: what users feel more often than what they don't.
WEIGHTS: Final = {
    "node": 3,
    "parent": 2,
    "proxy": 4,
    "weights": 2,
    "worker": 4,
    "bird": 2,
    "redis": 2,
    "origin": 2,
    "link": 4,
}

Conditions = dict[str, float | int | bool]
#: Conditions of a link that no row of netlab/faults.py has: what `WanHandle.set` takes.
LINKS: Final[dict[str, Conditions]] = {
    "jittery": {"jitter_ms": 20.0, "loss": 0.005},
    "reordered": {"reorder": 0.02, "jitter_ms": 3.0},
    "small-packets": {"mtu_bytes": 1280},
}
#: An operator's doing rather than a fault: an ingress node is drained, and takes part again.
DRAIN: Final = "drain"


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One fault, in seconds after the first request. `conditions` is set for what `LINKS` names."""

    at_s: float
    until_s: float
    target: str
    kind: str
    how: str
    conditions: Conditions = {}

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} to {self.until_s:6.1f} s  {self.target}  {self.how}"


class Choice(msgspec.Struct, frozen=True):
    """A target and one of its ways. No two faults of one `place`; `ingress`: nodes it may take from users."""

    target: Target
    how: str
    slow: bool
    place: str
    ingress: frozenset[str]


def plan(topology: Topology, *, seed: int, seconds: float) -> tuple[Planned, ...]:
    """The schedule, by its beginnings. A run too short for its calms has none."""
    draw = random.Random(f"chaos {seed}")  # noqa: S311 -- what is wanted is the same again
    ingress = frozenset(node.name for node in topology.nodes if node.ingress)
    every = tuple(choices(topology))
    at_s = min(LEAD_S, LEAD_SHARE * seconds)
    end_s = seconds - min(TAIL_S, TAIL_SHARE * seconds)
    planned: list[Planned] = []
    active: list[tuple[float, Choice]] = []
    slow_at_s = 0.0
    while True:
        until_s = at_s + draw.uniform(*LASTS_S)
        if until_s > end_s:
            return tuple(planned)
        active = [(until, choice) for until, choice in active if until > at_s]
        slow_too = at_s - slow_at_s >= SLOW_EVERY_S
        broken = [choice for _, choice in active]
        found = [c for c in every if (slow_too or not c.slow) and _fits(broken, c, ingress)]
        if found:
            choice = _drawn(draw, found)
            slow_at_s = at_s if choice.slow else slow_at_s
            active.append((until_s, choice))
            planned.append(_planned(at_s, until_s, choice))
        at_s += draw.uniform(*GAP_S)
        if draw.random() < LONG_GAP_SHARE:
            at_s += LONG_GAP_S


def _planned(at_s: float, until_s: float, choice: Choice) -> Planned:
    target = choice.target
    conditions = LINKS.get(choice.how, {}) if target.kind == "link" else {}
    return Planned(
        at_s=round(at_s, 1),
        until_s=round(until_s, 1),
        target=target.name,
        kind=target.kind,
        how=choice.how,
        conditions=conditions,
    )


def choices(topology: Topology) -> Iterator[Choice]:
    """Everything that can be drawn."""
    for target in faulttarget.every(topology):
        where, ingress = place(target), ingress_of(topology, target)
        for way in faults.ways(target.kind):
            yield Choice(target, way.how, way.slow, where, ingress)
        if target.kind == "node" and ingress:
            yield Choice(target, DRAIN, False, where, ingress)
        if target.kind == "link":
            for how in LINKS:
                yield Choice(target, how, False, where, ingress)


def _drawn(draw: random.Random, found: Sequence[Choice]) -> Choice:
    """First a kind, by its weight, then a target of it, then a way."""
    kinds = sorted({choice.target.kind for choice in found})
    kind = draw.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
    targets = sorted({choice.target.name for choice in found if choice.target.kind == kind})
    name = draw.choice(targets)
    return draw.choice([choice for choice in found if choice.target.name == name])


def _fits(broken: Sequence[Choice], choice: Choice, ingress: frozenset[str]) -> bool:
    """Whether one more may be broken: the rules."""
    if len(broken) >= AT_ONCE or choice.place in [other.place for other in broken]:
        return False
    hit = choice.ingress.union(*(other.ingress for other in broken))
    return not choice.ingress or hit < ingress


def place(target: Target) -> str:
    """What two faults may not share."""
    if target.node:
        return target.node
    return target.of[0] if target.kind == "bird" else target.name


def ingress_of(topology: Topology, target: Target) -> frozenset[str]:
    """The ingress nodes that users may not reach while it is broken."""
    if target.kind == "bird":
        return frozenset(
            node.name
            for node in topology.nodes
            if node.ingress and target.of[0] in (f"r-{node.pop}", node.name)
        )
    if target.kind in ("node", "parent", "proxy") and topology.node(target.node).ingress:
        return frozenset({target.node})
    return frozenset()
