"""`python -m tests.bench.up`: how long `poplab up` and `down` take, and what memory a planet holds, by POPs.

Every size is a process of its own, as a user's would be: real nodes in four POPs, routers alone in the others,
every router in a session with every other over IPv4 and IPv6. Memory is PSS, where a page that n processes
share counts as 1/n in each. None may run before.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import click

from netlab import netns, start, state, supervise
from netlab.clock import now_s
from netlab.lab import Lab
from tests.bench.idle import members, pss_bytes
from tests.support import manypops

SIZES: Final = (4, 12, 50)
CONVERGE_WITHIN_S: Final = 240.0


def say(text: str) -> None:
    """Progress."""
    click.echo(text, err=True)


def kernel_bytes() -> int:
    """Unreclaimable memory that the kernel holds for itself."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return (
        sum(int(line.split()[1]) for line in lines if line.startswith(("SUnreclaim", "KernelStack"))) * 1024
    )


def measured(pops: int) -> dict[str, Any]:
    """One planet up and down again."""
    with tempfile.TemporaryDirectory() as folder:
        planet = Path(folder) / "planet.yaml"
        planet.write_text(manypops.text(pops))
        before = kernel_bytes()
        started_s = now_s()
        lab, fresh = start.up(start.Wish(planet=planet, converge_within_s=CONVERGE_WITHIN_S), say)
        took_s = now_s() - started_s
        if not fresh:
            raise click.ClickException("a lab runs already; `poplab down` first")
        try:
            row = {"pops": pops, "nodes": len(lab.topology.nodes), "up_s": round(took_s, 1), **_memory(lab)}
            row["kernel_mib"] = (kernel_bytes() - before) >> 20
        finally:
            started_s = now_s()
            start.down()
        row["down_s"] = round(now_s() - started_s, 1)
    return row


def _memory(lab: Lab) -> dict[str, int]:
    kinds = members()
    birds = [pid for pid, kind in kinds.items() if "BIRD" in kind]
    return {
        "sessions": sum(len(lab.sessions(f"r-{pop.name}")) for pop in lab.topology.pops),
        "namespaces": len(netns.names()),
        "processes": len(kinds),
        "pss_mib": sum(pss_bytes(pid) for pid in kinds) >> 20,
        "bird_mib": sum(pss_bytes(pid) for pid in birds) >> 20,
    }


@click.command()
@click.option("--pops", type=click.IntRange(1, 63), multiple=True, default=SIZES, show_default=True)
@click.option("--times", type=click.IntRange(1, 20), default=1, show_default=True)
def main(pops: tuple[int, ...], times: int) -> None:
    """Bring planets of several sizes up and down; one JSON line for each."""
    if state.read() is not None:
        raise click.ClickException("a lab runs already; `poplab down` first")
    try:
        for _ in range(times):
            for size in pops:
                click.echo(json.dumps(measured(size)))
    except (start.MissingError, start.RefusedError, supervise.ProgramFailedError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
