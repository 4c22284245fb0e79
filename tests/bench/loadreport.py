"""Loads from a hot page cache -> ratios, shares and tables. Pure: no clock, no process, no terminal.

A ratio is taken within a round and then over the rounds: what disturbs the machine in one round disturbs
all that is measured in it.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any, Final, NamedTuple

#: The worker's way divided by the default session's, at 500 MB and above.
GOAL: Final = 0.2
#: Private memory until the prepacked swap, as a share of the weights, at 500 MB and above.
PRIVATE_GOAL: Final = 0.05
LARGE_BYTES: Final = 500_000_000

WAYS: Final = {"worker": "worker, Load to first answer", "default": "InferenceSession(path) to first answer"}


class Point(NamedTuple):
    """One way, once. Bytes are private memory beyond what the process had before the load.

    `private_bytes` after the first answer, `packed_bytes` after the prepacked swap (None where there
    is none), `left_bytes` after unloading; `load_s` is the part of `total_s` before the request.
    """

    way: str
    weights_bytes: int
    round: int
    total_s: float
    load_s: float
    private_bytes: int
    packed_bytes: int | None
    left_bytes: int


def ratio(points: Sequence[Point], weights_bytes: int) -> tuple[float, ...]:
    """Worker / default, one number per round in which both were measured."""
    above, below = (
        {
            point.round: point.total_s
            for point in points
            if (point.way, point.weights_bytes) == (way, weights_bytes)
        }
        for way in ("worker", "default")
    )
    return tuple(above[number] / below[number] for number in sorted(above.keys() & below.keys()))


def shares(points: Sequence[Point], weights_bytes: int, field: str) -> tuple[float, ...]:
    """A field of the worker's points as shares of the weights."""
    return tuple(
        getattr(point, field) / weights_bytes
        for point in points
        if (point.way, point.weights_bytes) == ("worker", weights_bytes)
    )


def verdicts(points: Sequence[Point]) -> list[dict[str, Any]]:
    """What is promised and what was measured; nothing is promised below LARGE_BYTES."""
    found = []
    for size in _sizes(points):
        rows = (
            ("worker / default, to first answer", ratio(points, size), GOAL),
            ("private memory until the swap / weights", shares(points, size, "private_bytes"), PRIVATE_GOAL),
            ("private memory after the swap / weights", shares(points, size, "packed_bytes"), None),
            ("private memory after unload / weights", shares(points, size, "left_bytes"), None),
        )
        for what, each, goal in rows:
            wanted = goal if size >= LARGE_BYTES else None
            met = None if wanted is None else median(each) <= wanted
            found.append(
                {
                    "what": what,
                    "weights_bytes": size,
                    "rounds": each,
                    "median": median(each),
                    "goal": wanted,
                    "met": met,
                }
            )
    return found


def document(points: Sequence[Point], machine: dict[str, Any]) -> dict[str, Any]:
    """Everything, for a program."""
    return {
        "machine": machine,
        "verdicts": verdicts(points),
        "points": [point._asdict() for point in points],
    }


def text(points: Sequence[Point], machine: dict[str, Any]) -> str:
    """Everything, for a person; the tables are Markdown."""
    lines = [f"{name}: {value}" for name, value in machine.items()]
    lines += ["", "| median (min-max) | MB | load, s | to first answer, s |", "|---|--:|--:|--:|"]
    for size in _sizes(points):
        for way, title in WAYS.items():
            mine = [point for point in points if (point.way, point.weights_bytes) == (way, size)]
            loads, totals = [one.load_s for one in mine], [one.total_s for one in mine]
            lines.append(f"| {title} | {size / 1e6:.0f} | {_shown(loads)} | {_shown(totals)} |")
    lines += ["", "| median (min-max) | MB | | wanted |", "|---|--:|--:|---|"]
    for row in verdicts(points):
        verdict = "-" if row["goal"] is None else f"<= {row['goal']:.2f}: {'met' if row['met'] else 'MISSED'}"
        lines.append(
            f"| {row['what']} | {row['weights_bytes'] / 1e6:.0f} | {_shown(row['rounds'])} | {verdict} |"
        )
    return "\n".join(lines)


def _sizes(points: Sequence[Point]) -> list[int]:
    return sorted({point.weights_bytes for point in points}, reverse=True)


def _shown(each: Sequence[float]) -> str:
    return f"{median(each):.3f} ({min(each):.3f}-{max(each):.3f})"
