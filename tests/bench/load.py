"""`python -m tests.bench.load`: a model whose blobs are in the page cache, from there to the first answer.

Round after round, for each size in turn and beginning with another way each time: a new worker process is
told to load the model and asked once, and a new process opens ONNX Runtime's default session of the same
graph by its path and runs it once. Imports are not timed in either. Afterwards the worker is made to
prepack, and to unload; its private memory (Anonymous of smaps_rollup) is read at every stop. A wrong answer
or an error in a worker's log makes the run worth nothing.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from edge import clock
from edge.config import Worker
from edge.errors import EdgeError
from tests.bench import loadreport, machine, weightsmodel
from tests.bench.loadreport import Point
from tests.bench.weightsmodel import SIDE, Chain
from tests.support.wait import wait_until
from tests.support.worker import Process, connected

ROOT: Final = Path(__file__).resolve().parents[2]
#: 503 MB and 50 MB.
LAYERS: Final = (30, 3)
WITHIN_S: Final = 60.0


class Spoiled(Exception):  # noqa: N818 -- it is named after what happened to the run
    """A wrong answer, or a line in a log that must not be there."""


def heat(chain: Chain, blobs: Path) -> None:
    """Read every byte once, so that all of it is in the page cache."""
    for file in chain.manifest.files:
        with (blobs / file.blake3).open("rb") as opened:
            while opened.read(1 << 24):
                pass


def worker(chain: Chain, blobs: Path, number: int) -> Point:
    """A new worker process: load, ask, let it prepack, unload. Raises Spoiled."""
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="edgepop-worker-") as name:
        process = Process(Path(name), Worker(device_bytes="4GiB", threads=threads), blobs=blobs)
        try:
            point = asyncio.run(_stops(chain, process, number))
            bad = [line for line in process.log.read_text().splitlines() if not line.startswith("INFO:")]
            if bad:
                raise Spoiled(f"the worker's log says: {bad[0]}")
        finally:
            process.close()
    return point


async def _stops(chain: Chain, process: Process, number: int) -> Point:
    async with connected(process) as client:
        await client.state()
        weights_bytes = chain.weights.size_bytes
        before = process.anonymous_bytes()
        started_s = clock.now_s()
        await client.load(chain.manifest)
        loaded_s = clock.now_s()
        answer = await client.infer(chain.manifest, chain.question)
        answered_s = clock.now_s()
        if not chain.is_right(answer.outputs["y"]):
            raise Spoiled("the worker's answer is wrong")
        private = process.anonymous_bytes() - before
        await client.infer(chain.manifest, chain.question, chain.question)
        await wait_until(lambda: "INFO:edge.worker:prepacked" in process.log.read_text(), within_s=WITHIN_S)
        again = await client.infer(chain.manifest, chain.question)
        if not chain.is_right(again.outputs["y"]):
            raise Spoiled("the worker's answer is wrong once its weights are prepacked")
        packed = process.anonymous_bytes() - before
        await client.unload(chain.manifest)
        left = process.anonymous_bytes() - before
        return Point(
            "worker",
            weights_bytes,
            number,
            answered_s - started_s,
            loaded_s - started_s,
            private,
            packed,
            left,
        )


def default(chain: Chain, blobs: Path, question: Path, number: int) -> Point:
    """A new process with the runtime's own session of the graph's path. Raises Spoiled."""
    command = [
        sys.executable,
        "-m",
        "tests.bench.loaddefault",
        str(blobs / chain.graph.blake3),
        str(question),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False, cwd=ROOT)
    if done.returncode:
        raise Spoiled(f"the default session did not load: {done.stderr.strip().splitlines()[-1]}")
    told: dict[str, Any] = json.loads(done.stdout)
    if not chain.is_right(told["answer"]):
        raise Spoiled("the default session's answer is wrong")
    return Point(
        "default", chain.weights.size_bytes, number, told["total_s"], told["load_s"], told["private_bytes"],
        None, told["left_bytes"],
    )  # fmt: skip


def measured(directory: Path, rounds: int) -> list[Point]:
    """All points. Raises Spoiled or EdgeError."""
    points: list[Point] = []
    chains = []
    for layers in LAYERS:
        say(f"make a model of {layers} matrices of {SIDE} x {SIDE}")
        store = directory / str(layers)
        store.mkdir()
        chain = weightsmodel.made(store, layers, layers)
        np.save(store / "question.npy", np.array(chain.question, np.float32).reshape(1, SIDE))
        chains.append((chain, store))
    for number in range(1, rounds + 1):
        for chain, store in chains:
            blobs = store / "blobs"
            heat(chain, blobs)
            ways = ["worker", "default"] if number % 2 else ["default", "worker"]
            for way in ways:
                if way == "worker":
                    point = worker(chain, blobs, number)
                else:
                    point = default(chain, blobs, store / "question.npy", number)
                points.append(point)
                say(
                    f"round {number}/{rounds}  {point.weights_bytes / 1e6:>4.0f} MB  {way:<8}"
                    f"{point.total_s:7.3f} s  private {point.private_bytes / 1e6:6.1f} MB"
                )
    return points


def say(line: str) -> None:
    """Progress."""
    click.echo(line, err=True)


@click.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=7, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the whole run as JSON instead of tables.")
def main(rounds: int, *, as_json: bool) -> None:
    """Load each model both ways, round after round, and print ratios and shares of memory."""
    with tempfile.TemporaryDirectory(prefix="edgepop-load-") as name:
        facts = machine.facts()
        try:
            points = measured(Path(name), rounds)
        except (Spoiled, EdgeError, AssertionError, subprocess.SubprocessError) as failed:
            raise click.ClickException(f"this run is worth nothing: {failed}") from None
    click.echo(
        json.dumps(loadreport.document(points, facts), indent=1)
        if as_json
        else loadreport.text(points, facts)
    )


if __name__ == "__main__":
    sys.exit(main())
