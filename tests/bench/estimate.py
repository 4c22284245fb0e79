"""`python -m tests.bench.estimate`: how right a node expects its cold starts, over one capped link.

One real node, started with nothing known, and models of 5 to 100 MB in random order. Each is asked for
once: the node says when it begins how long the hydration will take, and afterwards how long it took;
both are read from `/edge/state`. The last ones are asked for two at a time, so that they share the link.
A wrong answer makes the run worth nothing.
"""

import json
import math
import random
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, NamedTuple

import click
import msgspec

from tests.bench import machine
from tests.bench.weights import Origin, origin
from tests.support import tiny
from tests.support.node import Node, running_node
from tests.support.stores import a_store

ALONE: Final = 24
PAIRS: Final = 4
SMALLEST_MB: Final = 5.0
LARGEST_MB: Final = 100.0
GOALS: Final = {"median": 0.20, "p90": 0.50}
WORKER: Final = "device: cpu\ndevice_bytes: 4GiB\nthreads: 2"
QUIET: Final = "routing:\n  hydrate: false\n"


class Cold(NamedTuple):
    """One cold start."""

    model: str
    size_bytes: int
    together: bool
    expected_ms: float
    took_ms: float

    @property
    def error(self) -> float:
        """As a ratio of the truth."""
        return abs(self.expected_ms - self.took_ms) / self.took_ms


def publish(made: Origin, count: int, seed: int) -> dict[str, tuple[int, int]]:
    """Models of one product each, sizes spread evenly in their logarithm: name -> (side, bytes)."""
    draw = random.Random(seed)
    found: dict[str, tuple[int, int]] = {}
    manifests = []
    (made.folder / "blobs").mkdir()
    for number in range(count):
        share = (number + draw.random()) / count
        size_mb = SMALLEST_MB * (LARGEST_MB / SMALLEST_MB) ** share
        side = int(math.sqrt(size_mb * 1e6 / 4))
        heavy = tiny.heavy(made.folder / "blobs", side=side)
        manifests.append(msgspec.structs.replace(heavy, name=f"m{number}"))
        found[f"m{number}"] = side, manifests[-1].size_bytes
    a_store(made.folder, *manifests)
    return found


def ask(node: Node, model: str, side: int) -> None:
    """One request that waits for its model. Ends the program when it is not served."""
    body = json.dumps(
        {"inputs": [{"name": "x", "shape": [1, side], "datatype": "FP32", "data": [0.0] * side}]}
    )
    answer = node.request(f"/v2/models/{model}/infer", body, {"Edge-Cold": "wait"}, timeout_s=120)
    if answer.status != 200 or answer.json["outputs"][0]["data"] != [0.0] * side:
        raise SystemExit(f"{model}: the node answered {answer.status} {answer.body[:300]!r}")


def scored(node: Node, model: str) -> tuple[float, float]:
    """(expected, took) in ms, as the node tells."""
    rows = [row for row in node.state["hydration"]["expected"] if row["model"] == model]
    if [row["source"] for row in rows] != ["origin"]:
        raise SystemExit(f"{model} was not hydrated once from the origin: {rows}")
    return rows[0]["expected_ms"], rows[0]["took_ms"]


def cold_starts(node: Node, models: dict[str, tuple[int, int]], pairs: int, seed: int) -> list[Cold]:
    """Each model once, in random order; the last `pairs` times two of them at once."""
    names = list(models)
    random.Random(seed).shuffle(names)
    turns = [[name] for name in names[: len(names) - 2 * pairs]]
    rest = names[len(turns) :]
    turns += [rest[at : at + 2] for at in range(0, len(rest), 2)]
    found: list[Cold] = []
    for turn in turns:
        threads = [threading.Thread(target=ask, args=(node, name, models[name][0])) for name in turn]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in turn:
            found.append(Cold(name, models[name][1], len(turn) > 1, *scored(node, name)))
            click.echo(line(found[-1]), err=True)
    return found


def line(cold: Cold) -> str:
    """For people."""
    beside = "beside another" if cold.together else "alone"
    return (
        f"{cold.size_bytes / 1e6:6.1f} MB {beside:>14}: expected {cold.expected_ms:7.0f} ms, "
        f"took {cold.took_ms:7.0f} ms, off by {cold.error:4.0%}"
    )


def summary(colds: list[Cold]) -> dict[str, float]:
    """Median and ninetieth percentile of the errors."""
    errors = [cold.error for cold in colds]
    return {
        "count": len(errors),
        "median": median(errors),
        "p90": quantiles(errors, n=10, method="inclusive")[-1],
    }


@click.command()
@click.option("--mb-per-s", type=float, default=40.0, show_default=True, help="The link's cap.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def main(mb_per_s: float, seed: int, *, as_json: bool) -> None:
    """How far off estimates are: median and p90, with the goals beside."""
    with tempfile.TemporaryDirectory(prefix="edgepop-bench-estimate-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with origin(directory, int(mb_per_s * 1e6)) as made:
            models = publish(made, ALONE + 2 * PAIRS, seed)
            with running_node(origin=made.url, workers=(WORKER,), extra=QUIET) as node:
                colds = cold_starts(node, models, PAIRS, seed)
    alone = [cold for cold in colds if not cold.together]
    told: dict[str, Any] = {
        "schema_version": 1,
        "machine": machine.facts(),
        "mb_per_s": mb_per_s,
        "goals": GOALS,
        "alone": summary(alone),
        "all": summary(colds),
        "cold_starts": [{**cold._asdict(), "error": cold.error} for cold in colds],
    }
    if as_json:
        click.echo(json.dumps(told))
    else:
        for kind in ("alone", "all"):
            one = told[kind]
            click.echo(
                f"{kind}: {one['count']} cold starts, error median {one['median']:.0%} (goal {GOALS['median']:.0%}), "
                f"p90 {one['p90']:.0%} (goal {GOALS['p90']:.0%})"
            )
    missed = [goal for goal, most in GOALS.items() if told["alone"][goal] > most]
    if missed:
        click.echo(f"missed: {', '.join(missed)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
