"""Seeded streams of cold-start requests, and the store's own eviction replayed over one. Pure.

What real fleets ask for is not public; this is a shape that such streams have: few models take most
requests (Zipf 0.9), sizes are log-normal over three decades, popularity drifts, a model that nobody
asked for is suddenly asked for by everybody, and some are three times as far away as the others.
"""

import math
import random
from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise
from typing import Final, NamedTuple

from edge.policy.worth import Uses, Worth, worth
from edge.weights.budget import Entry, Fits, Refused, Shelf, make_room

MIB_PER_S: Final = 1_000.0
FIXED_S: Final = 0.5
DEARER: Final = 3.0


class Shape(NamedTuple):
    """A kind of stream. Sizes in MiB; every `drift_every` requests a share of the models change places."""

    models: int = 400
    requests: int = 12_000
    zipf: float = 0.9
    median_mib: float = 500.0
    sigma: float = 1.5
    least_mib: float = 20.0
    most_mib: float = 16_000.0
    drift_every: int = 200
    drift_share: float = 0.02
    burst_chance: float = 1 / 600
    burst_requests: int = 12
    dearer_share: float = 0.25


class Trace(NamedTuple):
    """Sizes in MiB and cold seconds by model; then who is asked for, in order."""

    sizes: list[int]
    cold_s: list[float]
    asked: list[int]

    def capacity(self, share: float) -> int:
        """So much of all bytes."""
        return int(sum(self.sizes) * share)


def trace(seed: int, shape: Shape | None = None) -> Trace:
    """The same for the same seed."""
    shape, draw = shape or Shape(), random.Random(seed)
    sizes, cold_s = [], []
    for _ in range(shape.models):
        mib = draw.lognormvariate(math.log(shape.median_mib), shape.sigma)
        sizes.append(round(min(shape.most_mib, max(shape.least_mib, mib))))
        far = DEARER if draw.random() < shape.dearer_share else 1.0
        cold_s.append(far * (sizes[-1] / MIB_PER_S + FIXED_S))
    popular = list(range(shape.models))
    draw.shuffle(popular)
    weights = [1 / (rank + 1) ** shape.zipf for rank in range(shape.models)]
    ranks = draw.choices(range(shape.models), weights, k=shape.requests)
    burst: list[int] = []
    asked: list[int] = []
    for number, rank in enumerate(ranks):
        if number and number % shape.drift_every == 0:
            for _ in range(int(shape.models * shape.drift_share)):
                one, other = draw.randrange(shape.models), draw.randrange(shape.models)
                popular[one], popular[other] = popular[other], popular[one]
        if draw.random() < shape.burst_chance:
            burst += [popular[draw.randrange(shape.models // 2, shape.models)]] * shape.burst_requests
        asked.append(burst.pop() if burst and draw.random() < 0.5 else popular[rank])
    return Trace(sizes, cold_s, asked)


def cold_share(trace: Trace, capacity: int, *, per_byte: Callable[[int, int], Worth] | None = None) -> float:
    """Cold seconds left of all that would be cold without a disk, with the store's own eviction.

    `per_byte(model, now)` replaces what a model is worth, to show what another rule would do.
    """
    uses = Uses()
    value = per_byte or (
        lambda model, _: worth(trace.sizes[model], uses.frequency(str(model)), trace.cold_s[model])
    )
    here: dict[int, float] = {}
    used, cold_s = 0, 0.0
    for now, model in enumerate(trace.asked):
        uses.used(str(model))
        size = trace.sizes[model]
        if model not in here:
            cold_s += trace.cold_s[model]
            if size > capacity:
                continue
            if used + size > capacity:
                uses.find_room(len(here))
                used -= _evict(here, trace, value, now, (capacity, size))
            used += size
        here[model] = float(now)
    return cold_s / sum(trace.cold_s[model] for model in trace.asked)


def _evict(
    here: dict[int, float],
    trace: Trace,
    value: Callable[[int, int], Worth],
    now: int,
    room: tuple[int, int],
) -> int:
    """Let go of what `edge.weights.budget.make_room` says; what is free then."""
    entries = [
        Entry(str(model), Shelf.BLOBS, trace.sizes[model], at, movable=True, worth=value(model, now))
        for model, at in here.items()
    ]
    match make_room(entries, *room):
        case Fits(victims):
            gone = [int(key) for key in victims]
            for model in gone:
                del here[model]
            return sum(trace.sizes[model] for model in gone)
        case Refused(missing):
            raise ValueError(f"{room[1]} MiB do not fit into {room[0]}: {missing} are missing")


def knows_the_future(trace: Trace, ahead: int) -> Callable[[int, int], Worth]:
    """What a model is worth to one who knows the next `ahead` requests: no rule for sale does better."""
    times = _times(trace)

    def value(model: int, now: int) -> Worth:
        wanted = bisect_right(times[model], now + ahead) - bisect_right(times[model], now)
        return worth(trace.sizes[model], float(wanted), trace.cold_s[model])

    return value


def knows_the_next_use(trace: Trace) -> Callable[[int, int], Worth]:
    """What a model is worth to one who knows when each is wanted next: Belady's rule by cost and size."""
    times = _times(trace)

    def value(model: int, now: int) -> Worth:
        later = bisect_right(times[model], now)
        soon = 1.0 / (times[model][later] - now) if later < len(times[model]) else 0.0
        return worth(trace.sizes[model], soon, trace.cold_s[model])

    return value


def bound(trace: Trace, capacity: int) -> float:
    """Cold seconds left that no rule can go below, whatever it knows, even one that need not keep a newcomer.

    Keeping a model until its next use takes size x requests of a room of capacity x requests; the
    cheapest of these are kept, the last in part (PFOO-L; Berger, Beckmann, Harchol-Balter 2018).
    """
    kept: list[tuple[float, float]] = []
    for model, times in enumerate(_times(trace)):
        if trace.sizes[model] <= capacity:
            kept += [
                (trace.sizes[model] * (later - now), trace.cold_s[model]) for now, later in pairwise(times)
            ]
    all_s = left_s = sum(trace.cold_s[model] for model in trace.asked)
    room = float(capacity * len(trace.asked))
    for taken, cold_s in sorted(kept, key=lambda one: one[0] / one[1]):
        left_s -= cold_s * min(1.0, room / taken)
        room -= taken
        if room <= 0:
            break
    return left_s / all_s


def _times(trace: Trace) -> list[list[int]]:
    """When each model is asked for."""
    times: list[list[int]] = [[] for _ in trace.sizes]
    for now, model in enumerate(trace.asked):
        times[model].append(now)
    return times
