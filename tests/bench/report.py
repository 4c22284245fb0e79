"""Points -> medians, ratios, tables and the document. Pure: no clock, no process, no terminal.

A ratio is taken within a round and then over the rounds: two servers are compared only with
what was measured beside them, since the machine may be twice as slow a minute later.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any, Final, NamedTuple

GOAL: Final = 2.0
HEADLINE: Final = ("node", "aiohttp", 32)

TITLES: Final = {
    "direct": "session.run, no HTTP",
    "frames": "worker over frames",
    "door": "front door alone",
    "node": "whole path (popctl serve)",
    "aiohttp": "plain aiohttp, model inline",
    "aiohttp-uvloop": "plain aiohttp on uvloop",
}
#: (of, to): each is given per number of connections, as throughput and as CPU time.
RATIOS: Final = (
    ("node", "aiohttp"),
    ("node", "aiohttp-uvloop"),
    ("node", "door"),
    ("node", "frames"),
    ("frames", "direct"),
)


class Point(NamedTuple):
    """One server under one load in one round. `load_share` is of one core, for the load generator."""

    server: str
    connections: int
    round: int
    answers: int
    per_s: float
    p50_us: float
    cpu_us: float
    load_share: float


class Ratio(NamedTuple):
    """`of` divided by `to`, one number per round in which both were measured."""

    of: str
    to: str
    connections: int
    unit: str
    rounds: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median over the rounds."""
        return median(self.rounds)

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({min(self.rounds):.2f}-{max(self.rounds):.2f})"


def ratio(points: Sequence[Point], of: str, to: str, connections: int, unit: str) -> Ratio | None:
    """The ratio by `unit` ("per_s" or "cpu_us"), or None if no round has both.

    `session.run` has no connections: it is compared with each of their numbers.
    """
    above = {point.round: point for point in points if (point.server, point.connections) == (of, connections)}
    below = {
        point.round: point for point in points if point.server == to and point.connections in (connections, 0)
    }
    rounds = tuple(
        getattr(above[number], unit) / getattr(below[number], unit)
        for number in sorted(above.keys() & below.keys())
        if getattr(below[number], unit) > 0
    )
    return Ratio(of, to, connections, unit, rounds) if rounds else None


def ratios(points: Sequence[Point]) -> list[Ratio]:
    """All of RATIOS that were measured."""
    every = sorted({point.connections for point in points} - {0})
    found = (
        ratio(points, of, to, connections, unit)
        for of, to in RATIOS
        for connections in every
        for unit in ("per_s", "cpu_us")
    )
    return [one for one in found if one is not None]


def summary(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Medians over the rounds, one row per server and number of connections."""
    rows = []
    for server in TITLES:
        for connections in sorted({point.connections for point in points if point.server == server}):
            mine = [point for point in points if (point.server, point.connections) == (server, connections)]
            rows.append(
                {
                    "server": server,
                    "connections": connections,
                    "rounds": len(mine),
                    "per_s": median(point.per_s for point in mine),
                    "p50_us": median(point.p50_us for point in mine),
                    "cpu_us": median(point.cpu_us for point in mine),
                    "load_share": median(point.load_share for point in mine),
                }
            )
    return rows


def headline(points: Sequence[Point]) -> Ratio | None:
    """The number that the project promises something about."""
    of, to, connections = HEADLINE
    return ratio(points, of, to, connections, "per_s")


def document(points: Sequence[Point], machine: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything, for a program."""
    first = headline(points)
    return {
        "machine": machine,
        "settings": settings,
        "headline": first and {**_ratio_fields(first), "goal": GOAL, "met": first.middle >= GOAL},
        "ratios": [_ratio_fields(one) for one in ratios(points)],
        "summary": summary(points),
        "points": [point._asdict() for point in points],
    }


def _ratio_fields(one: Ratio) -> dict[str, Any]:
    return {
        **one._asdict(),
        "rounds": [round(value, 4) for value in one.rounds],
        "median": round(one.middle, 4),
        "min": round(min(one.rounds), 4),
        "max": round(max(one.rounds), 4),
    }


def text(points: Sequence[Point], machine: dict[str, Any]) -> str:
    """Everything, for a person; the tables are Markdown."""
    lines = [f"{name}: {value}" for name, value in machine.items()]
    rows = [
        (
            TITLES[row["server"]],
            str(row["connections"] or "-"),
            f"{row['per_s']:,.0f}",
            f"{row['p50_us']:,.0f}" if row["connections"] else f"{row['p50_us']:.1f}",
            f"{row['cpu_us']:.0f}" if row["connections"] else f"{row['cpu_us']:.1f}",
            f"{row['load_share']:.0%}" if row["connections"] else "-",
        )
        for row in summary(points)
    ]
    head = ("median over the rounds", "c", "answers/s", "p50 us", "CPU us", "load")
    lines += ["", *_table(head, rows), ""]
    by_pair: dict[tuple[str, str, int], dict[str, Ratio]] = {}
    for one in ratios(points):
        by_pair.setdefault((one.of, one.to, one.connections), {})[one.unit] = one
    compared = [
        (
            f"{TITLES[of]} / {TITLES[to]}",
            str(c),
            *(str(units[u]) if u in units else "-" for u in ("per_s", "cpu_us")),
        )
        for (of, to, c), units in by_pair.items()
    ]
    titles = ("ratio within a round: median (min-max)", "c", "answers/s", "CPU per answer")
    lines += [*_table(titles, compared), ""]
    first = headline(points)
    if first is not None:
        verdict = "met" if first.middle >= GOAL else "MISSED"
        what = f"{TITLES[first.of]} / {TITLES[first.to]} at {first.connections} connections"
        lines.append(f"{what}: {first}, wanted >= {GOAL}: {verdict}")
    lines.append(
        "CPU us: of the server's processes, per answer. load: CPU of the load generator, of one core."
    )
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    rule = [f"{'-' * (width + 1)}{':' if column else '-'}" for column, width in enumerate(widths)]
    return [_row(head, widths), f"|{'|'.join(rule)}|", *(_row(row, widths) for row in rows)]


def _row(cells: tuple[str, ...], widths: Sequence[int]) -> str:
    name, *others = cells
    padded = [
        name.ljust(widths[0]),
        *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)),
    ]
    return f"| {' | '.join(padded)} |"
