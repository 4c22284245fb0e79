"""How long will it take until this model is here? Pure.

What a transfer took is learned as a line, `ms = fixed + bytes / rate`, per source: a small model is
mostly round trips and a large one mostly bytes, and one rate for both is wrong for both. The line is
fitted by least squares of *relative* errors (a second too many is much for a small model and nothing
for a large one), and forgets: an origin that was slow yesterday says little of today. Until enough was
seen, a guess weighs in, as a shape: a single transfer tells how far off all of it is.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from edge.policy.facts import Rates, Tier
from edge.policy.score import FETCH_FIXED_MS, REGION_FIXED_MS

#: What one observation still weighs when the next one has come.
KEEP: Final = 0.9
#: What a guess weighs beside one observation.
GUESS_WEIGHT: Final = 0.02
#: Sizes at which a guess is taken for an observation, in MiB.
_GUESSED_AT: Final = (1.0, 64.0)
_MIB: Final = float(1 << 20)
#: What moved less tells only of round trips, and not even of all of them.
LEAST_BYTES: Final = 64 * 1024
#: For how long what was seen last is believed as it is.
BELIEVED_MS: Final = 10_000.0
NETWORK: Final = (Tier.REGION, Tier.FAR, Tier.ORIGIN)


class Guess(NamedTuple):
    """What is believed of a source that was not measured yet."""

    fixed_ms: float
    bytes_per_ms: float


class Seen(NamedTuple):
    """Sums over what was seen, each of `n` observations weighed by 1 / ms^2; `x` is MiB, `y` ms."""

    n: float = 0.0
    w: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0


def after(seen: Seen, moved_bytes: int, took_ms: float) -> Seen:
    """What is known once so many bytes took so long; what can't be teaches nothing."""
    if moved_bytes < LEAST_BYTES or took_ms <= 0.0:
        return seen
    return _plus(Seen(*(KEEP * value for value in seen)), moved_bytes / _MIB, took_ms, 1.0)


def _plus(seen: Seen, x: float, y: float, weight: float) -> Seen:
    return _weighed(seen, x, y, weight / (y * y))._replace(n=seen.n + weight)


def _weighed(seen: Seen, x: float, y: float, w: float) -> Seen:
    return Seen(seen.n, seen.w + w, seen.x + w * x, seen.y + w * y, seen.xx + w * x * x, seen.xy + w * x * y)


def expect_ms(seen: Seen, size_bytes: int, guess: Guess) -> float:
    """How long so many bytes will take from a source of which this was seen."""
    fixed, slope = guess.fixed_ms, _MIB / max(guess.bytes_per_ms, 1e-9)
    if seen.n <= 0.0:
        return fixed + slope * size_bytes / _MIB
    scale, by_bytes = _guessed_wrong(seen, fixed, slope)
    weight = GUESS_WEIGHT * seen.w / seen.n
    for x in _GUESSED_AT:
        seen = _weighed(seen, x, scale * fixed + by_bytes * slope * x, weight)
    spread = seen.w * seen.xx - seen.x * seen.x
    slope = (seen.w * seen.xy - seen.x * seen.y) / spread if spread > 0.0 else 0.0
    fixed = (seen.y - slope * seen.x) / seen.w
    if slope <= 0.0 or fixed < 0.0:
        # Noise: larger ones seemed quicker, or nothing at all to take less than no time.
        slope, fixed = seen.xy / seen.xx, 0.0
    return fixed + slope * size_bytes / _MIB


def _guessed_wrong(seen: Seen, fixed: float, slope: float) -> tuple[float, float]:
    """By which factors the guess was off: its fixed part, and its part by bytes.

    What was small tells of waits and round trips; the rate is blamed as far as bytes were the matter.
    """
    scale = (fixed * seen.y + slope * seen.xy) / (
        fixed * fixed * seen.w + 2.0 * fixed * slope * seen.x + slope * slope * seen.xx
    )
    by_bytes = slope * seen.xy / (fixed * seen.y + slope * seen.xy)
    return scale, scale**by_bytes


def doubted_ms(expected_ms: float, hoped_ms: float, age_ms: float) -> float:
    """What to expect of a source that was last seen `age_ms` ago.

    Who is expected to be slow is not asked, and would be slow for ever: so what exceeds the hope halves
    with each BELIEVED_MS that nobody tried.
    """
    halved = math.ldexp(expected_ms, -int(max(0.0, age_ms) // BELIEVED_MS))
    return max(halved, min(expected_ms, hoped_ms))


def shared_bytes(own_bytes: int, others: Iterable[int]) -> int:
    """Bytes that the path will have moved when `own_bytes` are here, which `others` share it with fairly.

    Each of these moves no more than this one while this one moves, and no more than it has left.
    """
    return own_bytes + sum(min(own_bytes, max(0, other)) for other in others)


def guess_of(source: Tier, rates: Rates) -> Guess:
    """What to believe of a source, from the rates that the weight store measured of its chunks."""
    match source:
        case Tier.REGION:
            return Guess(REGION_FIXED_MS, rates.region)
        case Tier.FAR:
            return Guess(FETCH_FIXED_MS, rates.far)
        case _:
            return Guess(FETCH_FIXED_MS, rates.origin)


def estimate(fetches_ms: Mapping[Tier, float], *, wait_ms: float, load_ms: float) -> dict[Tier, float]:
    """Seconds until a model is on a device, by where its weights lie: `fetches_ms` until they are here.

    `wait_ms` until the device can begin a load, which passes while weights come; `load_ms` its load.
    """
    return {source: (max(wait_ms, fetch_ms) + load_ms) / 1000.0 for source, fetch_ms in fetches_ms.items()}


def error_ratio(expected_ms: float, took_ms: float) -> float:
    """How wrong an expectation was, as a ratio of the truth."""
    return abs(expected_ms - took_ms) / max(took_ms, 1e-3)
