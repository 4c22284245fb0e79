"""Which directed pairs does a frame take, and what is each like?

Pure: reads the fabric's config (JSON), builds one `Pair` per direction and one `Route`
per port. Knows Ethernet destinations and each pair's conditions and counters; knows no
sockets, no clock, no namespaces and nothing of what the frames carry.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from netlab.wanconditions import Conditions, ConfigError, one_way_ns
from netlab.wanfate import Lane, Why

MAX_PORTS = 512
DEFAULT_QUEUE_BYTES = 32 << 20
"""Bound of one directed pair: 3 Gbit/s for 85 ms."""


class Lan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One segment switched by destination MAC; `one_way_ms[from][to]` must be complete."""

    ports: tuple[str, ...] = ()
    macs: dict[str, str] = {}
    one_way_ms: dict[str, dict[str, float]] = {}


class Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two ports joined end to end, the same delay in both directions."""

    a: str
    b: str
    one_way_ms: float


class WanConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole fabric; `control` is the path of the UNIX socket it answers on.

    Each pair draws its losses from `seed` and its own name: the same packets meet the same fate again.
    """

    control: str
    lan: Lan = Lan()
    wires: tuple[Wire, ...] = ()
    queue_bytes: int = DEFAULT_QUEUE_BYTES
    seed: int = 1


class Pair:
    """One direction between two ports: what is wished of it, what the planet wishes, and what it did.

    `frames` counts what was handed on as one piece, `packets` and `bytes` what that is on a line:
    64 KiB under one header are 45 packets, each with its own. Drops and reordering count packets.
    """

    __slots__ = (
        "bytes",
        "cut",
        "draw",
        "dropped_by",
        "frames",
        "lane",
        "late",
        "newest_order",
        "one_way_ns",
        "origin",
        "packets",
        "per_packet",
        "planet",
        "queued_bytes",
        "reordered",
        "to",
        "wish",
    )

    def __init__(self, origin: str, to: str, planet: Conditions, seed: int = 1) -> None:
        self.origin = origin
        self.to = to
        self.planet = planet
        self.draw = random.Random(f"{seed} {origin} {to}").random  # noqa: S311 -- losses, not secrets
        #: A cut direction swallows what it is given.
        self.cut = False
        self.frames = self.packets = self.bytes = self.late = self.reordered = 0
        self.dropped_by = dict.fromkeys(Why, 0)
        self.queued_bytes = self.newest_order = 0
        self.lane = Lane()
        self.become(planet)

    def become(self, wish: Conditions) -> None:
        """Be like that from the next packet on; those under way keep their time.

        Who waits for the line goes on waiting, and jitter keeps the order, until rate or jitter are lifted.
        """
        self.wish = wish
        self.one_way_ns = round(wish.one_way_ms * 1e6)
        self.per_packet = wish.per_packet
        self.lane = Lane(
            self.lane.busy_until_ns if wish.rate_bps else 0, self.lane.last_due_ns if wish.jitter_ms else 0
        )

    def drop(self, why: Why, packets: int = 1) -> None:
        """Count packets that will not arrive."""
        self.dropped_by[why] += packets

    @property
    def dropped(self) -> int:
        """Packets that did not arrive, for whatever reason."""
        return sum(self.dropped_by.values())


@dataclass(frozen=True, slots=True)
class Route:
    """What a port does with what it hears."""

    wire: bool
    everyone: tuple[Pair, ...]
    by_mac: Mapping[bytes, tuple[Pair, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fabric:
    """Ports by name, pairs by (from, to)."""

    routes: Mapping[str, Route]
    pairs: Mapping[tuple[str, str], Pair]


def takers(route: Route, destination: bytes) -> tuple[Pair, ...]:
    """Pairs that carry a frame to this destination MAC (6 bytes); empty if nobody has it."""
    if route.wire or destination[0] & 1:
        return route.everyone
    return route.by_mac.get(destination, ())


def read_config(text: bytes) -> WanConfig:
    """Decode the JSON config; `ConfigError` names the field."""
    try:
        return msgspec.json.decode(text, type=WanConfig)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"not a WAN config: {error}") from error


def build(config: WanConfig) -> Fabric:
    """Turn a config into routes and pairs; `ConfigError` names the port or pair at fault."""
    names = [*config.lan.ports, *(end for wire in config.wires for end in (wire.a, wire.b))]
    _check_names(names)
    if config.queue_bytes < 1 << 17:
        raise ConfigError(
            f"queue_bytes: {config.queue_bytes} holds not even two full frames; write 131072 or more"
        )
    pairs: dict[tuple[str, str], Pair] = {}
    routes: dict[str, Route] = {}
    macs = {port: _mac(config.lan, port) for port in config.lan.ports}
    if len(set(macs.values())) != len(macs):
        raise ConfigError(f"lan.macs: two ports have one MAC in {config.lan.macs}; give each its own")
    for port in config.lan.ports:
        outs = {to: _lan_pair(config, port, to) for to in config.lan.ports if to != port}
        pairs |= {(port, to): pair for to, pair in outs.items()}
        routes[port] = Route(False, tuple(outs.values()), {macs[to]: (pair,) for to, pair in outs.items()})
    for wire in config.wires:
        for origin, to in ((wire.a, wire.b), (wire.b, wire.a)):
            pair = _pair(origin, to, wire.one_way_ms, f"wire {wire.a} - {wire.b}", config.seed)
            pairs[origin, to] = pair
            routes[origin] = Route(True, (pair,))
    return Fabric(routes, pairs)


def _check_names(names: list[str]) -> None:
    if not names:
        raise ConfigError("no ports: write lan.ports, or wires")
    if len(names) > MAX_PORTS:
        raise ConfigError(f"{len(names)} ports; one fabric takes at most {MAX_PORTS}")
    for name in names:
        if (
            not (0 < len(name.encode()) < 16)
            or name in {".", ".."}
            or any(c in "/:" or c.isspace() for c in name)
        ):
            raise ConfigError(
                f"port {name!r} is no interface name; write 1 to 15 bytes without / : or blanks"
            )
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(f"port {min(twice)} is used twice; a port belongs to the lan or to one wire")


def _mac(lan: Lan, port: str) -> bytes:
    text = lan.macs.get(port, "")
    try:
        mac = bytes.fromhex(text.replace(":", " "))
    except ValueError:
        mac = b""
    if len(mac) != 6 or mac[0] & 1:
        raise ConfigError(
            f"lan.macs[{port}]: {text!r} is no unicast MAC; write the router's own, like 02:00:00:00:00:01"
        )
    return mac


def _lan_pair(config: WanConfig, origin: str, to: str) -> Pair:
    value = config.lan.one_way_ms.get(origin, {}).get(to)
    if value is None:
        raise ConfigError(f"lan.one_way_ms[{origin}][{to}] is missing; write the delay in that direction")
    return _pair(origin, to, value, f"lan.one_way_ms[{origin}][{to}]", config.seed)


def _pair(origin: str, to: str, one_way_ms: float, where: str, seed: int) -> Pair:
    one_way_ns(one_way_ms, where)
    return Pair(origin, to, Conditions(one_way_ms=one_way_ms), seed)
