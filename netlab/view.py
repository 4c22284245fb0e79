"""`poplab status` as text. Pure: plain values in, lines out, no colour, no boxes."""

from collections.abc import Sequence
from typing import Any


def status_text(status: dict[str, Any]) -> str:
    """The table a person reads."""
    host, wan = status["host"], status["wan"]
    lines = [
        f"planet    {status['planet']}",
        f"anycast   {'  '.join(status['anycast'])}",
        f"wan       {wan['engine']}, {wan['late_frames']} late frames",
        f"host      in {host['city']}, served by {_led(host['served_by'])}",
        "",
    ]
    head = ("POP", "REGION", "BGP", "NODE", "ADDRESS", "STATE", "ROLE")
    lines += _table([head, *(_node_row(pop, node) for pop in status["pops"] for node in pop["nodes"])])
    lines.append("")
    lines += _table(
        [("REGION", "REDIS ON", "ADDRESS", "STATE"), *(_region_row(r) for r in status["regions"])]
    )
    lines.append("")
    lines += _table([("CITY", "ROUTER", "RTT", "SERVED BY"), *(_city_row(city) for city in status["cities"])])
    dead = [process["name"] for process in status["processes"] if process["state"] != "up"]
    alive = len(status["processes"]) - len(dead)
    lines += ["", f"processes {alive} up" + (f", down: {', '.join(dead)}" if dead else "")]
    return "\n".join(lines)


def next_text(vip: str, away: str, command: str) -> str:
    """Three commands to try; `away` is a city to move to, `command` how `poplab` was called."""
    return f"""try next:
  curl -s http://{vip}/run/minilm -d 'How do I reach the nearest GPU?'
  curl -si http://{vip}/run/magika --data-binary @README.md
  {command} move {away} && curl -s http://{vip}/pop"""


def _node_row(pop: dict[str, Any], node: dict[str, Any]) -> tuple[str, ...]:
    place = (pop["pop"], pop["region"], f"{pop['bgp']['up']}/{pop['bgp']['of']}")
    return *place, node["node"], node["address"], node["state"], _role(node)


def _region_row(region: dict[str, Any]) -> tuple[str, ...]:
    redis = region["redis"]
    if redis is None:
        return region["region"], "-", "-", "-"
    return region["region"], redis["node"], redis["address"], f"{redis['state']}, pid {redis['pid']}"


def _city_row(city: dict[str, Any]) -> tuple[str, ...]:
    return city["city"], city["router"], f"{city['rtt_ms']:g} ms", _led(city["served_by"])


def _role(node: dict[str, Any]) -> str:
    parts = []
    if node["ingress"]:
        parts.append("ingress, announced" if node["announced"] else "ingress, withdrawn")
    if node["workers"]:
        parts.append(f"{node['workers']} worker" + ("s" if node["workers"] > 1 else ""))
    return ", ".join(parts) or "-"


def _led(served: dict[str, dict[str, str]]) -> str:
    four, six = served["v4"], served["v6"]
    if four == six:
        return f"{four['pop']} ({four['node']})" if four["pop"] else "nobody"
    return f"{four['pop'] or 'nobody'} over IPv4, {six['pop'] or 'nobody'} over IPv6"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join(row).rstrip() for row in padded]
