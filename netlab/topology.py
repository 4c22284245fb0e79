"""Which planet is asked for: frozen structs with every address, AS number and RTT worked out.

This is the *requested* state: it knows nothing of what runs, of this machine, of how any of it
is made, or of the file it was read from (planetfile.py).
"""

import difflib
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeVar

import msgspec

from netlab.earth import Place

WAN4: Final = IPv4Network("100.64.0.0/24")
WAN6: Final = IPv6Network("fd5e:ed9e:64::/64")

Address = IPv4Address | IPv6Address


class Lease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long an announcement lives without renewal, and how often it is renewed."""

    valid_s: float = 2.0
    renew_ms: int = 300


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The object store of record: an address of its own (.9) in one POP's LAN."""

    pop: str
    port: int = 8080


class Bfd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a session watches its other end: it is gone after `multiplier` intervals without a word."""

    interval_ms: int = 100
    multiplier: int = 3


class Bgp(msgspec.Struct, frozen=True, kw_only=True):
    """How routers choose among POPs, who speaks with whom, and who is slow to be chosen."""

    #: "rtt": the nearest POP, by an oracle; "as-path": the fewest networks in between, as outside a lab.
    prefer: str = "rtt"
    #: Pairs of POPs whose routers speak, sorted; None is all of them. With links, routers carry transit.
    links: tuple[tuple[str, str], ...] | None = None
    #: How often a POP puts its AS number once more before the anycast address.
    prepend: dict[str, int] = {}
    #: BFD between a router and its POP's nodes, and between routers; None is none.
    bfd_pop: Bfd | None = None
    bfd_wan: Bfd | None = None


class Routing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How every node routes, as node.yaml says it; None is popctl's own default."""

    mode: str | None = None
    hydrate: bool | None = None
    horizon_s: int | None = None
    min_resident_s: int | None = None
    ms_per_usd: float | None = None
    usd_per_gib: float | None = None


class Queue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may wait at every node's door, as node.yaml says it; None is popctl's own default."""

    max_waiting: int | None = None
    max_wait_ms: int | None = None


class Drain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How every node leaves, as node.yaml says it; None is popctl's own default."""

    lame_duck_ms: int | None = None
    finish_ms: int | None = None


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One machine of a POP; `host` is the last part of its LAN addresses (11, 12, ...).

    Sizes are texts as in node.yaml; a size or limit of None is popctl's own default.
    """

    name: str
    pop: str
    pop_index: int
    host: int
    ingress: bool
    workers: int
    device: str
    threads: int
    provider: str
    device_bytes: str | None = None
    disk_bytes: str | None = None
    soft_limit: int | None = None
    hard_limit: int | None = None

    @property
    def v4(self) -> IPv4Address:
        """Unicast address in the POP's LAN."""
        return IPv4Address(f"10.{self.pop_index}.0.{self.host}")

    @property
    def v6(self) -> IPv6Address:
        """Unicast address in the POP's LAN; the digits read like those of IPv4."""
        return IPv6Address(f"fd5e:ed9e:{self.pop_index}::{self.host}")


class Pop(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes of one site and its router; `index` is its place in the file, from 1.

    Without nodes it is a router alone: somebody's network that carries packets of others.
    """

    name: str
    index: int
    region: str
    nodes: tuple[Node, ...]
    at: Place | None = None

    @property
    def lan4(self) -> IPv4Network:
        """The POP's LAN; the router is its .1."""
        return IPv4Network(f"10.{self.index}.0.0/24")

    @property
    def lan6(self) -> IPv6Network:
        """The POP's LAN; the router is its ::1."""
        return IPv6Network(f"fd5e:ed9e:{self.index}::/64")

    @property
    def wan4(self) -> IPv4Address:
        """The router's address on the WAN."""
        return WAN4[self.index]

    @property
    def wan6(self) -> IPv6Address:
        """The router's address on the WAN; the digits read like those of IPv4."""
        return IPv6Address(f"fd5e:ed9e:64::{self.index}")

    @property
    def router_as(self) -> int:
        """Private AS number of the router."""
        return 65_000 + self.index

    @property
    def nodes_as(self) -> int:
        """Private AS number shared by the POP's ingress nodes."""
        return 65_100 + self.index


class Region(msgspec.Struct, frozen=True):
    """The POPs that share one weight index; `redis` is the node in whose namespace it runs, None is none."""

    name: str
    redis: str | None


class City(msgspec.Struct, frozen=True, kw_only=True):
    """Where users are: a wire to one POP's router. `index` is its place in the file, from 1."""

    name: str
    index: int
    pop: str
    rtt_ms: float

    @property
    def net4(self) -> IPv4Network:
        """The city's wire; the router is .1, the city .2."""
        return IPv4Network(f"10.{100 + self.index}.0.0/24")

    @property
    def net6(self) -> IPv6Network:
        """The city's wire; the router is ::1, the city ::2."""
        return IPv6Network(f"fd5e:ed9e:{100 + self.index}::/64")


class HostLink(msgspec.Struct, frozen=True, kw_only=True):
    """The wire between this machine and the city where it is a user."""

    city: str
    net4: IPv4Network
    net6: IPv6Network

    @property
    def host4(self) -> IPv4Address:
        """This machine's end."""
        return self.net4[-3]

    @property
    def city4(self) -> IPv4Address:
        """The city's end: the next hop of the VIP."""
        return self.net4[-2]

    @property
    def host6(self) -> IPv6Address:
        """This machine's end."""
        return self.net6[1]

    @property
    def city6(self) -> IPv6Address:
        """The city's end: the next hop of the VIP."""
        return self.net6[2]


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """A whole planet. Delays are kept per direction, under (from, to)."""

    name: str
    about: str
    vip4: IPv4Address
    vip6: IPv6Address
    lease: Lease
    host: HostLink
    origin: Origin
    pops: tuple[Pop, ...]
    regions: tuple[Region, ...]
    cities: tuple[City, ...]
    routing: Routing
    queue: Queue
    drain: Drain
    bgp: Bgp
    delays_ms: dict[tuple[str, str], float]

    def pop(self, name: str) -> Pop:
        """The POP of that name. Raises KeyError with the names that exist."""
        return _named(name, self.pops, "POP")

    def region(self, name: str) -> Region:
        """The region of that name. Raises KeyError with the names that exist."""
        return _named(name, self.regions, "region")

    @property
    def indexed(self) -> tuple[Region, ...]:
        """The regions that have a Redis."""
        return tuple(region for region in self.regions if region.redis is not None)

    def nodes_of(self, region: str) -> tuple[Node, ...]:
        """Every node of every POP of a region, in the file's order."""
        return tuple(node for pop in self.pops if pop.region == region for node in pop.nodes)

    def city(self, name: str) -> City:
        """The city of that name. Raises KeyError with the names that exist."""
        return _named(name, self.cities, "city")

    def node(self, name: str) -> Node:
        """The node of that name. Raises KeyError with the names that exist."""
        return _named(name, self.nodes, "node")

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node of every POP, in the file's order."""
        return tuple(node for pop in self.pops for node in pop.nodes)

    def rtt_ms(self, one: str, other: str) -> float:
        """RTT between two POPs; 0 from a POP to itself."""
        return self.one_way_ms(one, other) + self.one_way_ms(other, one)

    def one_way_ms(self, origin: str, to: str) -> float:
        """Delay of a packet from a POP to another; 0 from a POP to itself."""
        return 0.0 if origin == to else self.delays_ms[origin, to]

    @property
    def transit(self) -> bool:
        """Whether routers tell others what they learned: where not everybody speaks with everybody."""
        return self.bgp.links is not None

    def neighbours(self, pop: str) -> tuple[Pop, ...]:
        """The POPs whose routers speak BGP with that POP's."""
        links = self.bgp.links
        return tuple(
            other
            for other in self.pops
            if other.name != pop and (links is None or pair_of(pop, other.name) in links)
        )

    def nearest(self, city: str) -> Pop:
        """Of the POPs that announce, the nearest to a city's router; BGP may lead to another (paths.py)."""
        router = self.city(city).pop
        announcing = [pop for pop in self.pops if any(node.ingress for node in pop.nodes)]
        return min(announcing, key=lambda pop: self.rtt_ms(router, pop.name))

    def cities_of(self, pop: str) -> tuple[City, ...]:
        """Cities whose wire ends at that POP's router."""
        return tuple(city for city in self.cities if city.pop == pop)

    @property
    def origin4(self) -> IPv4Address:
        """Where the origin listens."""
        return self.pop(self.origin.pop).lan4[9]


def pair_of(one: str, other: str) -> tuple[str, str]:
    """A pair of POPs without a direction."""
    return (one, other) if one < other else (other, one)


N = TypeVar("N", Pop, Region, City, Node)


def _named(name: str, items: Sequence[N], kind: str) -> N:
    for item in items:
        if item.name == name:
            return item
    raise KeyError(unknown(name, [item.name for item in items], kind))


def unknown(name: str, known: Sequence[str], kind: str) -> str:
    """The sentence for a name that is not there: what was meant, or what there is."""
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
    return f"no {kind} is called {name!r}; {hint}"
