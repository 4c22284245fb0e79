"""Cold starts -> ratios and tables. Pure: no clock, no process, no terminal.

A ratio is taken within a round and then over the rounds: what disturbs the machine in one round disturbs
all that is measured in it.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any, Final, NamedTuple

WAYS: Final = {
    "transfer": "transfer alone",
    "ours": "miss to first answer (popctl serve)",
    "naive": "download, then hash, then default session",
    "s3": "miss to first answer, origin a real S3 server (localbucket), no cap",
}
#: Those measured over one link, in each round.
COMPARED: Final = ("transfer", "ours", "naive")
#: (of, to, at least so many bytes, at most so many, the most that the ratio may be)
GOALS: Final = (
    ("ours", "transfer", 500_000_000, 1 << 62, 1.10),
    ("ours", "transfer", 0, 100_000_000, 1.25),
    ("ours", "naive", 500_000_000, 1 << 62, 0.55),
)


class Point(NamedTuple):
    """One way, once; `parts` are what it told of itself."""

    way: str
    size_bytes: int
    round: int
    total_s: float
    parts: dict[str, Any]


class Ratio(NamedTuple):
    """`of` divided by `to` at one size, one number per round; `goal` None where nothing is promised."""

    of: str
    to: str
    size_bytes: int
    rounds: tuple[float, ...]
    goal: float | None

    @property
    def middle(self) -> float:
        """The median over the rounds."""
        return median(self.rounds)

    @property
    def verdict(self) -> str:
        """Is what was promised kept?"""
        if self.goal is None:
            return "-"
        return f"<= {self.goal:.2f}: {'met' if self.middle <= self.goal else 'MISSED'}"


def ratios(points: Sequence[Point]) -> list[Ratio]:
    """What was measured in the same round, largest model first."""
    found = []
    for size in sorted({point.size_bytes for point in points}, reverse=True):
        for of, to in (("ours", "transfer"), ("ours", "naive")):
            above, below = (
                {p.round: p.total_s for p in points if (p.way, p.size_bytes) == (way, size)}
                for way in (of, to)
            )
            each = tuple(above[number] / below[number] for number in sorted(above.keys() & below.keys()))
            if each:
                found.append(Ratio(of, to, size, each, _goal(of, to, size)))
    return found


def _goal(of: str, to: str, size: int) -> float | None:
    return next((goal for a, b, low, high, goal in GOALS if (a, b) == (of, to) and low <= size <= high), None)


def line(point: Point) -> str:
    """One point, for who waits."""
    parts = ", ".join(f"{key} {_shown(value)}" for key, value in point.parts.items())
    return f"{point.size_bytes / 1e6:>4.0f} MB  {point.way:<9} {point.total_s:6.3f} s  {parts}"


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def document(points: Sequence[Point], machine: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything, for a program."""
    return {
        "machine": machine,
        "settings": settings,
        "ratios": [
            {**one._asdict(), "median": round(one.middle, 4), "verdict": one.verdict}
            for one in ratios(points)
        ],
        "points": [point._asdict() for point in points],
    }


def text(points: Sequence[Point], machine: dict[str, Any]) -> str:
    """Everything, for a person; the tables are Markdown."""
    lines = [f"{name}: {value}" for name, value in machine.items()]
    lines += ["", "| seconds, median (min-max) | MB | s | MB/s |", "|---|--:|--:|--:|"]
    for size in sorted({point.size_bytes for point in points}, reverse=True):
        for way, title in WAYS.items():
            each = [point.total_s for point in points if (point.way, point.size_bytes) == (way, size)]
            if each:
                seconds = f"{median(each):.3f} ({min(each):.3f}-{max(each):.3f})"
                lines.append(f"| {title} | {size / 1e6:.0f} | {seconds} | {size / 1e6 / median(each):,.0f} |")
    lines += ["", "| ratio within a round, median (min-max) | MB | | wanted |", "|---|--:|--:|---|"]
    for one in ratios(points):
        each = f"{one.middle:.3f} ({min(one.rounds):.3f}-{max(one.rounds):.3f})"
        title = f"{WAYS[one.of]} / {WAYS[one.to]}"
        lines.append(f"| {title} | {one.size_bytes / 1e6:.0f} | {each} | {one.verdict} |")
    return "\n".join(lines)
