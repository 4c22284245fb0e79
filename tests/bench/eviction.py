"""What the store's eviction saves, in seconds of cold starts, beside the policies that are on the market.

    python -m tests.bench.eviction [--json] [--seeds 10] [--first-seed 0]

Each policy of libcachesim runs in a forked child with an alarm: with big objects some of them crash or
hang. Sizes are in MiB there, as counts of bytes overflow in some. A column is cold seconds divided
by LRU's on the same stream, seed for seed. The constants of `edge.policy.worth` were chosen on seeds
100-119; no rule goes below the bound.
"""

import json
import math
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from statistics import mean
from typing import Final, NamedTuple

import click
import libcachesim

from tests.bench.traces import Shape, Trace, bound, cold_share, knows_the_future, knows_the_next_use, trace

SHARES: Final = (0.01, 0.05, 0.20, 0.50)
#: For these there is a goal.
GOAL_SHARES: Final = (0.05, 0.20)
OURS: Final = "ours"
RIVALS: Final = {"LRU": "LRU", "S3-FIFO": "S3FIFO", "SIEVE": "Sieve", "LFU": "LFU", "GDSF (size)": "GDSF"}
SEER: Final = "sees the next 300"
AHEAD: Final = 300
ALL_SEER: Final = "sees every next"
BOUND: Final = "bound"
ALARM_S: Final = 120
LRU_GOAL: Final = 0.80
S3FIFO_GOAL: Final = 1.02


class Row(NamedTuple):
    """One policy at one size: cold seconds left of all, by seed; NaN where it crashed or hung."""

    share: float
    policy: str
    cold: tuple[float, ...]


def in_child(work: Callable[[], float]) -> float:
    """A number from a forked child; NaN if it died or took ALARM_S."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(ALARM_S)
            os.write(writing, repr(work()).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return float(told) if told else math.nan


def rival(name: str, trace: Trace, capacity: int) -> float:
    """Cold seconds left with one policy of libcachesim."""
    cache = getattr(libcachesim, RIVALS[name])(capacity)
    cold_s = 0.0
    for model in trace.asked:
        request = libcachesim.Request(obj_id=model + 1, obj_size=trace.sizes[model])
        # It warns of what is larger than the whole of it.
        if trace.sizes[model] > capacity or not cache.get(request):
            cold_s += trace.cold_s[model]
    return cold_s / sum(trace.cold_s[model] for model in trace.asked)


def rows(traces: list[Trace], *, seer: bool = True) -> list[Row]:
    """All policies at all sizes."""
    made: list[Row] = []
    for share in SHARES:
        room = [(one, one.capacity(share)) for one in traces]
        made += [
            Row(share, name, tuple(in_child(partial(rival, name, one, size)) for one, size in room))
            for name in RIVALS
        ]
        made.append(Row(share, OURS, tuple(cold_share(one, size) for one, size in room)))
        if seer:
            seen = (cold_share(one, size, per_byte=knows_the_future(one, AHEAD)) for one, size in room)
            made.append(Row(share, SEER, tuple(seen)))
            seen = (cold_share(one, size, per_byte=knows_the_next_use(one)) for one, size in room)
            made.append(Row(share, ALL_SEER, tuple(seen)))
            made.append(Row(share, BOUND, tuple(bound(one, size) for one, size in room)))
    return made


def ratios(rows: list[Row], share: float, of: str, to: str) -> list[float]:
    """Seed for seed."""
    by = {row.policy: row.cold for row in rows if row.share == share}
    return [one / other for one, other in zip(by[of], by[to], strict=True)]


def text(rows: list[Row]) -> str:
    """The table, and what was aimed at."""
    lines = ["policy              share   cold left   / LRU mean (worst)   / S3-FIFO mean (worst)"]
    for row in rows:
        to_lru, to_fifo = (ratios(rows, row.share, row.policy, to) for to in ("LRU", "S3-FIFO"))
        lines.append(
            f"{row.policy:<18} {row.share:>5.0%} {mean(row.cold):>10.3f}"
            f"{mean(to_lru):>12.3f} ({max(to_lru):.3f}){mean(to_fifo):>14.3f} ({max(to_fifo):.3f})"
        )
    for share in GOAL_SHARES:
        lru, worst = mean(ratios(rows, share, OURS, "LRU")), max(ratios(rows, share, OURS, "S3-FIFO"))
        lines.append(
            f"{share:.0%} of bytes: {lru:.3f} of LRU (goal {LRU_GOAL}: {_met(lru, LRU_GOAL)}), "
            f"worst seed {worst:.3f} of S3-FIFO (goal {S3FIFO_GOAL}: {_met(worst, S3FIFO_GOAL)})"
        )
    return "\n".join(lines)


def _met(seen: float, goal: float) -> str:
    return "met" if seen <= goal else "missed"


@click.command()
@click.option("--seeds", type=click.IntRange(1, 100), default=10, show_default=True)
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print every number instead of the table.")
@click.option("--drift-every", type=click.IntRange(1), default=Shape().drift_every, show_default=True)
def main(seeds: int, first_seed: int, drift_every: int, *, as_json: bool) -> None:
    """Replay seeded streams against every policy."""
    shape = Shape(drift_every=drift_every)
    made = rows([trace(seed, shape) for seed in range(first_seed, first_seed + seeds)])
    if as_json:
        click.echo(json.dumps({"shape": shape._asdict(), "rows": [row._asdict() for row in made]}, indent=1))
    else:
        click.echo(text(made))


if __name__ == "__main__":
    sys.exit(main())
