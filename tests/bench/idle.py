"""`python -m tests.bench.idle`: what a running lab costs while nobody asks it anything.

Processor time is the kernel's own nanosecond account (schedstat) of every thread of every process
of the lab; memory is PSS, where a page that n processes share counts as 1/n in each. It asks
nothing of the lab itself, so that looking costs the lab nothing.
"""

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import click

from netlab import netns, state, supervise
from netlab.clock import now_s, pause_s
from netlab.lab import Lab, NotRunningError

WINDOWS: Final = 3


class Changed(Exception):  # noqa: N818 -- it is named after what happened
    """A process came or went meanwhile: the lab was not idle."""


def members() -> dict[int, str]:
    """pid -> what it is: wan, origin, router's BIRD, node's BIRD, parent, proxy, weights, worker."""
    lab = Lab.running()
    inodes = {netns.inode(name) for name in netns.names()}
    pids = supervise.find(inodes, str(state.ROOT), lab.state.processes)
    nodes = {node.name for node in lab.topology.nodes}
    kinds = {process.pid: _kind(process.name, nodes) for process in lab.state.processes}
    return {pid: kinds.get(pid) or _role(pid) for pid in pids}


def _kind(name: str, nodes: set[str]) -> str:
    if name.endswith(".bird"):
        return "node's BIRD" if name.removesuffix(".bird") in nodes else "router's BIRD"
    return "parent" if name in nodes else name


def _role(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return words[words.index("edge.parent.child") + 1] if "edge.parent.child" in words else "other"


def cpu_ns(pid: int) -> int:
    """Nanoseconds on a processor so far, of all its living threads. Raises Changed."""
    try:
        return sum(
            int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()
        )
    except OSError as error:
        raise Changed(f"process {pid} ended meanwhile; wait until the lab is quiet") from error


def pss_bytes(pid: int) -> int:
    """Proportional set size."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise Changed(f"process {pid} has no memory any more")


def window(pids: dict[int, str], seconds: float) -> dict[str, float]:
    """Percent of one core per kind over so many seconds."""
    before = {pid: cpu_ns(pid) for pid in pids}
    started_s = now_s()
    pause_s(seconds)
    took_s = now_s() - started_s
    used: dict[str, float] = defaultdict(float)
    for pid, kind in pids.items():
        used[kind] += (cpu_ns(pid) - before[pid]) / 1e7 / took_s
    if set(members()) != set(pids):
        raise Changed("a process was started meanwhile; wait until the lab is quiet")
    return dict(used)


def measured(seconds: float) -> dict[str, Any]:
    """WINDOWS windows, their median by total, and the memory of each kind."""
    pids = members()
    windows = [window(pids, seconds) for _ in range(WINDOWS)]
    middle = sorted(windows, key=lambda one: sum(one.values()))[WINDOWS // 2]
    memory: dict[str, int] = defaultdict(int)
    for pid, kind in pids.items():
        memory[kind] += pss_bytes(pid)
    kinds = sorted(memory, key=lambda kind: -memory[kind])
    return {
        "seconds": seconds,
        "windows_percent": [round(sum(one.values()), 2) for one in windows],
        "median_percent": round(statistics.median(sum(one.values()) for one in windows), 2),
        "pss_mib": round(sum(memory.values()) / 2**20),
        "kinds": [
            {
                "kind": kind,
                "processes": sum(one == kind for one in pids.values()),
                "percent": round(middle[kind], 2),
                "pss_mib": round(memory[kind] / 2**20),
            }
            for kind in kinds
        ],
    }


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    rows = ["| processes | % of one core | PSS, MiB |", "|---|---|---|"]
    rows += [
        f"| {one['processes']} x {one['kind']} | {one['percent']:.2f} | {one['pss_mib']} |"
        for one in found["kinds"]
    ]
    count = sum(one["processes"] for one in found["kinds"])
    rows.append(f"| **{count} in all** | **{found['median_percent']:.2f}** | **{found['pss_mib']}** |")
    told = ", ".join(f"{percent:.2f}" for percent in found["windows_percent"])
    return "\n".join([*rows, "", f"Median of {WINDOWS} windows of {found['seconds']:g} s: {told} %."])


@click.command()
@click.option("--seconds", type=click.FloatRange(1, 600), default=30, show_default=True, help="Per window.")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
def main(seconds: float, *, as_json: bool) -> None:
    """Watch the running lab do nothing, and print what that costs."""
    try:
        found = measured(seconds)
    except (NotRunningError, Changed) as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(found, indent=1) if as_json else table(found))


if __name__ == "__main__":
    sys.exit(main())
