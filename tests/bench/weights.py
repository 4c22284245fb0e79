"""`python -m tests.bench.weights`: from a miss to the first answer, beside the transfer alone, over one capped link.

A real origin sends all bodies together at `--mib-per-s`. Round after round, for each size in turn: a new node's
first request for the model (proxy, weight store and worker as `popctl serve` starts them, an empty disk), the
transfer alone, and download, then hash, then ONNX Runtime's default session. Then the largest once more per
round from a real S3 server, whose link has no cap. A wrong answer or an error in a node's log makes the run
worth nothing.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from netlab.clock import now_s, wait_until
from tests.bench import machine, weightsmodel, weightsreport
from tests.bench.faults import faults
from tests.bench.weightsmodel import Chain
from tests.bench.weightsreport import Point
from tests.support import s3servers
from tests.support.node import Node, running_node

ROOT: Final = Path(__file__).resolve().parents[2]
LAYERS: Final = (30, 3)
WORKER: Final = "device: cpu\ndevice_bytes: 2GiB\nthreads: 2"
QUIET: Final = "routing:\n  hydrate: false\n"


class Spoiled(Exception):  # noqa: N818 -- it is named after what happened to the run
    """A wrong answer, or a line in a log that must not be there."""


class Origin(NamedTuple):
    """A running origin; `folder` is what it serves."""

    folder: Path
    url: str

    def blob(self, digest: str) -> str:
        """Where a blob is had from."""
        return f"{self.url}blobs/{digest}"


@contextlib.contextmanager
def origin(directory: Path, bytes_per_s: int) -> Iterator[Origin]:
    """An empty origin behind a capped link."""
    folder, log = directory / "origin", directory / "origin.log"
    folder.mkdir()
    command = [sys.executable, "-m", "netlab.origin", "--root", str(folder), "--listen", "127.0.0.1:0"]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command, "--bytes-per-s", str(bytes_per_s)], stdout=subprocess.PIPE, stderr=errors, cwd=ROOT
        )
    try:
        wait_until(lambda: "serving" in log.read_text(), "the origin listens", within_s=20)
        (port,) = re.findall(r"on \('[^']+', (\d+)", log.read_text())
        yield Origin(folder, f"http://127.0.0.1:{port}/")
    finally:
        process.terminate()
        process.communicate(timeout=20)


def bare(way: str, origin: Origin, chain: Chain) -> dict[str, Any]:
    """One measurement of `tests.bench.weightsbare`. Raises Spoiled."""
    with tempfile.TemporaryDirectory(prefix="edgepop-bench-bare-") as name:
        file = chain.weights
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "tests.bench.weightsbare", way, origin.blob(file.blake3)),
                *(str(file.size_bytes), f"{name}/{file.blake3}"),
                str(origin.folder / "blobs" / chain.graph.blake3),
            ],
            input=json.dumps(chain.question).encode(),
            capture_output=True,
            cwd=ROOT,
            check=False,
        )
    if ran.returncode:
        raise Spoiled(f"{way}: {ran.stderr.decode()[-500:]}")
    told: dict[str, Any] = json.loads(ran.stdout)
    if way == "naive" and not (chain.is_right(told.pop("answer")) and told.pop("sha256") == file.sha256):
        raise Spoiled("download, hash, load answered something else")
    return told


def ours(origin: Origin, chain: Chain) -> dict[str, Any]:
    """A new node's first answer, in seconds as its client sees it. Raises Spoiled."""
    with running_node(origin=origin.url, workers=(WORKER,), extra=QUIET) as node:
        os.sync()
        began_s = now_s()
        answer = ask(node, chain)
        took_s = now_s() - began_s
        residency = answer.headers.get("edge-residency")
        if residency != "origin":
            raise Spoiled(f"the first request found its model on the {residency}, which is no miss")
        wrong = faults(node.log_text)
        if wrong:
            raise Spoiled("the node logged:\n" + "\n".join(wrong[:5]))
        at_s = now_s()
        ask(node, chain)
        return {"total_s": took_s, "warm_s": now_s() - at_s, "timing": answer.headers.get("server-timing")}


def ask(node: Node, chain: Chain) -> Any:
    """One request over OIP JSON. Raises Spoiled unless its answer is right."""
    tensor = {"name": "x", "shape": [1, weightsmodel.SIDE], "datatype": "FP32", "data": chain.question}
    answer = node.request(f"/v2/models/{chain.name}/infer", json.dumps({"inputs": [tensor]}), timeout_s=120)
    if answer.status != 200 or not chain.is_right(answer.json["outputs"][0]["data"]):
        raise Spoiled(f"the node answered {answer.status} {answer.body[:300]!r}")
    return answer


def measured(way: str, origin: Origin, chain: Chain) -> dict[str, Any]:
    """One way, once, with nothing left to be written to the disk from before."""
    os.sync()
    return ours(origin, chain) if way == "ours" else bare(way, origin, chain)


def rounds(origin: Origin, chains: list[Chain], count: int) -> list[Point]:
    """All points. Each round begins with another way. Raises Spoiled."""
    ways = list(weightsreport.COMPARED)
    points = []
    for number in range(1, count + 1):
        for chain in chains:
            for way in [*ways[number % len(ways) :], *ways[: number % len(ways)]]:
                told = measured(way, origin, chain)
                points.append(Point(way, chain.weights.size_bytes, number, told.pop("total_s"), told))
                say(f"round {number}/{count}  {weightsreport.line(points[-1])}")
    return points


def from_s3(directory: Path, store: Path, chain: Chain, count: int) -> list[Point]:
    """New nodes whose origin is a bucket of a real S3 server. Raises Spoiled."""
    points = []
    (directory / "s3").mkdir()
    with s3servers.localbucket(directory / "s3") as server:
        os.environ.update(server.environment)
        weightsmodel.publish(store, server.url)
        for number in range(1, count + 1):
            told = measured("ours", Origin(store, f"{server.url}/"), chain)
            points.append(Point("s3", chain.weights.size_bytes, number, told.pop("total_s"), told))
            say(f"round {number}/{count}  {weightsreport.line(points[-1])}")
    return points


def say(line: str) -> None:
    """Progress."""
    click.echo(line, err=True)


@click.command()
@click.option("--rounds", "count", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--mib-per-s", type=click.IntRange(1, 10_000), default=400, show_default=True, help="The link.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole run as JSON instead of tables.")
def main(count: int, mib_per_s: int, *, as_json: bool) -> None:
    """Measure all ways in turn, round after round, and print the ratios."""
    facts = machine.facts()
    with tempfile.TemporaryDirectory(prefix="edgepop-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        try:
            with origin(directory, mib_per_s << 20) as source:
                chains = []
                for layers in LAYERS:
                    say(f"make a model of {layers} matrices")
                    store = directory / f"store-{layers}"
                    chains.append(weightsmodel.made(store, layers, seed=layers))
                    weightsmodel.publish(store, source.folder.as_uri())
                points = rounds(source, chains, count)
            points += from_s3(directory, directory / f"store-{LAYERS[0]}", chains[0], count)
        except (Spoiled, OSError, RuntimeError) as failed:
            raise click.ClickException(f"this run is worth nothing: {failed}") from None
    if as_json:
        settings = {"rounds": count, "mib_per_s": mib_per_s}
        click.echo(json.dumps(weightsreport.document(points, facts, settings), indent=1))
    else:
        click.echo(weightsreport.text(points, {**facts, "link": f"{mib_per_s} MiB/s"}))


if __name__ == "__main__":
    main()
