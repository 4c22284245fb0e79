"""`python -m tests.bench.withdrawals`: how long a POP's clients wait when it dies, and when it says goodbye.

Round after round every death happens once in a lab with real nodes; a user knocks over IPv4 and
IPv6 together and the time ends with a whole answer to a request begun after the event. Starts a
lab where none runs, and takes that one down again. What can happen is in tests/support/deaths.py.
"""

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click

from netlab import start
from netlab.lab import Lab
from tests.support.deaths import DEATHS, FAMILIES, Death, Waited, once

NAMES: Final = [death.name for death in DEATHS]


def say(text: str) -> None:
    """Progress."""
    click.echo(text, err=True)


@contextmanager
def running() -> Iterator[Lab]:
    """The lab that is up, or one for as long as this runs."""
    lab, fresh = start.up(start.Wish(), say)
    try:
        yield lab
    finally:
        if fresh:
            start.down()


def rtts(lab: Lab, deaths: Sequence[Death]) -> dict[str, dict[str, float]]:
    """Median handshake of 20 before anything happens, per user and family, with the POP that answers."""
    found: dict[str, dict[str, float]] = {}
    for death in deaths:
        user = death.user(lab)
        if (name := f"{user.name} to {death.home}") not in found:
            found[name] = {f"v{family}": round(user.connect_ms(family=family), 2) for family in FAMILIES}
    return found


def frames(lab: Lab) -> tuple[int, int]:
    """Frames that crossed the WAN so far, and how many of them left more than 2 ms late."""
    pairs = lab.fabric().get("pairs", [])
    return sum(pair["frames"] for pair in pairs), sum(pair["late"] for pair in pairs)


def summary(lab: Lab, death: Death, waits: Sequence[Waited]) -> dict[str, Any]:
    """Median and worst per family, in ms."""
    rows: dict[str, Any] = {
        "event": death.name,
        "sentence": death.sentence,
        "bound_ms": death.bound_ms,
        "rtt_ms": death.rtt_ms(lab),
        "allowed_ms": death.allowed_ms(lab),
        "missed": 0,
    }
    for family in FAMILIES:
        seen = [one for one in waits if one.family == family]
        times = sorted(one.after_ms for one in seen if one.after_ms is not None)
        rows["missed"] += len(seen) - len([ms for ms in times if ms <= rows["allowed_ms"]])
        rows[f"v{family}"] = {
            "rounds_ms": [None if one.after_ms is None else round(one.after_ms, 1) for one in seen],
            "median_ms": round(statistics.median(times), 1) if times else None,
            "worst_ms": round(times[-1], 1) if len(times) == len(seen) else None,
            "refused": sum(one.refused for one in seen),
        }
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| event | v4 median / worst, ms | v6 median / worst, ms | bound + 2 RTT, ms |",
        "|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{_ms(row[f]['median_ms'])} / {_ms(row[f]['worst_ms'])}" for f in ("v4", "v6")]
        bound = f"{row['bound_ms']:.0f} + 2 x {row['rtt_ms']:.0f}" + (" **missed**" if row["missed"] else "")
        lines.append(f"| {row['sentence']} | {cells[0]} | {cells[1]} | {bound} |")
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "none came" if value is None else f"{value:.0f}"


@click.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=10, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Repeat for several.")
@click.option("--json", "as_json", is_flag=True, help="Every round, as JSON.")
def main(rounds: int, only: tuple[str, ...], *, as_json: bool) -> None:
    """Let every death happen in turn, and print how long clients waited."""
    deaths = [death for death in DEATHS if not only or death.name in only]
    waits: dict[str, list[Waited]] = {death.name: [] for death in deaths}
    try:
        with running() as lab:
            before = rtts(lab, deaths)
            frames_before = frames(lab)
            for number in range(1, rounds + 1):
                for death in deaths:
                    seen = once(death)
                    waits[death.name] += seen
                    told = "  ".join(f"v{one.family} {_ms(one.after_ms)} ms" for one in seen)
                    say(f"round {number}/{rounds}  {death.name:<14} {told}")
            crossed, late = (now - then for now, then in zip(frames(lab), frames_before, strict=True))
            rows = [summary(lab, death, waits[death.name]) for death in deaths]
    except (start.MissingError, start.RefusedError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(
            json.dumps(
                {"rounds": rounds, "rtts": before, "frames": crossed, "late_frames": late, "events": rows},
                indent=1,
            )
        )
    else:
        click.echo(table(rows))
        told = "; ".join(f"{name} {ms['v4']} / {ms['v6']}" for name, ms in before.items())
        click.echo(
            f"\n{rounds} rounds. Handshakes before, v4 / v6, ms: {told}. Late frames meanwhile: {late} of {crossed}."
        )
    sys.exit(1 if any(row["missed"] for row in rows) else 0)


if __name__ == "__main__":
    main()
