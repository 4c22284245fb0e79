"""What may stand in a planet's file: its settings, their types and their defaults, as written.

`planetfile` reads one section at a time by these structs, so that an error knows its place;
`schema` makes of them what an editor completes from. They refuse to know what a setting leads
to (topology.py) and whether values fit together.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from netlab.earth import Place
from netlab.topology import Bfd


def told(text: str, **schema: Any) -> Meta:
    """What an editor shows for a setting, and the bounds that it checks."""
    return Meta(description=text, extra_json_schema=schema or None)


MODES: Final = ("predicted", "waterfall", "nearest", "never")
PREFERENCES: Final = ("rtt", "as-path")

At = Annotated[
    Place | None, told("Latitude and longitude in degrees; RTTs that are left out follow from it.")
]
_Size = Annotated[str | None, told("As in 64MiB; popctl's own default if left out.")]
_Limit = Annotated[int | None, told("Requests; popctl's own default if left out.", minimum=1, maximum=65536)]
_Count = Annotated[int | None, told("popctl's own default if left out.", minimum=0)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping of known settings."""


class Host(Section, frozen=True):
    """This machine, as one more user of the anycast address."""

    city: Annotated[str, told("Where it is attached; `poplab move CITY` changes it.")]
    link: Annotated[tuple[str, ...], told("An IPv4 and an IPv6 network for the wire between the two.")] = (
        "203.0.113.252/30",
        "fd5e:ed9e:ff::/64",
    )


class Node(Section, frozen=True):
    """One machine of a POP."""

    ingress: Annotated[bool, told("Announces the anycast address.")] = False
    workers: Annotated[int, told("Processes that own one device each.", minimum=0, maximum=16)] = 0
    device: Annotated[str, told("cpu or cuda:0.", pattern=r"^(cpu|cuda:\d{1,2})$")] = "cpu"
    threads: Annotated[int, told("Of each worker.", minimum=1, maximum=256)] = 1
    provider: Annotated[str, told("Whose network it stands in, for egress prices.")] = "lab"
    device_bytes: _Size = None
    disk_bytes: _Size = None
    soft_limit: _Limit = None
    hard_limit: _Limit = None


class Region(Section, frozen=True):
    """POPs that share one weight index."""

    redis: Annotated[
        str | bool | None, told("The node where the region's Redis runs; false for a region without one.")
    ] = None


class Pop(Section, frozen=True):
    """The nodes of one site and its router."""

    region: Annotated[str, told("POPs of one region share a Redis.")]
    at: At = None
    nodes: Annotated[Mapping[str, object], told("None at all is a router that carries others' packets.")] = {}


class City(Section, frozen=True):
    """Where users are: a wire to one POP's router."""

    pop: Annotated[str, told("Whose router its wire ends at; who serves it is BGP's choice.")]
    rtt_ms: Annotated[float | None, told("To that router; from `at` if left out.", minimum=0)] = None
    at: At = None


class Bgp(Section, frozen=True):
    """How routers choose among POPs."""

    prefer: Annotated[
        str,
        told("rtt: the nearest POP always wins; as-path: the fewest networks in between.", enum=PREFERENCES),
    ] = "rtt"
    links: Annotated[
        tuple[str, ...] | None, told("Pairs of POPs whose routers speak BGP, as iad-fra; all if left out.")
    ] = None
    prepend: Annotated[
        Mapping[str, int], told("POP: how often it puts its AS number once more before the anycast address.")
    ] = {}


class BfdWish(Section, frozen=True):
    """Who watches whom in milliseconds; false for nobody."""

    pop: Annotated[object, told("A router and its nodes.")] = Bfd()
    wan: Annotated[object, told("Routers among each other.")] = False


class Planet(Section, frozen=True, kw_only=True):
    """A whole planet for `poplab up -t FILE`."""

    name: Annotated[str, told("What it is called.")]
    about: Annotated[str, told("One sentence for `poplab topologies`.")] = ""
    anycast: Annotated[tuple[str, ...], told("The one address: IPv4 and IPv6.")] = (
        "198.51.100.1",
        "fd5e:ed9e::1",
    )
    lease: Annotated[object, told("How long an announcement lives, and how often it is renewed.")] = None
    host: Annotated[object, told("This machine, as a user.")] = None
    origin: Annotated[object, told("The object store of record.")] = None
    pops: Annotated[Mapping[str, object], told("In this order they get their addresses.")]
    regions: Annotated[Mapping[str, object], told("Where a region's Redis runs.")] = {}
    routing: Annotated[object, told("As in node.yaml, for all nodes.")] = None
    queue: Annotated[object, told("As in node.yaml, for all nodes.")] = None
    drain: Annotated[object, told("As in node.yaml, for all nodes.")] = None
    bgp: Annotated[object, told("How routers choose among POPs.")] = None
    bfd: Annotated[object, told("How soon a silent neighbour is missed.")] = None
    rtt_ms: Annotated[
        Mapping[str, object],
        told("Pairs of POPs, as iad-fra: a number, or [there, back] one way; from `at` if left out."),
    ] = {}
    cities: Annotated[Mapping[str, object], told("Where users are.")]
