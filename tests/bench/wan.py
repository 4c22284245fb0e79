"""`python -m tests.bench.wan`: does the WAN do what it is asked to, and what does it cost?

Namespaces of its own around a real switch, no lab. RTTs by ICMP echo, idle and beside a TCP flow
without bound; a rate and a loss by the counters of the pair while such a flow runs. Prints Markdown;
a row whose window had too many late frames is marked void: it says more about the machine.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from netlab.clock import now_s, pause_s, wait_until
from netlab.wanwatch import Seen
from tests.bench import machine
from tests.bench.wanping import open_socket, round_trips_ms
from tests.support.wanworld import ROOT, World, running

THERE, BACK, ADDRESS = ("w-a", "w-b"), ("w-b", "w-a"), "10.77.0.2"
RTTS_MS: Final = (5, 20, 80, 160, 240)
RATES_BPS: Final = (1_000_000, 10_000_000, 100_000_000)
#: Ratio, and over how many packets: a tenth of a hundred losses would be chance.
LOSSES: Final = ((0.001, 1_000_000), (0.01, 100_000), (0.05, 100_000))
WINDOW_BYTES: Final = 64 << 20
IDLE_AIM_MS: Final = 1.0
LOADED_AIM_MS: Final = 5.0
RATE_AIM: Final = 0.05
LOSS_AIM: Final = 0.1
RAMP_S: Final = 3.0


@contextmanager
def flow(world: World) -> Iterator[None]:
    """TCP from a to b without end, by two processes of their own."""
    command = [sys.executable, "-m", "tests.bench.wanflow"]
    reader = subprocess.Popen(
        ["ip", "netns", "exec", world.ns("b"), *command, "receive", ADDRESS], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert reader.stdout is not None
    port = reader.stdout.readline().decode().strip()
    writer = subprocess.Popen(
        ["ip", "netns", "exec", world.ns("a"), *command, "send", ADDRESS, port],
        stdin=subprocess.PIPE,
        cwd=ROOT,
    )
    assert writer.stdin is not None
    try:
        yield
    finally:
        writer.stdin.close()
        for process in (writer, reader):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.stdout.close()


class Window:
    """What the switch did between two looks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._began = self._look()

    def _look(self) -> tuple[float, float, dict[str, Any], Seen]:
        assert self._world.switch is not None
        said = self._world.ask(op="stats")
        pair = next(p for p in said["pairs"] if (p["from"], p["to"]) == THERE)
        seen = Seen(sum(p["frames"] for p in said["pairs"]), said["late_total"])
        return now_s(), machine.tree_cpu_s(self._world.switch.pid), pair, seen

    def seen(self) -> dict[str, Any]:
        """Rate on the line, cost, losses and lateness since the beginning."""
        (t0, cpu0, pair0, seen0), (t1, cpu1, pair1, seen1) = self._began, self._look()
        line_bytes = pair1["bytes"] - pair0["bytes"]
        lost = pair1["dropped_by"].get("loss", 0) - pair0["dropped_by"].get("loss", 0)
        packets = pair1["packets"] - pair0["packets"] + lost
        window = Seen(seen1.frames - seen0.frames, seen1.late - seen0.late)
        return {
            "bps": line_bytes * 8 / (t1 - t0),
            "cpu_s_per_gb": (cpu1 - cpu0) / (line_bytes / 1e9) if line_bytes else 0.0,
            "packets": packets,
            "lost_ratio": lost / packets if packets else 0.0,
            "late_ratio": round(window.late_ratio, 4),
            "void": window.void,
        }


def wide_windows(world: World) -> None:
    """TCP of a and b may have 64 MiB under way."""

    def write() -> None:
        for name in ("tcp_rmem", "tcp_wmem"):
            path = Path("/proc/sys/net/ipv4") / name
            path.write_text(f"4096 131072 {WINDOW_BYTES}")
            assert path.read_text().split()[2] == str(WINDOW_BYTES)

    for name in ("a", "b"):
        world.inside(name, write)


def rtts(world: World, wanted: Sequence[int], count: int, *, loaded: bool) -> list[dict[str, Any]]:
    """A row per RTT: what was added to it, in ms, and what the flow got meanwhile."""
    rows = []
    for rtt_ms in wanted:
        world.reset(THERE, BACK)
        world.set_rtt(*THERE, rtt_ms)
        with world.inside("a", open_socket) as ping:
            round_trips_ms(ping, ADDRESS, 1, 0.01, 2.0)  # pays for neighbour discovery
            if loaded:
                with flow(world):
                    pause_s(RAMP_S)
                    window = Window(world)
                    took_ms = round_trips_ms(ping, ADDRESS, count, 0.01, 2.0)
                    seen = window.seen()
            else:
                window = Window(world)
                took_ms = round_trips_ms(ping, ADDRESS, count, 0.01, 2.0)
                seen = window.seen()
        added = [ms - rtt_ms for ms in took_ms]
        rows.append(
            {
                "rtt_ms": rtt_ms,
                "loaded": loaded,
                "echoes": len(took_ms),
                "median_ms": added[len(added) // 2],
                "p99_ms": added[int(len(added) * 0.99)],
                **seen,
            }
        )
        told(rows[-1])
    return rows


def rates(world: World, wanted: Sequence[int], for_s: float) -> list[dict[str, Any]]:
    """A row per rate over 20 ms: what one flow got on the line, after its first second."""
    rows = []
    for rate_bps in wanted:
        world.reset(THERE, BACK)
        world.set_rtt(*THERE, 20)
        world.set(*THERE, rate_bps=rate_bps)
        with flow(world):
            pause_s(1.0)
            window = Window(world)
            pause_s(for_s)
            rows.append({"rate_bps": rate_bps, **window.seen()})
        told(rows[-1])
    return rows


def losses(world: World, wanted: Sequence[tuple[float, int]]) -> list[dict[str, Any]]:
    """A row per ratio over 0 ms, by one flow with offload on, until so many packets were drawn for."""
    rows = []
    for ratio, packets in wanted:
        world.reset(THERE, BACK)
        world.set(*THERE, loss=ratio)
        with flow(world):
            window = Window(world)

            def enough(window: Window = window, packets: int = packets) -> bool:
                return int(window.seen()["packets"]) >= packets

            wait_until(enough, f"{packets} packets crossed", within_s=60, every_s=0.2)
            rows.append({"loss": ratio, **window.seen()})
        told(rows[-1])
    return rows


def told(row: dict[str, Any]) -> None:
    """Progress."""
    click.echo("  ".join(f"{name} {value:.4g}" for name, value in row.items()), err=True)


def _mark(row: dict[str, Any], *, met: bool) -> str:
    return ("" if met else ", **missed**") + (", void" if row["void"] else "")


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown."""
    lines = [
        "| RTT, ms | idle: added, median / p99 | beside a flow: added, median / p99 | flow, Mbit/s | CPU s per GB | late |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for idle, busy in zip(found["idle"], found["loaded"], strict=True):
        cells = [
            f"{row['median_ms']:.2f} / {row['p99_ms']:.2f}{_mark(row, met=row['median_ms'] <= aim)}"
            for row, aim in ((idle, IDLE_AIM_MS), (busy, LOADED_AIM_MS))
        ]
        late = f"{idle['late_ratio']:.1%} / {busy['late_ratio']:.1%}"
        lines.append(
            f"| {idle['rtt_ms']} | {cells[0]} | {cells[1]} | {busy['bps'] / 1e6:.0f} | {busy['cpu_s_per_gb']:.2f} | {late} |"
        )
    lines += ["", "| asked | got | off by | CPU s per GB | late |", "|---|---|---|---|---|"]
    for row in found["rates"]:
        off = row["bps"] / row["rate_bps"] - 1
        lines.append(
            _asked(row, f"{row['rate_bps'] / 1e6:g} Mbit/s", f"{row['bps'] / 1e6:.2f}", off, RATE_AIM)
        )
    for row in found["losses"]:
        off = row["lost_ratio"] / row["loss"] - 1
        got = f"{row['lost_ratio']:.3%} of {row['packets']}, at {row['bps'] / 1e6:.0f} Mbit/s"
        lines.append(_asked(row, f"{row['loss']:.1%} loss", got, off, LOSS_AIM))
    return "\n".join(lines)


def _asked(row: dict[str, Any], asked: str, got: str, off: float, aim: float) -> str:
    # A rate and a ratio hold on a late switch too: lateness voids times alone.
    mark = "" if abs(off) <= aim else ", **missed**"
    return f"| {asked} | {got} | {off:+.1%}{mark} | {row['cpu_s_per_gb']:.2f} | {row['late_ratio']:.1%} |"


@click.command()
@click.option("--quick", is_flag=True, help="Two RTTs, one rate, one loss: half a minute.")
@click.option("--json", "as_json", is_flag=True, help="Every number, as JSON.")
def main(*, quick: bool, as_json: bool) -> None:
    """Ask the switch for delays, rates and losses, and measure what comes."""
    wanted = (20, 80) if quick else RTTS_MS
    count = 100 if quick else 300
    with tempfile.TemporaryDirectory() as directory, running(f"epb{os.getpid()}", Path(directory)) as world:
        wide_windows(world)
        found = {
            "idle": rtts(world, wanted, count, loaded=False),
            "loaded": rtts(world, wanted, count, loaded=True),
            "rates": rates(world, RATES_BPS[1:2] if quick else RATES_BPS, 2.0 if quick else 5.0),
            "losses": losses(world, LOSSES[1:2] if quick else LOSSES),
        }
    facts = machine.facts()
    if as_json:
        click.echo(json.dumps({"machine": facts, **found}, indent=1))
    else:
        click.echo(table(found))
        click.echo(
            f"\n{facts['cores']} cores, {facts['processor']}, load average {facts['load_average']} at the end."
        )


if __name__ == "__main__":
    main()
