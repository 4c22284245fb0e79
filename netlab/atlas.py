"""A planet as a picture: plain values, text for a terminal, a graph for mermaid. Pure.

Told where cities really land it shows that, else what BGP is expected to choose; either way it
says who is not served by the nearest POP. It refuses to know how that was found out (mapverbs.py).
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Final

from netlab import paths
from netlab.topology import City, Topology
from netlab.view import table

#: Landed[city] = {"v4": POP, "v6": POP}; an empty name is nobody.
Landed = Mapping[str, Mapping[str, str]]
#: A table of more POPs is wider than a terminal: then each POP's nearest are listed.
MAX_COLUMNS: Final = 12
NEAREST: Final = 3


def world(topology: Topology, landed: Landed | None = None) -> dict[str, Any]:
    """The map as plain values, for --json."""
    expected = {city: way[-1] for city, way in paths.catchments(topology).items()}
    return {
        "schema_version": 1,
        "planet": topology.name,
        "about": topology.about,
        "running": landed is not None,
        "prefer": topology.bgp.prefer,
        "pops": [
            {
                "pop": pop.name,
                "region": pop.region,
                "at": pop.at,
                "nodes": len(pop.nodes),
                "ingress": sum(node.ingress for node in pop.nodes),
                "workers": sum(node.workers for node in pop.nodes),
            }
            for pop in topology.pops
        ],
        "links": [
            {
                "from": one.name,
                "to": other.name,
                "there_ms": topology.one_way_ms(one.name, other.name),
                "back_ms": topology.one_way_ms(other.name, one.name),
                "bgp": other in topology.neighbours(one.name),
            }
            for one, other in combinations(topology.pops, 2)
        ],
        "cities": [_city(topology, city, expected, landed) for city in topology.cities],
    }


def _city(
    topology: Topology, city: City, expected: Mapping[str, str], landed: Landed | None
) -> dict[str, Any]:
    wanted = expected.get(city.name, "")
    served = dict(landed[city.name]) if landed is not None else {"v4": wanted, "v6": wanted}
    nearest = topology.nearest(city.name).name
    at = served["v4"]
    rtt_ms = paths.rtt_ms(topology, city, at) if at else None
    return {
        "city": city.name,
        "router": city.pop,
        "access_ms": city.rtt_ms,
        "served_by": served,
        "rtt_ms": None if rtt_ms is None else round(rtt_ms, 1),
        "expected": wanted,
        "nearest": nearest,
        "nearest_ms": round(city.rtt_ms + topology.rtt_ms(city.pop, nearest), 1),
        "lands_at_nearest": set(served.values()) == {nearest},
    }


def text(found: Mapping[str, Any]) -> str:
    """The tables a person reads."""
    state = "running: who is served where is read from the routers" if found["running"] else "not running"
    choice = "RTTs decide" if found["prefer"] == "rtt" else "AS paths decide"
    lines = [f"planet  {found['planet']}, {state}", f"BGP     {choice}", ""]
    pops = [pop["pop"] for pop in found["pops"]]
    if len(pops) > 1:
        lines += [*_distances(pops, found["links"]), ""]
    lines += [
        f"one way: {link['from']} to {link['to']} {link['there_ms']:g} ms, back {link['back_ms']:g} ms"
        for link in found["links"]
        if link["there_ms"] != link["back_ms"]
    ]
    head = ("CITY", "ROUTER", "SERVED BY", "RTT", "NEAREST")
    return "\n".join([*lines, *table([head, *(_row(city) for city in found["cities"])])])


def _distances(pops: list[str], links: list[Mapping[str, Any]]) -> list[str]:
    rtts = {frozenset((link["from"], link["to"])): link for link in links}

    def cell(one: str, other: str) -> str:
        if one == other:
            return "-"
        link = rtts[frozenset((one, other))]
        value = f"{link['there_ms'] + link['back_ms']:g}"
        return value if link["bgp"] else f"({value})"

    if len(pops) <= MAX_COLUMNS:
        rows = [("RTT, ms", *pops), *((one, *(cell(one, other) for other in pops)) for one in pops)]
    else:
        rows = [("POP", "NEAREST, RTT in ms")]
        for one in pops:
            links_of = [link for pair, link in rtts.items() if one in pair]
            near = sorted(links_of, key=lambda link: float(link["there_ms"] + link["back_ms"]))[:NEAREST]
            names = [link["to"] if link["from"] == one else link["from"] for link in near]
            rows.append((one, ", ".join(f"{name} {cell(one, name)}" for name in names)))
    told = table(rows)
    return told if all(link["bgp"] for link in links) else [*told, "in brackets: their routers do not speak"]


def _row(city: Mapping[str, Any]) -> tuple[str, ...]:
    four, six = city["served_by"]["v4"] or "nobody", city["served_by"]["v6"] or "nobody"
    served = four if four == six else f"{four} over IPv4, {six} over IPv6"
    rtt = "-" if city["rtt_ms"] is None else f"{city['rtt_ms']:g} ms"
    near = "yes" if city["lands_at_nearest"] else f"no: {city['nearest']} is {city['nearest_ms']:g} ms away"
    return city["city"], city["router"], served, rtt, near


def mermaid(found: Mapping[str, Any]) -> str:
    """A flowchart: POPs, links with their RTT, cities; dashed lines are cities, red ones landed far."""
    lines = ["graph LR"]
    for pop in found["pops"]:
        inside = f"{pop['region']}, nodes {pop['nodes']}, workers {pop['workers']}"
        lines.append(f'  p_{_id(pop["pop"])}["{pop["pop"]}<br/>{inside if pop["nodes"] else "router"}"]')
    for link in found["links"]:
        one, other = f"p_{_id(link['from'])}", f"p_{_id(link['to'])}"
        if not link["bgp"]:
            continue
        if link["there_ms"] == link["back_ms"]:
            lines.append(f'  {one} ---|"{link["there_ms"] * 2:g} ms"| {other}')
        else:
            lines.append(f'  {one} -->|"{link["there_ms"]:g} ms"| {other}')
            lines.append(f'  {other} -->|"{link["back_ms"]:g} ms"| {one}')
    far = []
    for city in found["cities"]:
        name = f"c_{_id(city['city'])}"
        lines.append(f'  {name}(("{city["city"]}"))')
        landed = sorted(set(city["served_by"].values()) - {""})
        lines += [f'  {name} -.->|"{_ms(city["rtt_ms"])}"| p_{_id(pop)}' for pop in landed]
        far += [name] * (not city["lands_at_nearest"])
    if far:
        lines += ["  classDef far stroke:#c00,color:#c00;", f"  class {','.join(far)} far;"]
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "?" if value is None else f"{value:g} ms"


def _id(name: str) -> str:
    return name.replace("-", "_")
