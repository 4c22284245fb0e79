"""`python -m tests.bench.fetchfaults`: what one bad source of four costs, a small model behind a large one, and sockets.

Real origins in processes of their own, a real store. Rounds are interleaved and each row is a ratio of medians
of one run. A capped link is one that all sources share; `own` means that each source has a quarter of it to
itself, where losing one of four costs a third by arithmetic. The store lies in memory where there is room,
so that a disk's moods are not measured.
"""

import contextlib
import http.client
import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from edge.weights.fetch import Choice, Limits, Meter, fetch_blob
from edge.weights.manifest import BlobFile
from edge.weights.origin import Origin
from edge.weights.sources import ORIGIN, Kind, Site
from edge.weights.store import Store
from netlab.clock import now_s, wait_until
from tests.bench import machine
from tests.support.blobs import blob_file

ROOT: Final = Path(__file__).resolve().parents[2]
MIB: Final = 1 << 20
CHUNK: Final = 8 * MIB
NAMES: Final = ("a", "b", "c", "d")
LIMITS: Final = Limits(parallel=16, min_bytes_per_s=1, watch_ms=60_000)
#: name -> what is told to the first source before a round.
STATES: Final[dict[str, dict[str, Any] | None]] = {
    "healthy": None,
    "stalled": {"kind": "stall", "stall_s": 60},
    "dripping": {"kind": "drip", "drip_bps": 20_000},
}
GOALS: Final = {"stalled": 1.3, "dripping": 1.3, "behind": 2.0}


class Served:
    """A running origin: `url`, and its control socket."""

    def __init__(self, url: str, control: Path) -> None:
        self.url = url
        self._control = control

    def fault(self, rule: dict[str, Any] | None) -> None:
        """Misbehave so from now on; None: behave."""
        desk = http.client.HTTPConnection("control", timeout=20)
        desk.sock = socket.socket(socket.AF_UNIX)
        desk.sock.connect(str(self._control))
        with contextlib.closing(desk):
            if rule is None:
                desk.request("DELETE", "/_fault")
            else:
                desk.request("POST", "/_fault", msgspec.json.encode({"count": 1_000_000, **rule}))
            desk.getresponse().read()


@contextlib.contextmanager
def serving(folder: Path, directory: Path, bytes_per_s: int = 0) -> Iterator[Served]:
    """A folder over HTTP in a process of its own."""
    directory.mkdir()
    log, control = directory / "log", directory / "s"
    command = [sys.executable, "-m", "netlab.origin", "--root", str(folder), "--listen", "127.0.0.1:0"]
    command += ["--control", str(control)] + (["--bytes-per-s", str(bytes_per_s)] if bytes_per_s else [])
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, cwd=ROOT)
    try:
        wait_until(lambda: "serving" in log.read_text(), "the origin listens", within_s=20)
        (port,) = re.findall(r"on \('[^']+', (\d+)", log.read_text())
        yield Served(f"http://127.0.0.1:{port}/", control)
    finally:
        process.kill()
        process.wait(20)


def write_blob(folder: Path, size_bytes: int) -> BlobFile:
    """Random bytes, under the name of each source."""
    content = os.urandom(size_bytes)
    file = blob_file("weights", content, chunk_bytes=CHUNK)
    first = folder / "a" / "blobs" / file.blake3
    for name in NAMES:
        (folder / name / "blobs").mkdir(parents=True, exist_ok=True)
    first.write_bytes(content)
    for name in NAMES[1:]:
        os.link(first, folder / name / "blobs" / file.blake3)
    return file


class Node:
    """An empty store and what is known of sources: nothing."""

    def __init__(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        self.store = Store(directory, "n")
        self.store.open()
        self.choice = Choice()
        self.stop = threading.Event()
        self._directory = directory

    def source(self, url: str, *, library: bool = False) -> Origin:
        """An origin by URL; `library`: as if it were none for plain sockets."""
        made = Origin(url, request_timeout_ms=120_000, stop=self.stop)
        if library:
            made._raw = None
        return made

    def fetch(self, file: BlobFile, feeds: dict[Site, Origin], meter: Meter | None = None) -> float:
        """Seconds."""
        began_s = now_s()
        fetch_blob(file, self.store, feeds, self.choice, LIMITS, meter or Meter(), self.stop)
        return now_s() - began_s

    def close(self) -> None:
        """Nothing is left of it."""
        self.stop.set()
        self.choice.close()
        self.store.close(clean=True)
        shutil.rmtree(self._directory, ignore_errors=True)


def one_of_four(
    servers: list[Served], urls: list[str], file: BlobFile, work: Path, rounds: int, prefix: str
) -> dict[str, Any]:
    """Seconds per state of the first source, and bytes over the blob's own."""
    took: dict[str, list[float]] = {state: [] for state in STATES}
    more: dict[str, list[float]] = {state: [] for state in STATES}
    for _ in range(rounds):
        for state, rule in STATES.items():
            if rule is not None:
                servers[0].fault({**rule, "path_prefix": prefix})
            node, meter = Node(work / "store"), Meter()
            feeds = {Site(Kind.REGION, name): node.source(url) for name, url in zip(NAMES, urls, strict=True)}
            took[state].append(node.fetch(file, feeds, meter))
            more[state].append(meter.moved_bytes / file.size_bytes)
            servers[0].fault(None)
            node.close()
    return {state: _row(took[state], took["healthy"], more[state]) for state in STATES}


def _row(took: list[float], base: list[float], more: list[float]) -> dict[str, Any]:
    return {
        "median_s": round(statistics.median(took), 3),
        "ratio": round(statistics.median(took) / statistics.median(base), 3),
        "moved_ratio": round(statistics.median(more), 3),
        "rounds_s": [round(one, 3) for one in took],
    }


def behind(url: str, large: BlobFile, small: BlobFile, work: Path, rounds: int) -> dict[str, Any]:
    """Seconds of a small blob alone, and while a large one is under way over the same link."""
    alone, late, widths = [], [], []
    for _ in range(rounds):
        node = Node(work / "store")
        alone.append(node.fetch(small, {ORIGIN: node.source(url)}))
        node.close()
        node, meter = Node(work / "store"), Meter()
        with ThreadPoolExecutor(1) as pool:
            work_of_it = pool.submit(node.fetch, large, {ORIGIN: node.source(url)}, meter)
            _wait_until_moved(meter, large.size_bytes // 4)
            widths.append(node.choice.lanes.width)
            late.append(node.fetch(small, {ORIGIN: node.source(url)}))
            outlasted = not work_of_it.done()
            node.stop.set()
            with contextlib.suppress(Exception):
                work_of_it.result(30)
        node.close()
        if not outlasted:
            raise SystemExit("the large blob ended before the small one: nothing was measured")
    row = _row(late, alone, [1.0])
    return {**row, "alone_median_s": round(statistics.median(alone), 3), "lanes": widths}


def _wait_until_moved(meter: Meter, count: int) -> None:
    wait_until(lambda: meter.moved_bytes > count, "it is well under way", within_s=60)


def sockets(url: str, file: BlobFile, work: Path, rounds: int) -> dict[str, Any]:
    """MB/s and CPU seconds per GB of this side: from the socket, and through the library."""
    ways: dict[str, Callable[[Node], Origin]] = {
        "raw": lambda node: node.source(url),
        "library": lambda node: node.source(url, library=True),
    }
    rates: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    for _ in range(rounds):
        for way, source_of in ways.items():
            node = Node(work / "store")
            source = source_of(node)
            for name, act in (("ranges", _pull), ("fetch", _fetch)):
                before, began_s = _cpu_s(), now_s()
                act(node, source, file)
                took_s = now_s() - began_s
                rates.setdefault(f"{way} {name}", []).append(file.size_bytes / took_s / 1e6)
                cpu.setdefault(f"{way} {name}", []).append((_cpu_s() - before) / file.size_bytes * 1e9)
            node.close()
    rows = {
        name: {
            "mb_per_s": round(statistics.median(rates[name])),
            "cpu_s_per_gb": round(statistics.median(cpu[name]), 2),
        }
        for name in rates
    }
    for name in ("ranges", "fetch"):
        raw, library = rows[f"raw {name}"], rows[f"library {name}"]
        rows[f"ratio {name}"] = {
            "mb_per_s": round(raw["mb_per_s"] / library["mb_per_s"], 2),
            "cpu_s_per_gb": round(raw["cpu_s_per_gb"] / library["cpu_s_per_gb"], 2),
        }
    return rows


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _pull(node: Node, source: Origin, file: BlobFile) -> None:
    """All chunks, four at a time, to nowhere."""

    def one(start: int) -> int:
        end = min(start + CHUNK, file.size_bytes)
        return sum(map(len, source.range(f"blobs/{file.blake3}", start, end, object_bytes=file.size_bytes)))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(one, range(0, file.size_bytes, CHUNK))) == file.size_bytes


def _fetch(node: Node, source: Origin, file: BlobFile) -> None:
    node.fetch(file, {ORIGIN: source})


def measure(work: Path, mib: int, mib_per_s: int, rounds: int) -> dict[str, Any]:
    """All rows."""
    folder = work / "origin"
    file = write_blob(folder, mib * MIB)
    small, large = write_blob(folder, 50_000_000), write_blob(folder, 16 * 50_000_000)
    rate = mib_per_s * MIB
    found: dict[str, Any] = {}
    with serving(folder, work / "free") as free:
        found["sockets"] = sockets(f"{free.url}a/", file, work, rounds)
    with serving(folder, work / "link", rate) as link:
        urls = [f"{link.url}{name}/" for name in NAMES]
        found["one_of_four"] = one_of_four([link], urls, file, work, rounds, "a/")
        found["behind"] = behind(f"{link.url}a/", large, small, work, rounds)
    with contextlib.ExitStack() as stack:
        four = [stack.enter_context(serving(folder, work / f"own-{name}", rate // 4)) for name in NAMES]
        urls = [f"{one.url}{name}/" for one, name in zip(four, NAMES, strict=True)]
        found["one_of_four_own"] = one_of_four(four, urls, file, work, rounds, "a/")
    return found


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["| what | seconds | ratio | bytes moved |", "|---|---|---|---|"]
    for key, title in (("one_of_four", "one link"), ("one_of_four_own", "a link each")):
        for state, row in found[key].items():
            goal = f" (goal {GOALS[state]})" if state in GOALS and key == "one_of_four" else ""
            lines.append(
                f"| four sources, {title}, one {state} | {row['median_s']} | {row['ratio']}{goal} | {row['moved_ratio']} |"
            )
    row = found["behind"]
    lines.append(f"| 50 MB behind 800 MB | {row['median_s']} | {row['ratio']} (goal {GOALS['behind']}) | |")
    lines += ["", "| way | MB/s | CPU s/GB |", "|---|---|---|"]
    lines += [
        f"| {name} | {one['mb_per_s']} | {one['cpu_s_per_gb']} |" for name, one in found["sockets"].items()
    ]
    return "\n".join(lines)


@click.command()
@click.option("--mib", default=256, show_default=True, help="Size of the blob.")
@click.option("--mib-per-s", default=128, show_default=True, help="The link that is shared.")
@click.option("--rounds", default=3, show_default=True)
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all numbers there."
)
def main(mib: int, mib_per_s: int, rounds: int, path: Path | None) -> None:
    """Ratios from one interleaved run."""
    memory = Path("/dev/shm")  # noqa: S108 -- the folder in it is made by tempfile
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 8 * (mib * MIB + 850_000_000)
    with tempfile.TemporaryDirectory(prefix="edgepop-bench-", dir=memory if roomy else None) as name:
        found = measure(Path(name), mib, mib_per_s, rounds)
    click.echo(table(found))
    if path is not None:
        path.write_text(
            json.dumps({"machine": machine.facts(), "in_memory": roomy, **found}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
