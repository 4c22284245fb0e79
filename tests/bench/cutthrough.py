"""`python -m tests.bench.cutthrough`: three cold nodes of one region want one model over one capped link.

Real weight stores, TLS between them and Redis; the origin is a process of its own that counts what it sends. In turn,
round after round: all three ask at once, and the third one asks when the first has 70 %. Given are the times from
the first question until each node is ready, the last one's over the first one's, the origin's bytes over the
model's, and the processor time that the nodes took for a GiB that came to one of them: on a busy machine the number
to compare. A blob that is not what its name says makes the run worth nothing.

A virtual machine that gives free memory back to its host pays for each page that it touches again: 2.3 s of processor
for a GiB where it was measured, against 0.1 s for pages that were just freed. That is no part of what is measured
here, so memory for all copies is touched and freed before each round.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import aiohttp
import click

from edge.wire import calls
from netlab.clock import now_s
from tests.bench import machine
from tests.support.blobs import Bucket, Published, content_digest
from tests.support.redis import running as redis_running
from tests.support.region import Fleet, fleet
from tests.support.wait import wait_until
from tests.support.weights import Running

ROOT: Final = Path(__file__).resolve().parents[2]
NAMES: Final = ("ams-a", "ber-a", "fra-a")
CHUNK_BYTES: Final = 8 << 20
LATE_AT: Final = 0.7
WAYS: Final = {"together": 1.0, "third at 70 %": LATE_AT}
GOAL_RATIO: Final = 1.3


class Point(NamedTuple):
    """One round of one way: when each node was ready, from the first question on, and what the origin sent."""

    way: str
    round: int
    ready_s: tuple[float, ...]
    origin_bytes: int
    size_bytes: int
    #: Of all nodes, from the first question until the last is ready.
    cpu_s: float

    @property
    def last_over_first(self) -> float:
        """The goal's ratio."""
        return self.ready_s[-1] / self.ready_s[0]

    @property
    def copies(self) -> float:
        """How many times the origin sent the model."""
        return self.origin_bytes / self.size_bytes

    @property
    def cpu_s_per_gib(self) -> float:
        """Of the nodes, for a GiB that came to one of them."""
        return self.cpu_s * (1 << 30) / (len(NAMES) * self.size_bytes)


class Source(NamedTuple):
    """A running origin."""

    url: str
    control: Path

    async def sent_bytes(self) -> int:
        """What it has handed to its sockets so far."""
        connector = aiohttp.UnixConnector(str(self.control))
        async with aiohttp.ClientSession(connector=connector) as http, http.get("http://o/_stats") as answer:
            return int((await answer.json())["total_bytes"])


@contextlib.asynccontextmanager
async def origin(root: Path, control: Path, bytes_per_s: int) -> AsyncIterator[Source]:
    """`root` behind a capped link."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "netlab.origin", "--root", str(root), "--listen", "127.0.0.1:0"),
        *("--control", str(control), "--bytes-per-s", str(bytes_per_s)),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            while "serving" not in (line := (await process.stderr.readline()).decode()):
                if not line:
                    raise RuntimeError("the origin does not start")
        port = line.partition("127.0.0.1', ")[2].partition(")")[0].partition(",")[0]
        yield Source(f"http://127.0.0.1:{int(port)}/", control)
    finally:
        process.terminate()
        await process.communicate()


def here_bytes(node: Running, model: Published) -> int:
    """What of the weights a node's journal has."""
    journal = node.store / "ingest" / model.weights.blake3 / "journal"
    try:
        return CHUNK_BYTES * sum(byte.bit_count() for byte in journal.read_bytes()[24:])
    except FileNotFoundError:
        return model.weights.size_bytes if model.weights.blake3 in node.blobs() else 0


def touch_memory(path: Path, size_bytes: int) -> None:
    """So much of the page cache is filled, and free again."""
    piece = bytes(1 << 20)
    try:
        with path.open("wb", buffering=0) as file:
            for _ in range(0, size_bytes, len(piece)):
                file.write(piece)
    finally:
        path.unlink(missing_ok=True)


def cpu_s(nodes: Sequence[Running]) -> float:
    """What all of them have used so far."""
    return sum(machine.tree_cpu_s(node.process.pid) for node in nodes)


async def measured(way: str, number: int, nodes: list[Running], model: Published, source: Source) -> Point:
    """One round; the nodes have nothing of the model before and after it."""
    before = await source.sent_bytes()
    used_s = cpu_s(nodes)
    began_s = now_s()

    async def ready(node: Running) -> float:
        await node.ensure(model, deadline_ms=120_000)
        return now_s() - began_s

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ready(node)) for node in nodes[:2]]
        if (share := WAYS[way]) < 1.0:
            wanted = share * model.weights.size_bytes
            await wait_until(
                lambda: max(here_bytes(node, model) for node in nodes[:2]) >= wanted,
                within_s=120,
                every_s=0.002,
            )
        asked.append(group.create_task(ready(nodes[2])))
    used_s = cpu_s(nodes) - used_s
    sent = await source.sent_bytes() - before
    for node in nodes:
        if content_digest(node.store / "blobs" / model.weights.blake3) != model.weights.blake3:
            raise RuntimeError("a node has wrong bytes")
        await node.release(model)
        await node.call(calls.Drop(model.digest))
    times = tuple(sorted(task.result() for task in asked))
    return Point(way, number, times, sent, model.manifest.size_bytes, used_s)


async def run(rounds: int, size_bytes: int, bytes_per_s: int) -> list[Point]:
    """All points."""
    points = []
    with tempfile.TemporaryDirectory(prefix="edgepop-bench-") as name, redis_running("eu", NAMES) as redis:
        root = Path(name)
        bucket = Bucket(root / "origin")
        async with (
            origin(bucket.root, root / "control", bytes_per_s) as source,
            fleet(root, source.url, redis) as eu,
        ):
            nodes = await joined(eu)
            for number in range(1, rounds + 1):
                for way in WAYS:
                    model = bucket.publish(f"m-{number}", size_bytes=size_bytes, chunk_bytes=CHUNK_BYTES)
                    touch_memory(root / "touched", (len(NAMES) + 1) * size_bytes)
                    points.append(await measured(way, number, nodes, model, source))
                    click.echo(f"round {number}/{rounds}  {line(points[-1])}", err=True)
                    for file in model.manifest.files:
                        (bucket.root / "blobs" / file.blake3).unlink(missing_ok=True)
    return points


async def joined(eu: Fleet) -> list[Running]:
    """The nodes, once they know each other."""
    nodes = list(await asyncio.gather(*map(eu.start, NAMES)))
    await asyncio.gather(*(eu.sees(node, *NAMES) for node in nodes))
    return nodes


def line(point: Point) -> str:
    """One point in words."""
    times = " ".join(f"{seconds:.2f}" for seconds in point.ready_s)
    return (
        f"{point.way:14}  ready after {times} s  last/first {point.last_over_first:.2f}  "
        f"origin {point.copies:.3f} x  processor {point.cpu_s_per_gib:.2f} s/GiB"
    )


def summary(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Medians over the rounds, and the worst of each."""
    rows = []
    for way in WAYS:
        of = [point for point in points if point.way == way]
        rows.append(
            {
                "way": way,
                "first_s": median(point.ready_s[0] for point in of),
                "last_s": median(point.ready_s[-1] for point in of),
                "last_over_first": median(point.last_over_first for point in of),
                "worst_last_over_first": max(point.last_over_first for point in of),
                "copies": median(point.copies for point in of),
                "most_copies": max(point.copies for point in of),
                "cpu_s_per_gib": median(point.cpu_s_per_gib for point in of),
            }
        )
    return rows


@click.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--mib", type=click.IntRange(16, 16_384), default=512, show_default=True, help="The model.")
@click.option("--mib-per-s", type=click.IntRange(1, 10_000), default=100, show_default=True, help="The link.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole run as JSON instead of a table.")
def main(rounds: int, mib: int, mib_per_s: int, *, as_json: bool) -> None:
    """Measure both ways in turn, round after round."""
    facts = machine.facts()
    try:
        points = asyncio.run(run(rounds, mib << 20, mib_per_s << 20))
    except (OSError, RuntimeError) as failed:
        raise click.ClickException(f"this run is worth nothing: {failed}") from None
    if as_json:
        settings = {"rounds": rounds, "mib": mib, "mib_per_s": mib_per_s, "goal": GOAL_RATIO}
        told = {"facts": facts, "settings": settings, "summary": summary(points)}
        click.echo(json.dumps({**told, "points": [point._asdict() for point in points]}, indent=1))
        return
    click.echo(f"{mib} MiB over {mib_per_s} MiB/s, {rounds} rounds, load {facts['load_average']}")
    for row in summary(points):
        click.echo(
            f"{row['way']:14}  first {row['first_s']:.2f} s  last {row['last_s']:.2f} s  last/first "
            f"{row['last_over_first']:.2f} (worst {row['worst_last_over_first']:.2f}, goal {GOAL_RATIO})  "
            f"origin {row['copies']:.3f} x (most {row['most_copies']:.3f})  "
            f"processor {row['cpu_s_per_gib']:.2f} s/GiB"
        )


if __name__ == "__main__":
    main()
