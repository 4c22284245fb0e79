"""`python -m tests.bench.convergence`: how long a POP's clients wait when it, or a way to it, dies.

Round after round every event happens once in a lab with real nodes, is undone, and the planet is well
again before the next. The last rows need a planet without BFD, made of planet.yaml. A lab that ran before
is started again. What can happen is in tests/support/deaths.py and flaps.py, what is told in waitstable.py.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from netlab import planetfile, start
from netlab.clock import now_s
from netlab.keeper import Keeper
from netlab.lab import Lab
from tests.bench import flaps, machine
from tests.bench.waitstable import flap_table, summary, table
from tests.support.deaths import DEATHS, WITHOUT_BFD, Death
from tests.support.waits import Round, once

EVENTS: Final = (*(death.name for death in DEATHS), flaps.NAME, *(death.name for death in WITHOUT_BFD))
POP_BFD: Final = "  pop: {interval_ms: 100, multiplier: 3}"
#: One flap is ten events already.
FLAPS_PER_ROUND: Final = 0.5


def say(text: str) -> None:
    """Progress."""
    click.echo(text, err=True)


def without_bfd(folder: Path) -> Path:
    """planet.yaml, where a router misses a silent node by BGP alone."""
    text = planetfile.PLANET.read_text()
    if text.count(POP_BFD) != 1:
        raise click.ClickException(
            f"{planetfile.PLANET} has no line {POP_BFD!r}; write here what it says now"
        )
    file = folder / "without-bfd.yaml"
    file.write_text(text.replace(POP_BFD, "  pop: false"))
    return file


@contextmanager
def keeping() -> Iterator[Callable[[start.Wish], Lab]]:
    """Ask for planets; the machine is left as it was found."""
    keeper = Keeper(say, replaces=True)
    try:
        yield keeper.ensure
    finally:
        keeper.close()


class Progress:
    """One line per event: which, what came of it, how long it all took and will take."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._began_s = total, 0, now_s()

    def step(self, name: str, text: str) -> None:
        """One more is over."""
        self._done += 1
        took_s = now_s() - self._began_s
        left_s = took_s / self._done * (self._total - self._done)
        say(f"{self._done}/{self._total}  {took_s:4.0f} s, about {left_s:.0f} s left  {name:<15} {text}")


def told(rounded: Round) -> str:
    """What came of it, in a few words."""
    words = []
    for one in rounded.waits:
        after = "none came" if one.after_ms is None else f"{one.after_ms:.0f} ms"
        back = "" if one.back_ms is None else f", back {one.back_ms:.0f}"
        words.append(f"v{one.family} {after}{back}")
    return "  ".join(words) + (f"  late {rounded.crossed.late}" if rounded.crossed.late else "")


def measured(rounds: int, wanted: Callable[[str], bool]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row per death that is wanted, and the flap's, empty if it is not."""
    usual, bare = ([death for death in deaths if wanted(death.name)] for deaths in (DEATHS, WITHOUT_BFD))
    flapping = max(1, round(rounds * FLAPS_PER_ROUND)) if wanted(flaps.NAME) else 0
    progress = Progress(rounds * (len(usual) + len(bare)) + flapping)
    seen: dict[str, list[Round]] = {death.name: [] for death in (*usual, *bare)}
    rows: list[dict[str, Any]] = []

    def deaths_of(lab: Lab, deaths: list[Death]) -> None:
        for _ in range(rounds):
            for death in deaths:
                seen[death.name].append(once(death))
                progress.step(death.name, told(seen[death.name][-1]))
        rows.extend(summary(lab, death, seen[death.name]) for death in deaths)

    flapped = []
    with tempfile.TemporaryDirectory() as name, keeping() as ensure:
        if usual or flapping:
            deaths_of(ensure(start.Wish()), usual)
        for _ in range(flapping):
            flapped.append(flaps.once())
            text = (f"v{f} {one.failed} of {one.asked} failed" for f, one in flapped[-1][0].items())
            progress.step(flaps.NAME, "  ".join(text))
        if bare:
            deaths_of(ensure(start.Wish(planet=without_bfd(Path(name)))), bare)
    return rows, flaps.summary(flapped) if flapped else {}


@click.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(EVENTS), help="Repeat for several.")
@click.option("--json", "as_json", is_flag=True, help="Every round, as JSON.")
def main(rounds: int, only: tuple[str, ...], *, as_json: bool) -> None:
    """Let everything happen in turn, and print how long clients waited."""
    began_s = now_s()
    try:
        rows, flap = measured(rounds, lambda name: not only or name in only)
    except (start.MissingError, start.RefusedError) as error:
        raise click.ClickException(str(error)) from error
    facts = machine.facts()
    if as_json:
        click.echo(json.dumps({"machine": facts, "rounds": rounds, "events": rows, "flap": flap}, indent=1))
    else:
        click.echo("\n\n".join([table(rows)] * bool(rows) + [flap_table(flap)] * bool(flap)))
        took_s = now_s() - began_s
        click.echo(
            f"\n{rounds} rounds in {took_s:.0f} s. {facts['cores']} cores, {facts['processor']}, "
            f"load average {facts['load_average']} at the end."
        )
    sys.exit(1 if any(row["missed"] and not row["void"] for row in rows) else 0)


if __name__ == "__main__":
    main()
