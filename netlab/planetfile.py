"""planet.yaml to a `Topology`, with errors that say where and what to write instead.

Each section is converted by itself, so that every error names the file, the line, the setting
and the next step. It refuses to know how a planet is built: it only reads what is asked for.
"""

import ipaddress
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from netlab import yamlfile
from netlab.sections import Sections
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
    pair_of,
    unknown,
)

SHIPPED: Final = Path(__file__).parent / "topologies"
#: What runs when no topology is given.
PLANET: Final = SHIPPED / "planet.yaml"
#: A name becomes part of an interface's name (15 bytes in all) and of a namespace's.
NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,11}")
#: Node names that would collide with the lab's own places: routers, cities, fabric, origin.
TAKEN: Final = re.compile(r"r-.*|c-.*|wan|origin|host")
MAX_POPS: Final = 32
MAX_NODES_PER_POP: Final = 32
MAX_CITIES: Final = 99
#: local_pref is 1000 - RTT, and must stay above zero for every pair.
MAX_RTT_MS: Final = 900.0
MAX_FILE_BYTES: Final = 1 << 20
_SIZE: Final = re.compile(r"[1-9]\d{0,14}(\.\d{1,3})?\s*(B|KiB|MiB|GiB|TiB)")
_MODES: Final = ("predicted", "waterfall", "nearest", "never")

C = TypeVar("C", Queue, Drain)


class _Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    city: str
    link: tuple[str, ...] = ("203.0.113.252/30", "fd5e:ed9e:ff::/64")


class _Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ingress: bool = False
    workers: int = 0
    device: str = "cpu"
    threads: int = 1
    provider: str = "lab"
    device_bytes: str | None = None
    disk_bytes: str | None = None
    soft_limit: int | None = None
    hard_limit: int | None = None


class _Region(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    redis: str | None = None


class _Pop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    region: str
    nodes: dict[str, object]


class _City(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pop: str
    rtt_ms: float


class _Planet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    anycast: tuple[str, ...] = ("198.51.100.1", "fd5e:ed9e::1")
    lease: object = None
    host: object = None
    origin: object = None
    pops: dict[str, object]
    regions: dict[str, object] = {}
    routing: object = None
    queue: object = None
    drain: object = None
    rtt_ms: dict[str, object]
    cities: dict[str, object]


def find(name: str) -> Path:
    """The file that `name` means: a topology that ships, or a path. Raises TopologyError."""
    shipped = {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}
    if name in shipped:
        return shipped[name]
    path = Path(name)
    if not path.exists() and path.name == name and not path.suffix:
        raise TopologyError(f"{unknown(name, list(shipped), 'topology')}; or give the path of a file")
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


class _Reader(Sections):
    """One reading of one file: each section is converted by itself, so that its place is known."""

    def topology(self) -> Topology:
        planet = self.section(self._settings.value, _Planet, ())
        self._check_name(planet.name, ("name",))
        pops = self._pops(planet.pops)
        names = [pop.name for pop in pops]
        cities = self._cities(planet.cities, names, [node.name for pop in pops for node in pop.nodes])
        vip4, vip6 = self._vips(planet.anycast)
        return Topology(
            name=planet.name,
            vip4=vip4,
            vip6=vip6,
            lease=self._lease(planet.lease),
            host=self._host(planet.host, cities),
            origin=self._origin(planet.origin, names),
            pops=pops,
            regions=self._regions(planet.regions, pops),
            cities=cities,
            routing=self._routing(planet.routing),
            queue=self._queue(planet.queue),
            drain=self._drain(planet.drain),
            rtts_ms=self._rtts(planet.rtt_ms, names),
        )

    def _check_name(self, name: str, path: yamlfile.Path) -> None:
        if not NAME.fullmatch(name):
            raise self.fail(path, f"{name!r} is no name: write a-z, 0-9 and -, at most 12, a letter first")

    def _known(self, name: str, names: Sequence[str], kind: str, path: yamlfile.Path) -> None:
        if name not in names:
            raise self.fail(path, unknown(name, names, kind))

    def _number(self, value: float, low: float, high: float, path: yamlfile.Path) -> float:
        if not low <= value <= high:
            raise self.fail(path, f"{value:g} is out of range: write a number from {low:g} to {high:g}")
        return value

    def _pops(self, raw: dict[str, object]) -> tuple[Pop, ...]:
        if not 1 <= len(raw) <= MAX_POPS:
            raise self.fail(("pops",), f"holds {len(raw)} POPs: write 1 to {MAX_POPS}")
        pops, seen = [], dict.fromkeys(raw, "a POP")
        for index, (name, value) in enumerate(raw.items(), 1):
            at: yamlfile.Path = ("pops", name)
            self._check_name(name, at)
            pop = self.section(value, _Pop, at)
            self._check_name(pop.region, (*at, "region"))
            if not 1 <= len(pop.nodes) <= MAX_NODES_PER_POP:
                raise self.fail(
                    (*at, "nodes"), f"holds {len(pop.nodes)} nodes: write 1 to {MAX_NODES_PER_POP}"
                )
            nodes = []
            for place, (node_name, node_value) in enumerate(pop.nodes.items()):
                node_at = (*at, "nodes", node_name)
                self._check_name(node_name, node_at)
                if TAKEN.fullmatch(node_name):
                    raise self.fail(node_at, f"{node_name!r} is a name the lab uses itself: write another")
                if node_name in seen:
                    raise self.fail(node_at, f"{node_name!r} is the name of {seen[node_name]} already")
                seen[node_name] = "a node"
                nodes.append(self._node(node_name, node_value, node_at, name, index, 11 + place))
            pops.append(Pop(name=name, index=index, region=pop.region, nodes=tuple(nodes)))
        if not any(node.ingress for pop in pops for node in pop.nodes):
            raise self.fail(("pops",), "no node announces the anycast address: give one `ingress: true`")
        return tuple(pops)

    def _node(self, name: str, raw: object, at: yamlfile.Path, pop: str, index: int, host: int) -> Node:
        node = self.section({} if raw is None else raw, _Node, at)
        self._number(node.workers, 0, 16, (*at, "workers"))
        self._number(node.threads, 1, 256, (*at, "threads"))
        if not re.fullmatch(r"cpu|cuda:\d{1,2}", node.device):
            raise self.fail((*at, "device"), f"{node.device!r} is no device: write cpu or cuda:0")
        self._check_name(node.provider, (*at, "provider"))
        for setting in ("device_bytes", "disk_bytes"):
            size = getattr(node, setting)
            if size is not None and not _SIZE.fullmatch(size):
                raise self.fail((*at, setting), f"{size!r} is no size: write 64MiB or 2GiB")
        for setting in ("soft_limit", "hard_limit"):
            limit = getattr(node, setting)
            if limit is not None:
                self._number(limit, 1, 65536, (*at, setting))
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

    def _regions(self, raw: dict[str, object], pops: Sequence[Pop]) -> tuple[Region, ...]:
        """Every region that a POP names; its Redis is on its first node unless the file says where."""
        nodes: dict[str, list[str]] = {}
        for pop in pops:
            nodes.setdefault(pop.region, []).extend(node.name for node in pop.nodes)
        homes = {region: names[0] for region, names in nodes.items()}
        for region, value in raw.items():
            at: yamlfile.Path = ("regions", region)
            self._known(region, list(nodes), "region of a POP", at)
            wish = self.section(value, _Region, at)
            if wish.redis is not None:
                self._known(wish.redis, nodes[region], f"node of {region}", (*at, "redis"))
                homes[region] = wish.redis
        return tuple(Region(name=region, redis=home) for region, home in homes.items())

    def _routing(self, raw: object) -> Routing:
        routing = self.section({} if raw is None else raw, Routing, ("routing",))
        if routing.mode is not None and routing.mode not in _MODES:
            raise self.fail(("routing", "mode"), f"{routing.mode!r} is none: write {', '.join(_MODES)}")
        return routing

    def _queue(self, raw: object) -> Queue:
        return self._counts(self.section({} if raw is None else raw, Queue, ("queue",)), "queue")

    def _drain(self, raw: object) -> Drain:
        return self._counts(self.section({} if raw is None else raw, Drain, ("drain",)), "drain")

    def _counts(self, section: C, at: str) -> C:
        for setting, value in msgspec.structs.asdict(section).items():
            if value is not None:
                self._number(value, 0, 1_000_000, (at, setting))
        return section

    def _cities(self, raw: dict[str, object], pops: Sequence[str], nodes: Sequence[str]) -> tuple[City, ...]:
        if not 1 <= len(raw) <= MAX_CITIES:
            raise self.fail(("cities",), f"holds {len(raw)} cities: write 1 to {MAX_CITIES}")
        cities = []
        for index, (name, value) in enumerate(raw.items(), 1):
            at = ("cities", name)
            self._check_name(name, at)
            if name in pops or name in nodes or name == "host":
                raise self.fail(at, f"{name!r} is the name of something else already; a city needs its own")
            city = self.section(value, _City, at)
            self._known(city.pop, pops, "POP", (*at, "pop"))
            self._number(city.rtt_ms, 0, MAX_RTT_MS, (*at, "rtt_ms"))
            cities.append(City(name=name, index=index, pop=city.pop, rtt_ms=city.rtt_ms))
        return tuple(cities)

    def _rtts(self, raw: dict[str, object], pops: Sequence[str]) -> dict[tuple[str, str], float]:
        pairs = {f"{one}-{other}": pair_of(one, other) for one in pops for other in pops if one != other}
        rtts: dict[tuple[str, str], float] = {}
        for key, value in raw.items():
            at = ("rtt_ms", key)
            if key not in pairs:
                raise self.fail(at, unknown(key, list(pairs), "pair of POPs"))
            if pairs[key] in rtts:
                raise self.fail(at, "this pair is there in the other order already; keep one of them")
            rtts[pairs[key]] = self._number(self.section(value, float, at), 0, MAX_RTT_MS, at)
        missing = [key for key, pair in pairs.items() if pair not in rtts]
        if missing:
            raise self.fail(("rtt_ms",), f"{missing[0]} is missing; write `{missing[0]}: 80` (milliseconds)")
        return rtts

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
        for address in (four.network_address, six.network_address):
            if address in WAN4 or address in WAN6 or address in IPv4Network("10.0.0.0/8"):
                raise self.fail(("anycast",), f"{address} lies in the lab's own addresses; write another")
            if address.is_multicast or address.is_loopback or address.is_unspecified:
                raise self.fail(("anycast",), f"{address} can't be routed; write a unicast address")
        return four.network_address, six.network_address

    def _lease(self, raw: object) -> Lease:
        lease = self.section({} if raw is None else raw, Lease, ("lease",))
        self._number(lease.valid_s, 1, 3600, ("lease", "valid_s"))
        if not 0 < lease.renew_ms * 3 <= lease.valid_s * 1000:
            limit = int(lease.valid_s * 1000 / 3)
            raise self.fail(
                ("lease", "renew_ms"),
                f"{lease.renew_ms} is out of range: write 1 to {limit}, a third of valid_s: one may be late",
            )
        return lease

    def _host(self, raw: object, cities: Sequence[City]) -> HostLink:
        names = [city.name for city in cities]
        host = self.section({"city": names[0]} if raw is None else raw, _Host, ("host",))
        self._known(host.city, names, "city", ("host", "city"))
        four, six = self._addresses(host.link, ("host", "link"), '[203.0.113.252/30, "fd5e:ed9e:ff::/64"]')
        if four.prefixlen > 30 or six.prefixlen > 126:
            raise self.fail(("host", "link"), "is too small for two ends: write at most a /30 and a /126")
        return HostLink(city=host.city, net4=four, net6=six)

    def _origin(self, raw: object, pops: Sequence[str]) -> Origin:
        origin = self.section({"pop": pops[0]} if raw is None else raw, Origin, ("origin",))
        self._known(origin.pop, pops, "POP", ("origin", "pop"))
        self._number(origin.port, 1, 65535, ("origin", "port"))
        return origin
