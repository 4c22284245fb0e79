"""`poplab topologies` and `poplab map`: which planets ship, and what one looks like.

Both only look. It refuses to know how a map is drawn (atlas.py) and how a lab is read (lab.py).
"""

import json
from typing import TYPE_CHECKING, Any

import click

from netlab.told import told

if TYPE_CHECKING:
    from netlab.atlas import Landed
    from netlab.lab import Lab
    from netlab.topology import Topology


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def topologies(*, as_json: bool) -> None:
    """The planets that ship, each for `poplab up -t NAME`."""
    from netlab import planetfile
    from netlab.view import table

    with told():
        found = [_counted(planetfile.load(path)) for path in planetfile.shipped().values()]
        if as_json:
            click.echo(json.dumps({"schema_version": 1, "topologies": found}, indent=1))
            return
        head = ("NAME", "POPS", "NODES", "WORKERS", "CITIES", "WHAT IT SHOWS")
        rows = [tuple(str(value) for value in planet.values()) for planet in found]
        click.echo("\n".join(table([head, *rows])))


def _counted(topology: "Topology") -> dict[str, Any]:
    return {
        "name": topology.name,
        "pops": len(topology.pops),
        "nodes": len(topology.nodes),
        "workers": sum(node.workers for node in topology.nodes),
        "cities": len(topology.cities),
        "about": topology.about,
    }


@click.command("map")
@click.option("-t", "--topology", help="A planet's file or name; what runs, or the planet, if left out.")
@click.option("--mermaid", is_flag=True, help="A mermaid graph, for Markdown.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def map_verb(topology: str | None, *, mermaid: bool, as_json: bool) -> None:
    """POPs, the RTTs between them, and which POP serves whom: where a lab runs, as it is now."""
    from netlab import atlas, planetfile
    from netlab.lab import Lab, NotRunningError

    with told():
        if mermaid and as_json:
            raise click.UsageError("write --mermaid or --json, not both")
        landed = None
        if topology is not None:
            planet = planetfile.load(planetfile.find(topology))
        else:
            try:
                lab = Lab.running()
                planet, landed = lab.topology, _landed(lab)
            except NotRunningError:
                planet = planetfile.load(planetfile.PLANET)
        found = atlas.world(planet, landed)
        click.echo(
            json.dumps(found, indent=1) if as_json else atlas.mermaid(found) if mermaid else atlas.text(found)
        )


def _landed(lab: "Lab") -> "Landed":
    nodes = {node.name: node.pop for node in lab.topology.nodes}
    return {
        city.name: {family: nodes.get(node, "") for family, node in lab.served_by(city.name).items()}
        for city in lab.topology.cities
    }
