"""`python -m tests.bench.index`: what losing the region's Redis costs, and how far behind a mirror is.

Flushed with 10,000 blobs: until another node's mirror is whole again under the new epoch, by the
clock, and what Redis and both nodes (one process here) computed for it. A mirror's lag: from a
change on one node until another one has applied it. A real node's warm requests while Redis is up,
and while it is killed, frozen, flushed, read-only, set back to an old dump, or lets nobody in, see
tests.bench.indexnode.
"""

import asyncio
import json
import os
from statistics import median, quantiles
from typing import Any, Final

import click

from edge import clock
from tests.bench import indexnode, machine
from tests.support.indexnodes import joined, numbered
from tests.support.redis import RedisServer, running
from tests.support.wait import wait_until

BLOBS: Final = 10_000
GOAL_MS: Final = 1_000


def cpu_ms(server: RedisServer) -> float:
    """What this process and Redis have computed so far."""
    spent: Any = server.admin.info("cpu")
    ours = os.times()
    return 1000 * float(ours.user + ours.system + spent["used_cpu_user"] + spent["used_cpu_sys"])


async def flushed(count: int) -> list[tuple[float, float]]:
    """(milliseconds by the clock, of CPU) until all blobs are known again, `count` times."""
    told = []
    with running("us", ("iad-a", "iad-b")) as server:
        async with joined(server, "iad-a", "iad-b", disks=[{}, numbered(BLOBS)]) as (a, b):
            for _ in range(count + 1):
                await wait_until(lambda: a.index._mirror.held_by("iad-b") == set(b.disk), within_s=30)
                await wait_until(lambda: a.index.state().epoch == b.index.state().epoch)
                epoch = a.index.state().epoch
                server.flush()
                begun_ms, cpu_begun_ms = clock.now_ms(), cpu_ms(server)
                await wait_until(lambda epoch=epoch: a.index.state().epoch != epoch, every_s=0.002)
                await wait_until(lambda: len(a.index._mirror._at) == BLOBS, within_s=30, every_s=0.002)
                told.append((clock.now_ms() - begun_ms, cpu_ms(server) - cpu_begun_ms))
    return told[1:]


async def lags(count: int) -> list[float]:
    """Milliseconds from a change on one node until another one's mirror has it."""
    took = []
    with running("us", ("iad-a", "iad-b")) as server:
        async with joined(server, "iad-a", "iad-b") as (a, b):
            for digest in numbered(count):
                seen = asyncio.get_running_loop().create_task(b.index.wait_changed(digest, 5))
                await asyncio.sleep(0)
                begun_ms = clock.now_ms()
                a.put(digest)
                if not await seen:
                    raise indexnode.Wrong(f"{digest} did not arrive within 5 s")
                took.append(clock.now_ms() - begun_ms)
    return took


def spread(values: list[float], digits: int = 2) -> str:
    """The median, the least and the most."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def say(line: str) -> None:
    """Progress."""
    click.echo(line, err=True)


def document(
    whole: list[tuple[float, float]], lag: list[float], points: list[indexnode.Point]
) -> dict[str, Any]:
    """Everything, for a program."""
    return {
        "flushed": {
            "blobs": BLOBS,
            "wall_ms": [round(wall) for wall, _ in whole],
            "cpu_ms": [round(cpu) for _, cpu in whole],
            "goal_ms": GOAL_MS,
            "met": median(wall for wall, _ in whole) <= GOAL_MS,
        },
        "lag_ms": {"p50": median(lag), "p99": quantiles(lag, n=100)[98], "changes": len(lag)},
        "warm": {
            state: {
                unit: [round(one, 4) for one in indexnode.ratios(points, state, unit)]
                for unit in ("p50_ms", "p99_ms")
            }
            for state in dict.fromkeys(point.state for point in points)
            if state != "up"
        },
        "points": [point._asdict() for point in points],
    }


def text(told: dict[str, Any], facts: dict[str, Any]) -> str:
    """Everything, for a person."""
    whole, lag, points = told["flushed"], told["lag_ms"], told["points"]
    lines = [f"{name}: {value}" for name, value in facts.items()]
    verdict = "met" if whole["met"] else "MISSED"
    lines += [
        "",
        f"flushed, {BLOBS:,} blobs: whole again after {spread(whole['wall_ms'], 0)} ms by the clock, "
        f"{spread(whole['cpu_ms'], 0)} ms of CPU; wanted <= {GOAL_MS} ms: {verdict}",
        f"a mirror's lag: p50 {lag['p50']:.2f} ms, p99 {lag['p99']:.2f} ms of {lag['changes']} changes",
        f"warm requests, Redis up: p50 {spread([p['p50_ms'] for p in points if p['state'] == 'up'])} ms",
    ]
    lines += [
        f"warm requests, Redis {state} / up, within a round: p50 {spread(ratios['p50_ms'])}, "
        f"p99 {spread(ratios['p99_ms'])}"
        for state, ratios in told["warm"].items()
    ]
    return "\n".join(lines)


@click.command()
@click.option("--rounds", "count", type=click.IntRange(2, 100), default=20, show_default=True)
@click.option(
    "--requests", type=click.IntRange(50, 10_000), default=1_000, show_default=True, help="Of a state."
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole run as JSON instead of text.")
def main(count: int, requests: int, *, as_json: bool) -> None:
    """Flush it, follow it, kill it, freeze it, set it back and lock the node out."""
    facts = machine.facts()
    try:
        whole = asyncio.run(flushed(5))
        say(f"flushed: {[round(wall) for wall, _ in whole]} ms")
        lag = asyncio.run(lags(1000))
        say(f"lag: {median(lag):.2f} ms")
        points = indexnode.rounds(count, requests, say)
    except (indexnode.Wrong, OSError, AssertionError) as failed:
        raise click.ClickException(f"this run is worth nothing: {failed}") from None
    told = document(whole, lag, points)
    if as_json:
        settings = {"rounds": count, "requests": requests}
        click.echo(json.dumps({"machine": facts, "settings": settings, **told}, indent=1))
    else:
        click.echo(text(told, facts))


if __name__ == "__main__":
    main()
