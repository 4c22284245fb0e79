"""`python -m tests.bench.bfd`: does BFD cry wolf on a busy machine, and how soon does it miss a silent node?

The planet with stand-ins for nodes and BFD on POP and WAN sessions, then so many busy processes for so
long: every BGP session that BFD tore down meanwhile is a false alarm. Then fra-a falls silent (both
ends drop what arrives, before any rule of the kernel's) and a user in Berlin knocks until Amsterdam
answers. Starts a lab of its own; none may run.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from netlab import birdctl, names, planetfile, start, state
from netlab.clock import DeadlineMissed, now_s, pause_s, wait_until
from netlab.lab import Lab
from tests.support.silence import silence

STANDIN: Final = (sys.executable, "-m", "tests.support.standin")
LOOK_EVERY_S: Final = 0.5
#: A session that fell takes a second at least to stand again.
SAME_WITHIN_S: Final = 0.5


def say(text: str) -> None:
    """Progress."""
    click.echo(text, err=True)


def wanted(
    folder: Path, interval_ms: int, multiplier: int, wan_interval_ms: int, wan_multiplier: int
) -> Path:
    """planet.yaml with these BFD timers."""
    text = planetfile.PLANET.read_text()
    pop = f"  pop: {{interval_ms: {interval_ms}, multiplier: {multiplier}}}"
    wan = f"  wan: {{interval_ms: {wan_interval_ms}, multiplier: {wan_multiplier}}}"
    lines = [
        pop if line.startswith("  pop: {interval_ms") else wan if line.startswith("  wan: false") else line
        for line in text.splitlines()
    ]
    file = folder / "planet.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


@contextmanager
def running(interval_ms: int, multiplier: int, wan_interval_ms: int, wan_multiplier: int) -> Iterator[Lab]:
    """A lab for as long as this runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "catalog.json").write_text("{}")
        planet = wanted(folder, interval_ms, multiplier, wan_interval_ms, wan_multiplier)
        lab, fresh = start.up(start.Wish(planet=planet, models=folder, program=STANDIN), say)
        if not fresh:
            raise click.ClickException("a lab runs already; `poplab down` first")
        try:
            yield lab
        finally:
            start.down()


def established(lab: Lab) -> dict[tuple[str, str], float | None]:
    """(router, session) -> since which second of the day it stands; None for one that is down."""
    found: dict[tuple[str, str], float | None] = {}
    for pop in lab.topology.pops:
        for line in birdctl.ask(state.bird_control(f"r-{pop.name}"), "show protocols"):
            words = line.split()
            if len(words) > 4 and words[1] == "BGP":
                hours, minutes, seconds = words[4].split(":")
                since_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
                found[pop.name, words[0]] = since_s if "Established" in words else None
    return found


def alarms(lab: Lab, seconds: float, busy: int) -> dict[str, Any]:
    """Sessions that fell while nothing was wrong, per kind."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    lost = {"node": 0, "wan": 0}
    before = established(lab)
    count = {kind: sum(name.startswith(kind) for _, name in before) for kind in lost}
    try:
        until_s = now_s() + seconds
        while now_s() < until_s:
            pause_s(LOOK_EVERY_S)
            now = established(lab)
            for key, since in now.items():
                was = before[key]
                # BIRD works the time of day out anew for each answer: it wavers by a millisecond.
                if was is not None and (since is None or abs(since - was) > SAME_WITHIN_S):
                    lost["wan" if key[1].startswith("wan") else "node"] += 1
            before = now
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    return {"busy": busy, "seconds": seconds, "sessions": count, "lost": lost}


def silent_ms(lab: Lab, family: int) -> float | None:
    """From the moment fra-a falls silent to an answer from ams, begun after it and whole."""
    ends = ((names.node("fra-a"), 'iifname "eth0"'), (names.router("fra"), 'iifname "lan"'))
    ber = lab.city("ber")
    ber.wait_until_served_by("fra", within_ms=20_000, family=family)
    started_s, waited_ms = now_s(), None
    with silence(ends):
        try:
            ber.wait_until_served_by("ams", within_ms=10_000, family=family)
            waited_ms = (now_s() - started_s) * 1000
        except DeadlineMissed:
            say("nobody answered in 10 s")
    wait_until(lambda: None not in established(lab).values(), "the sessions stand again", within_s=20)
    return waited_ms


@click.command()
@click.option("--seconds", type=click.FloatRange(1, 600), default=60, show_default=True)
@click.option("--busy", type=click.IntRange(0, 64), default=2, show_default=True, help="Busy processes.")
@click.option(
    "--rounds", type=click.IntRange(0, 100), default=5, show_default=True, help="Of falling silent."
)
@click.option(
    "--pop", nargs=2, type=int, default=(100, 3), show_default=True, help="Interval in ms, multiplier."
)
@click.option(
    "--wan", nargs=2, type=int, default=(300, 5), show_default=True, help="Interval in ms, multiplier."
)
def main(seconds: float, busy: int, rounds: int, pop: tuple[int, int], wan: tuple[int, int]) -> None:
    """Count false alarms, then measure true ones; one JSON document."""
    try:
        with running(*pop, *wan) as lab:
            found: dict[str, Any] = {"pop": pop, "wan": wan, "alarms": alarms(lab, seconds, busy)}
            say(str(found))
            waits: dict[int, list[float | None]] = {family: [] for family in (4, 6)}
            for _ in range(rounds):
                for family, seen in waits.items():
                    seen.append(silent_ms(lab, family))
                    say(f"silent, IPv{family}: {seen[-1] or -1:.0f} ms")
    except (start.MissingError, start.RefusedError) as error:
        raise click.ClickException(str(error)) from error
    found["silent_ms"] = {
        f"v{family}": {
            "rounds": [None if one is None else round(one) for one in seen],
            "median": round(statistics.median([one or float("inf") for one in seen])) if seen else None,
        }
        for family, seen in waits.items()
    }
    click.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
