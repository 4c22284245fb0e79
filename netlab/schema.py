"""The JSON schema that editors complete a planet's file from: `python -m netlab.schema` writes it anew.

It is made of the very structs that `planetfile` reads, with the sections put in their places and
the bounds that `planetfile` keeps (schemabounds.py). What a schema can't say (names that must exist,
pairs that must be there) only `poplab` says.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from netlab import schemabounds, shape
from netlab.topology import Bfd, Drain, Lease, Origin, Queue, Routing

FILE: Final = Path(__file__).parent / "topologies" / "planet.schema.json"
#: The first line of a planet's file, by which editors with a YAML language server find the schema.
MODELINE: Final = "# yaml-language-server: $schema=planet.schema.json"

# Bounds as plain schema: with `Meta(ge=...)` on a number in a union msgspec 0.22.0 crashes the interpreter.
_Rtt = Annotated[
    float | tuple[float, float],
    shape.told("RTT in milliseconds, or [there, back] one way.", **schemabounds.RTT),
]
_Watch = Bfd | Literal[False]


class Pop(shape.Pop, frozen=True):
    """The nodes of one site and its router."""

    nodes: Annotated[
        Mapping[str, shape.Node | None], shape.told("None at all is a router that carries others' packets.")
    ] = {}


class Region(shape.Region, frozen=True):
    """POPs that share one weight index."""

    redis: Annotated[
        str | Literal[False] | None,
        shape.told("The node where the region's Redis runs; false for a region without one."),
    ] = None


class BfdWish(shape.BfdWish, frozen=True):
    """How soon a silent neighbour is missed; false for never."""

    pop: Annotated[_Watch, shape.told("A router and its nodes.")] = Bfd()
    wan: Annotated[_Watch, shape.told("Routers among each other.")] = False


class Planet(shape.Planet, frozen=True, kw_only=True):
    """A planet for `poplab up -t FILE`."""

    lease: Lease | None = None
    host: shape.Host | None = None
    origin: Origin | None = None
    pops: Annotated[Mapping[str, Pop], shape.told("In this order they get their addresses.")]
    regions: Annotated[Mapping[str, Region], shape.told("Where a region's Redis runs.")] = {}
    routing: Routing | None = None
    queue: Queue | None = None
    drain: Drain | None = None
    bgp: shape.Bgp | None = None
    bfd: BfdWish | None = None
    rtt_ms: Annotated[
        Mapping[str, _Rtt], shape.told("Pairs of POPs, as iad-fra; from `at` if left out.")
    ] = {}
    cities: Annotated[Mapping[str, shape.City], shape.told("Where users are.")]


def schema() -> dict[str, Any]:
    """The schema, JSON Schema draft 2020-12."""
    made = msgspec.json.schema(Planet)
    for section, settings in schemabounds.MORE.items():
        for setting, more in settings.items():
            made["$defs"][section]["properties"][setting] |= more
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A planet for poplab", **made}


def text() -> str:
    """What FILE holds."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=1).decode() + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    sys.stderr.write(f"wrote {FILE}\n")
