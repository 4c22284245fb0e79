"""planet.yaml to a `Topology`, with errors that say where and what to write instead.

Each section is converted by itself, so that every error names the file, the line, the setting
and the next step. It refuses to know how a planet is built: it only reads what is asked for.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from netlab import shape, yamlfile
from netlab.planetways import Ways
from netlab.sections import TopologyError as TopologyError  # what `load` and `parse` raise
from netlab.topology import (
    WAN4,
    WAN6,
    City,
    Drain,
    HostLink,
    Lease,
    Node,
    Origin,
    Pop,
    Queue,
    Region,
    Routing,
    Topology,
    unknown,
)

SHIPPED: Final = Path(__file__).parent / "topologies"
#: What runs when no topology is given.
PLANET: Final = SHIPPED / "planet.yaml"
#: A planet's own name goes into no interface's.
PLANET_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
#: fd5e:ed9e:64:: is the WAN, so no POP can be the 64th.
MAX_POPS: Final = 63
MAX_NODES_PER_POP: Final = 32
MAX_ABOUT: Final = 120
MAX_FILE_BYTES: Final = 1 << 20
#: Networks that the lab gives to POPs (1 to 63), its WAN (64) and cities (101 to 199).
OWN: Final[tuple[IPv4Network | IPv6Network, ...]] = (
    WAN4,
    IPv4Network("10.0.0.0/8"),
    WAN6,
    *(IPv6Network(f"fd5e:ed9e:{number}::/64") for number in range(1, 200)),
)
SIZE: Final = re.compile(r"[1-9]\d{0,14}(\.\d{1,3})?\s*(B|KiB|MiB|GiB|TiB)")

C = TypeVar("C", Queue, Drain)


def shipped() -> dict[str, Path]:
    """The topologies that ship, by name; the usual planet first."""
    found = {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}
    return {PLANET.stem: PLANET, **found}


def find(name: str) -> Path:
    """The file that `name` means: a topology that ships, or a path. Raises TopologyError."""
    there = shipped()
    if name in there:
        return there[name]
    path = Path(name)
    if not path.exists() and path.name == name and not path.suffix:
        raise TopologyError(f"{unknown(name, list(there), 'topology')}; or give the path of a file")
    return path


def load(path: Path) -> Topology:
    """The planet in the file. Raises TopologyError."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TopologyError(
            f"{path}: can't be read: {error.strerror}; give a topology with -t FILE"
        ) from error
    if len(raw) > MAX_FILE_BYTES:
        raise TopologyError(f"{path}: is larger than {MAX_FILE_BYTES} bytes: that is no topology")
    try:
        return parse(raw.decode(), str(path))
    except UnicodeDecodeError as error:
        raise TopologyError(f"{path}: is not UTF-8 text") from error


def parse(text: str, name: str = "planet.yaml") -> Topology:
    """Like `load`, from text; `name` stands in the errors."""
    try:
        return _Reader(yamlfile.read(text), name).topology()
    except yamlfile.YamlError as problem:
        raise TopologyError(f"{name}:{problem.line}: {problem}") from problem


class _Reader(Ways):
    """One reading of one file: each section is converted by itself, so that its place is known."""

    def topology(self) -> Topology:
        planet = self.section(self._settings.value, shape.Planet, ())
        if not PLANET_NAME.fullmatch(planet.name):
            raise self.fail(("name",), f"{planet.name!r} is no name: write a-z, 0-9 and -, at most 32")
        if len(planet.about) > MAX_ABOUT or "\n" in planet.about:
            raise self.fail(("about",), f"is too long: write one sentence of at most {MAX_ABOUT} characters")
        pops = self._pops(planet.pops)
        names = [pop.name for pop in pops]
        cities = self.cities(
            planet.cities, pops, [*names, *(node.name for pop in pops for node in pop.nodes)]
        )
        vip4, vip6 = self._vips(planet.anycast)
        return Topology(
            name=planet.name,
            about=planet.about,
            vip4=vip4,
            vip6=vip6,
            lease=self._lease(planet.lease),
            host=self._host(planet.host, cities, (vip4, vip6)),
            origin=self._origin(planet.origin, names),
            pops=pops,
            regions=self._regions(planet.regions, pops),
            cities=cities,
            routing=self._routing(planet.routing),
            queue=self._queue(planet.queue),
            drain=self._drain(planet.drain),
            bgp=self.bgp(planet.bgp, planet.bfd, pops),
            delays_ms=self.delays(planet.rtt_ms, pops),
        )

    def _pops(self, raw: Mapping[str, object]) -> tuple[Pop, ...]:
        if not 1 <= len(raw) <= MAX_POPS:
            raise self.fail(("pops",), f"holds {len(raw)} POPs: write 1 to {MAX_POPS}")
        pops, seen = [], dict.fromkeys(raw, "a POP")
        for index, (name, value) in enumerate(raw.items(), 1):
            at: yamlfile.Path = ("pops", name)
            self.check_name(name, at)
            pop = self.section(value, shape.Pop, at)
            self.check_name(pop.region, (*at, "region"))
            if len(pop.nodes) > MAX_NODES_PER_POP:
                raise self.fail(
                    (*at, "nodes"), f"holds {len(pop.nodes)} nodes: write at most {MAX_NODES_PER_POP}"
                )
            nodes = []
            for place, (node_name, node_value) in enumerate(pop.nodes.items()):
                node_at = (*at, "nodes", node_name)
                self.check_place(node_name, node_at)
                if node_name in seen:
                    raise self.fail(node_at, f"{node_name!r} is the name of {seen[node_name]} already")
                seen[node_name] = "a node"
                nodes.append(self._node(node_name, node_value, node_at, name, index, 11 + place))
            place_at = self.place(pop.at, at)
            pops.append(Pop(name=name, index=index, region=pop.region, nodes=tuple(nodes), at=place_at))
        if not any(node.ingress for pop in pops for node in pop.nodes):
            raise self.fail(("pops",), "no node announces the anycast address: give one `ingress: true`")
        return tuple(pops)

    def _node(self, name: str, raw: object, at: yamlfile.Path, pop: str, index: int, host: int) -> Node:
        node = self.section({} if raw is None else raw, shape.Node, at)
        self.number(node.workers, 0, 16, (*at, "workers"))
        self.number(node.threads, 1, 256, (*at, "threads"))
        if not re.fullmatch(r"cpu|cuda:\d{1,2}", node.device):
            raise self.fail((*at, "device"), f"{node.device!r} is no device: write cpu or cuda:0")
        self.check_name(node.provider, (*at, "provider"))
        for setting in ("device_bytes", "disk_bytes"):
            size = getattr(node, setting)
            if size is not None and not SIZE.fullmatch(size):
                raise self.fail((*at, setting), f"{size!r} is no size: write 64MiB or 2GiB")
        for setting in ("soft_limit", "hard_limit"):
            limit = getattr(node, setting)
            if limit is not None:
                self.number(limit, 1, 65536, (*at, setting))
        return Node(
            name=name,
            pop=pop,
            pop_index=index,
            host=host,
            ingress=node.ingress,
            workers=node.workers,
            device=node.device,
            threads=node.threads,
            provider=node.provider,
            device_bytes=node.device_bytes,
            disk_bytes=node.disk_bytes,
            soft_limit=node.soft_limit,
            hard_limit=node.hard_limit,
        )

    def _regions(self, raw: Mapping[str, object], pops: Sequence[Pop]) -> tuple[Region, ...]:
        """Every region that a POP names; its Redis is on its first node unless the file says otherwise."""
        nodes: dict[str, list[str]] = {}
        for pop in pops:
            nodes.setdefault(pop.region, []).extend(node.name for node in pop.nodes)
        homes: dict[str, str | None] = {region: next(iter(names), None) for region, names in nodes.items()}
        for region, value in raw.items():
            at: yamlfile.Path = ("regions", region)
            self.check_known(region, list(nodes), "region of a POP", at)
            wish = self.section(value, shape.Region, at)
            if wish.redis is True:
                raise self.fail((*at, "redis"), "write the node where it runs, or false for none")
            if wish.redis is False:
                homes[region] = None
            elif wish.redis is not None:
                self.check_known(wish.redis, nodes[region], f"node of {region}", (*at, "redis"))
                homes[region] = wish.redis
        return tuple(Region(name=region, redis=home) for region, home in homes.items())

    def _routing(self, raw: object) -> Routing:
        routing = self.section({} if raw is None else raw, Routing, ("routing",))
        if routing.mode is not None and routing.mode not in shape.MODES:
            raise self.fail(("routing", "mode"), f"{routing.mode!r} is none: write {', '.join(shape.MODES)}")
        return routing

    def _queue(self, raw: object) -> Queue:
        return self._counts(self.section({} if raw is None else raw, Queue, ("queue",)), "queue")

    def _drain(self, raw: object) -> Drain:
        return self._counts(self.section({} if raw is None else raw, Drain, ("drain",)), "drain")

    def _counts(self, section: C, at: str) -> C:
        for setting, value in msgspec.structs.asdict(section).items():
            if value is not None:
                self.number(value, 0, 1_000_000, (at, setting))
        return section

    def _addresses(
        self, texts: Sequence[str], at: yamlfile.Path, kind: str
    ) -> tuple[IPv4Network, IPv6Network]:
        four: list[IPv4Network] = []
        six: list[IPv6Network] = []
        for index, text in enumerate(texts):
            try:
                net = ipaddress.ip_network(text)
            except ValueError as error:
                raise self.fail((*at, index), f"{error}; write {kind}") from error
            if isinstance(net, IPv4Network):
                four.append(net)
            else:
                six.append(net)
        if len(four) != 1 or len(six) != 1:
            raise self.fail(at, f"needs one IPv4 and one IPv6 entry: write {kind}")
        return four[0], six[0]

    def _vips(self, texts: Sequence[str]) -> tuple[IPv4Address, IPv6Address]:
        four, six = self._addresses(texts, ("anycast",), '[198.51.100.1, "fd5e:ed9e::1"]')
        if four.prefixlen != 32 or six.prefixlen != 128:
            raise self.fail(
                ("anycast",), "these are networks: write single addresses, without a / and a length"
            )
        self._check_free((four, six), (), ("anycast",))
        return four.network_address, six.network_address

    def _check_free(
        self,
        nets: tuple[IPv4Network, IPv6Network],
        vips: Sequence[IPv4Address | IPv6Address],
        at: yamlfile.Path,
    ) -> None:
        """Raises TopologyError for what the lab needs itself, and for what no router carries."""
        for net in nets:
            if any(net.overlaps(own) for own in OWN if own.version == net.version):
                raise self.fail(at, f"{_plain(net)} lies in the lab's own addresses; write another")
            if any(vip in net for vip in vips):
                raise self.fail(at, f"{net} holds the anycast address; write another")
            if net.is_multicast or net.is_loopback or net.is_link_local or net.is_unspecified:
                raise self.fail(at, f"{_plain(net)} can't be routed; write a unicast address")

    def _lease(self, raw: object) -> Lease:
        lease = self.section({} if raw is None else raw, Lease, ("lease",))
        self.number(lease.valid_s, 1, 3600, ("lease", "valid_s"))
        if not 0 < lease.renew_ms * 3 <= lease.valid_s * 1000:
            limit = int(lease.valid_s * 1000 / 3)
            raise self.fail(
                ("lease", "renew_ms"),
                f"{lease.renew_ms} is out of range: write 1 to {limit}, a third of valid_s: one may be late",
            )
        return lease

    def _host(
        self, raw: object, cities: Sequence[City], vips: Sequence[IPv4Address | IPv6Address]
    ) -> HostLink:
        names = [city.name for city in cities]
        host = self.section({"city": names[0]} if raw is None else raw, shape.Host, ("host",))
        self.check_known(host.city, names, "city", ("host", "city"))
        four, six = self._addresses(host.link, ("host", "link"), '[203.0.113.252/30, "fd5e:ed9e:ff::/64"]')
        if four.prefixlen > 30 or six.prefixlen > 126:
            raise self.fail(("host", "link"), "is too small for two ends: write at most a /30 and a /126")
        self._check_free((four, six), vips, ("host", "link"))
        return HostLink(city=host.city, net4=four, net6=six)

    def _origin(self, raw: object, pops: Sequence[str]) -> Origin:
        origin = self.section({"pop": pops[0]} if raw is None else raw, Origin, ("origin",))
        self.check_known(origin.pop, pops, "POP", ("origin", "pop"))
        self.number(origin.port, 1, 65535, ("origin", "port"))
        return origin


def _plain(net: IPv4Network | IPv6Network) -> str:
    """As people write it: one address without its length."""
    return str(net.network_address if net.num_addresses == 1 else net)
