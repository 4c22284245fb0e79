"""A node's cable that is out for half a second and in for half a second, ten times, and what users see.

Users in Berlin ask from just before until their own POP answers again, over IPv4 and IPv6, on a new connection
each time. `judged` is pure.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, Final

import msgspec

from netlab.clock import now_s, pause_s, wait_until
from netlab.lab import Lab
from netlab.wanwatch import Seen
from tests.bench.steady import Asked, Steady
from tests.support.deaths import plug_in, unplug
from tests.support.waits import FAMILIES, WELL_WITHIN_S, settle

NAME: Final = "flap"
SENTENCE: Final = "the node's cable out and in at 1 Hz for 10 s"
NODE, CITY, HOME = "fra-a", "ber", "fra"
TIMES: Final = 10
HALF_S: Final = 0.5
PER_S: Final = 20.0
PATIENCE_S: Final = 1.0
BEFORE: Final = 5


class Flapped(msgspec.Struct, frozen=True):
    """One family's requests: how many failed, of what, and how often another POP answered."""

    asked: int
    failed: int
    changes: int
    instead: dict[str, int]


def judged(asked: Sequence[Asked]) -> Flapped:
    """From requests in the order in which they were begun; a change is between two that were answered."""
    pops = [one.pop for one in asked if one.pop]
    instead = Counter(one.instead for one in asked if not one.pop)
    changes = sum(one != other for one, other in pairwise(pops))
    return Flapped(len(asked), instead.total(), changes, dict(instead))


def once() -> tuple[dict[int, Flapped], Seen]:
    """Ten times out and in; the planet is well afterwards. Raises DeadlineMissed."""
    lab = Lab.running()
    user, node = lab.city(CITY), lab.node(NODE)
    settle(user, HOME)
    users = {family: Steady(user, family, per_s=PER_S, patience_s=PATIENCE_S) for family in FAMILIES}
    with ExitStack() as running:
        for one in users.values():
            running.enter_context(one)
            wait_until(lambda one=one: len(one.asked) >= BEFORE, "users are served", within_s=10)
        with lab.wan.watch() as window:
            began_s = now_s()
            try:
                for half in range(2 * TIMES):
                    (plug_in if half % 2 else unplug)(node)
                    pause_s(max(0.0, began_s + (half + 1) * HALF_S - now_s()))
            finally:
                plug_in(node)
            settle(user, HOME)
    Lab.running().heal(within_s=WELL_WITHIN_S)
    return {family: judged(one.asked) for family, one in users.items()}, window.seen()


def summary(rounds: Sequence[tuple[dict[int, Flapped], Seen]]) -> dict[str, Any]:
    """Of all rounds: the share that failed, in the median round and the worst, and how often the POP changed."""
    row: dict[str, Any] = {"event": NAME, "sentence": SENTENCE, "rounds": len(rounds)}
    for family in FAMILIES:
        seen = sorted((ends[family] for ends, _ in rounds), key=lambda one: one.failed / one.asked)
        middle, worst = seen[len(seen) // 2], seen[-1]
        changes = sorted(one.changes for one in seen)
        row[f"v{family}"] = {
            "failed_median": round(middle.failed / middle.asked, 4),
            "failed_worst": round(worst.failed / worst.asked, 4),
            "changes_median": changes[len(changes) // 2],
            "changes_worst": changes[-1],
            "instead": dict(sum((Counter(one.instead) for one in seen), Counter[str]())),
        }
    crossed = Seen(sum(seen.frames for _, seen in rounds), sum(seen.late for _, seen in rounds))
    return row | {"frames": crossed.frames, "late": crossed.late, "void": crossed.void}
