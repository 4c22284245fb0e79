"""`poplab chaos`: break the planet by a seed under load, and judge what its users saw.

stdout carries the verdict, stderr the progress. It refuses to know how any of it is done.
"""

import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netlab.told import FAILURE, INTERRUPTED, fail, say, told_of_changes

if TYPE_CHECKING:
    from netlab.chaosplan import Planned
    from netlab.chaosrun import Progress, Report

#: Without a terminal a line of progress comes so seldom.
TELL_EVERY_S = 10.0
MAX_TOLD = 8


@click.command("chaos")
@click.option("--seed", type=click.IntRange(0), help="What is broken when; drawn and told if left out.")
@click.option("--minutes", type=click.FloatRange(0.1, 600), default=2.0, show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(0.1, 1000),
    default=20.0,
    show_default=True,
    help="Requests/s of all cities.",
)
@click.option(
    "--history",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where every event goes, a JSON line each; a new file in the temporary directory if left out.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be broken when, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def chaos(
    seed: int | None, minutes: float, rate: float, history: Path | None, *, dry_run: bool, as_json: bool
) -> None:
    """Users ask in every city while things break; was every request answered right, or refused as promised?

    Exit code 1 when not: then the seed and the shortest timeline of a failure are printed.
    """
    from netlab import chaosplan, chaosrun
    from netlab.lab import Lab

    with told_of_changes():
        lab = Lab.running()
        seed = random.SystemRandom().randrange(1 << 31) if seed is None else seed
        if dry_run:
            planned = chaosplan.plan(lab.topology, seed=seed, seconds=minutes * 60)
            _show_plan(seed, planned, as_json=as_json)
            return
        if lab.state.bare:
            fail("this lab is bare: chaos needs nodes; `poplab down`, then poplab up without --bare", FAILURE)
        wish = chaosrun.Wish(
            seed=seed, seconds=minutes * 60, rate_per_s=rate, history=history or _fresh(seed)
        )
        say(f"seed {seed}, {minutes:g} min, {rate:g} requests/s; history in {wish.history}")
        try:
            report = chaosrun.run(lab, wish, say, _teller())
        except (RuntimeError, OSError) as error:
            fail(str(error) or type(error).__name__, FAILURE)
        click.echo(json.dumps(_values(report), indent=1) if as_json else report_text(report))
        if report.interrupted:
            fail("interrupted; all is healed", INTERRUPTED)
        if report.full:
            fail(f"it ended early: {wish.history} is full; ask for fewer minutes or a lower rate", FAILURE)
        if not report.verdict.good:
            sys.exit(FAILURE)


def _fresh(seed: int) -> Path:
    return Path(tempfile.mkdtemp(prefix="poplab-chaos-")) / f"seed-{seed}.jsonl"


def _show_plan(seed: int, planned: "tuple[Planned, ...]", *, as_json: bool) -> None:
    import msgspec

    if as_json:
        faults = [msgspec.structs.asdict(one) for one in planned]
        click.echo(json.dumps({"schema_version": 1, "seed": seed, "faults": faults}, indent=1))
    else:
        click.echo("\n".join([f"seed {seed}: {len(planned)} faults", *(f"  {one}" for one in planned)]))


def _teller() -> "Callable[[Progress], None]":
    """A line that stays in its place on a terminal, one now and then elsewhere."""
    there = sys.stderr.isatty()
    told_at_s: list[float] = []

    def tell(seen: "Progress") -> None:
        text = (
            f"{seen.left_s:5.0f} s left  {seen.asked} asked, {seen.answered} right, "
            f"{seen.refused} refused, {seen.lost} lost; broken: {', '.join(seen.broken) or 'nothing'}"
        )
        if there:
            click.echo(f"\r\033[K{text}", err=True, nl=False)
        elif not told_at_s or told_at_s[-1] - seen.left_s >= TELL_EVERY_S:
            told_at_s.append(seen.left_s)
            say(text)

    return tell


def report_text(report: "Report") -> str:
    """The verdict for a person."""
    found = report.verdict
    lines = [
        f"seed {report.wish.seed}: {found.asked} requests, "
        f"{found.broken} of {len(report.planned)} planned faults done",
        *(f"  {count:6d}  {word}" for word, count in found.outcomes.items()),
        f"  {found.executions} executions at most (bound {found.bound}), {found.forwards} forwards",
        f"  {found.unexpected} refusals while nothing was broken",
    ]
    if found.good:
        return "\n".join([*lines, "every request ended in one allowed way; the planet is well"])
    lines.append(f"{len(found.problems)} times what is not allowed:")
    lines += [f"  {problem.id} {problem.what}".rstrip() for problem in found.problems[:MAX_TOLD]]
    if found.timeline:
        lines += ["the shortest timeline:", *(f"  {line}" for line in found.timeline)]
    again = f"poplab chaos --seed {report.wish.seed} --minutes {report.wish.seconds / 60:g}"
    return "\n".join([*lines, f"again: {again} --rate {report.wish.rate_per_s:g}"])


def _values(report: "Report") -> dict[str, Any]:
    import msgspec

    return {
        "schema_version": 1,
        "seed": report.wish.seed,
        "seconds": report.wish.seconds,
        "rate_per_s": report.wish.rate_per_s,
        "history": str(report.wish.history),
        "interrupted": report.interrupted,
        "full": report.full,
        "good": report.verdict.good,
        "faults": [msgspec.structs.asdict(one) for one in report.planned],
        **msgspec.to_builtins(report.verdict),
    }
