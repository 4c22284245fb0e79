"""`python -m tests.bench`: one interleaved run, a table, and an honest exit status.

Round after round each server is loaded in turn, so that what disturbs the machine disturbs
all of them. The run fails on a wrong answer, and on an error in any server's log.
"""

import contextlib
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import click
import pytest

from edge.errors import EdgeError
from tests.bench import contestants, machine, report, workload
from tests.bench.contestants import Contestant
from tests.bench.faults import faults
from tests.bench.report import Point
from tests.bench.workload import WrongAnswer
from tests.support.node import STORE

COUNTS: Final = (1, 8, 32)
MIXED: Final = 640
FAULTS_SHOWN: Final = 20


class Spoiled(Exception):  # noqa: N818 -- it is named after what happened to the run
    """A server logged what it must not log."""


@contextlib.contextmanager
def started(names: Sequence[str], directory: Path) -> Iterator[list[Contestant]]:
    """The servers of these names, all running; their logs are in `directory` afterwards."""
    model = contestants.published()
    makers = {
        "direct": lambda: contestants.direct(directory, model),
        "frames": lambda: contestants.frames(directory, model, COUNTS),
        "door": lambda: contestants.door(directory, COUNTS),
        "node": lambda: contestants.node(directory, COUNTS),
        "aiohttp": lambda: contestants.plain(directory, model, COUNTS, "asyncio"),
        "aiohttp-uvloop": lambda: contestants.plain(directory, model, COUNTS, "uvloop"),
    }
    with contextlib.ExitStack() as stack:
        running = []
        for name in names:
            say(f"start {name}")
            running.append(stack.enter_context(makers[name]()))
        yield running


def measure(one: Contestant, connections: int, number: int, seconds: int) -> Point:
    """One point. Raises WrongAnswer."""
    one.ask([workload.numbers(1000 * number + connections)])
    before_s = machine.tree_cpu_s(one.pid) if one.pid is not None else 0.0
    load = one.load(connections, seconds)
    used_s = machine.tree_cpu_s(one.pid) - before_s if one.pid is not None else load.cpu_s
    return Point(
        one.name,
        connections,
        number,
        load.answers,
        load.answers / load.seconds,
        load.p50_us,
        used_s / load.answers * 1e6,
        load.cpu_s / load.seconds,
    )


def rounds(running: Sequence[Contestant], count: int, seconds: int, directory: Path) -> list[Point]:
    """All points. Each round begins with another server. Raises WrongAnswer or Spoiled."""
    for one in running:
        one.ask([workload.numbers(seed) for seed in range(MIXED)])
        one.load(max(one.connections), 1)
    points = []
    for number in range(1, count + 1):
        first = (number - 1) % len(running)
        for one in [*running[first:], *running[:first]]:
            for connections in one.connections:
                point = measure(one, connections, number, seconds)
                points.append(point)
                say(
                    f"round {number}/{count}  {one.name:<14} c={connections:<3}"
                    f"{point.per_s:>9,.0f}/s  p50 {point.p50_us:>7,.0f} us  CPU {point.cpu_us:>5.0f} us"
                )
        refuse_faults(directory)
    return points


def refuse_faults(directory: Path) -> None:
    """Raise Spoiled if any log has a line that it must not have."""
    for path in directory.glob("*.log"):
        found = faults(path.read_text(errors="replace"))
        if found:
            shown = "\n".join(found[:FAULTS_SHOWN])
            raise Spoiled(f"{path.name}: {len(found)} lines that spoil the run:\n{shown}")


def say(line: str) -> None:
    """Progress."""
    click.echo(line, err=True)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@click.command()
@click.option("--rounds", "count", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--seconds", type=click.IntRange(1, 60), default=2, show_default=True, help="Of each point.")
@click.option("--quick", is_flag=True, help="2 rounds of 1 s: does it run at all?")
@click.option("--json", "as_json", is_flag=True, help="Print the whole run as JSON instead of tables.")
@click.option("--only", multiple=True, type=click.Choice(list(report.TITLES)), help="Repeat for several.")
def main(count: int, seconds: int, *, quick: bool, as_json: bool, only: tuple[str, ...]) -> None:
    """Load every server in turn, round after round, and print the ratios."""
    if shutil.which("wrk") is None:
        raise click.ClickException("wrk is not here; install the package wrk, or run: make bench")
    if not (STORE / "catalog.json").exists():
        raise click.ClickException("models/store is empty; run: make models")
    if quick:
        count, seconds = 2, 1
    signal.signal(signal.SIGTERM, _terminated)
    names = [name for name in report.TITLES if not only or name in only]
    with tempfile.TemporaryDirectory(prefix="edgepop-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # the node's children have uids of their own
        facts = machine.facts()
        try:
            with started(names, directory) as running:
                points = rounds(running, count, seconds, directory)
            refuse_faults(directory)
        except (WrongAnswer, Spoiled, EdgeError, RuntimeError, OSError, BaseExceptionGroup) as failed:
            raise click.ClickException(f"this run is worth nothing: {_innermost(failed)}") from None
        except pytest.fail.Exception as failed:
            raise click.ClickException(f"the node did not start: {failed}") from None
        except KeyboardInterrupt:
            say("interrupted; everything is stopped")
            sys.exit(130)
    if as_json:
        settings = {"rounds": count, "seconds": seconds, "connections": list(COUNTS)}
        click.echo(json.dumps(report.document(points, facts, settings), indent=1))
    else:
        click.echo(report.text(points, facts))


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    sys.exit(main())
