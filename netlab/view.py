"""`poplab status` as text. Pure: plain values in, lines out, no colour, no boxes."""

from collections.abc import Sequence
from typing import Any


def status_text(status: dict[str, Any]) -> str:
    """The table a person reads."""
    host, wan, doors = status["host"], status["wan"], _doors(status)
    lines = [
        f"planet    {status['planet']}",
        f"anycast   {'  '.join(status['anycast'])}",
        f"wan       {wan['engine']}, {wan['late_frames']} late frames",
        *(f"          {link['from']} to {link['to']}: {link['text']}" for link in wan["links"]),
        *(f"broken    {fault['target']} ({fault['how']}): {fault['command']}" for fault in status["faults"]),
        f"host      in {host['city']}, served by {_led(host['served_by'], doors)}",
        "",
    ]
    head = ("POP", "REGION", "BGP", "NODE", "ADDRESS", "STATE", "ROLE")
    lines += table([head, *(row for pop in status["pops"] for row in _pop_rows(pop))])
    lines.append("")
    lines += table([("REGION", "REDIS ON", "ADDRESS", "STATE"), *(_region_row(r) for r in status["regions"])])
    lines.append("")
    lines += table(
        [("CITY", "ROUTER", "RTT", "SERVED BY"), *(_city_row(city, doors) for city in status["cities"])]
    )
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


def _pop_rows(pop: dict[str, Any]) -> Sequence[tuple[str, ...]]:
    place = (pop["pop"], pop["region"], f"{pop['bgp']['up']}/{pop['bgp']['of']}")
    nodes = [(*place, node["node"], node["address"], node["state"], _role(node)) for node in pop["nodes"]]
    return nodes or [(*place, "-", "-", "-", "router alone")]


def _region_row(region: dict[str, Any]) -> tuple[str, ...]:
    redis = region["redis"]
    if redis is None:
        return region["region"], "-", "-", "-"
    return region["region"], redis["node"], redis["address"], f"{redis['state']}, pid {redis['pid']}"


def _city_row(city: dict[str, Any], doors: dict[str, list[str]]) -> tuple[str, ...]:
    served = city["served_by"]
    pops = {end["pop"] for end in served.values()}
    far = f", not the nearest, {city['nearest']}" if pops != {city["nearest"]} and "" not in pops else ""
    return city["city"], city["router"], f"{city['rtt_ms']:g} ms", _led(served, doors) + far


def _doors(status: dict[str, Any]) -> dict[str, list[str]]:
    """POP -> its nodes that announce; of several, the router's hash chooses for each flow."""
    return {
        pop["pop"]: [node["node"] for node in pop["nodes"] if node["announced"]] for pop in status["pops"]
    }


def _role(node: dict[str, Any]) -> str:
    parts = []
    if node["ingress"]:
        parts.append("ingress, announced" if node["announced"] else "ingress, withdrawn")
    if node["workers"]:
        parts.append(f"{node['workers']} worker" + ("s" if node["workers"] > 1 else ""))
    return ", ".join(parts) or "-"


def _led(served: dict[str, dict[str, str]], doors: dict[str, list[str]]) -> str:
    four, six = served["v4"], served["v6"]
    if four["pop"] == six["pop"]:
        nodes = {end["node"] for end in (four, six)} | set(doors.get(four["pop"], ()))
        return f"{four['pop']} ({', '.join(sorted(nodes))})" if four["pop"] else "nobody"
    return f"{four['pop'] or 'nobody'} over IPv4, {six['pop'] or 'nobody'} over IPv6"


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell, no lines between."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join(row).rstrip() for row in padded]
