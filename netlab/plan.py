"""In which order a planet's network is made, and what undoes each step. Pure.

A plan is a tuple of steps; apply.py carries them out, nothing here touches the machine. Steps of
one namespace stand together, because entering a namespace costs more than a step. What lies in a
namespace goes with it, so undoing a planet is dropping its namespaces and the host's link.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from netlab import names
from netlab.steps import (
    Addr,
    Bridge,
    MoveLink,
    Namespace,
    Neighbour,
    Route,
    Rule,
    Step,
    Sysctl,
    Tag,
    Up,
    Veth,
    undone,
)
from netlab.topology import City, Node, Pop, Topology

Network = IPv4Network | IPv6Network


#: Same everywhere: no duplicate detection (it delays addresses by seconds), no routes from strangers.
_BASE: Final = {
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv4.conf.default.accept_redirects": "0",
    "net.ipv6.conf.all.accept_redirects": "0",
    "net.ipv6.conf.default.accept_redirects": "0",
}
_FORWARD: Final = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    # Two ingress nodes in one POP share its flows by ports too, not by addresses alone.
    "net.ipv4.fib_multipath_hash_policy": "1",
    "net.ipv6.fib_multipath_hash_policy": "1",
}
# A node answers ARP for its LAN address only: the VIP on its `lo` is nobody's business there.
_NODE: Final = {"net.ipv4.conf.all.arp_ignore": "1", "net.ipv4.conf.all.arp_announce": "2"}
# The fabric's ports must not speak for themselves.
_MUTE: Final = {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}


def up(topology: Topology) -> tuple[Step, ...]:
    """Everything inside the planet; the host is attached by `attach`."""
    spaces: dict[str, dict[str, str]] = {names.WAN: _MUTE}
    for pop in topology.pops:
        spaces[names.router(pop.name)] = _BASE | _FORWARD
        spaces |= {names.node(node.name): _BASE | _NODE for node in pop.nodes}
    spaces[names.ORIGIN] = _BASE
    spaces |= {names.city(city.name): _BASE | _FORWARD for city in topology.cities}
    steps: list[Step] = [Namespace(space) for space in spaces]
    for space, sysctls in spaces.items():
        steps += [Sysctl(space, key, value) for key, value in sysctls.items()]
    for pop in topology.pops:
        steps += _router_links(topology, pop)
    for city in topology.cities:
        mac, far = names.city_mac(city.index), names.wire_city(city.name)
        steps.append(_wire(names.city(city.name), "eth0", mac, far))
    steps += _fabric(topology)
    for pop in topology.pops:
        steps += _router_addresses(topology, pop)
        for node in pop.nodes:
            steps += _node_addresses(topology, pop, node)
    steps += _origin_addresses(topology)
    for city in topology.cities:
        steps += _city_addresses(city)
    return tuple(steps)


def _wire(space: str, name: str, mac: str, far: str) -> Veth:
    """A cable into the fabric; the far end's MAC is the near one's, locally administered bit apart."""
    return Veth(space, name, mac, names.WAN, far, "06" + mac[2:])


def _router_links(topology: Topology, pop: Pop) -> Iterator[Step]:
    space = names.router(pop.name)
    yield Bridge(space, "lan", names.lan_mac(pop.index, 1))
    for node in pop.nodes:
        yield _lan_cable(space, pop, names.node_port(node.name), names.node(node.name), node.host)
    if topology.origin.pop == pop.name:
        yield _lan_cable(space, pop, names.node_port("origin"), names.ORIGIN, 9)
    yield _wire(space, "wan", names.wan_mac(pop.index), names.wan_port(pop.name))
    for city in topology.cities_of(pop.name):
        mac, far = names.access_mac(city.index), names.wire_router(city.name)
        yield _wire(space, names.city_port(city.name), mac, far)


def _lan_cable(space: str, pop: Pop, port: str, peer_ns: str, host: int) -> Veth:
    mac = names.lan_mac(pop.index, host)
    return Veth(space, port, "06" + mac[2:], peer_ns, "eth0", mac, master="lan")


def _fabric(topology: Topology) -> Iterator[Step]:
    ports = [names.wan_port(pop.name) for pop in topology.pops]
    for city in topology.cities:
        ports += [names.wire_city(city.name), names.wire_router(city.name)]
    for port in ports:
        yield Up(names.WAN, port)


def _no_link_local(space: str, dev: str) -> Sysctl:
    # BIRD prefers a link-local next hop, which no permanent neighbour could name.
    return Sysctl(space, f"net.ipv6.conf.{dev}.addr_gen_mode", "1")


def _router_addresses(topology: Topology, pop: Pop) -> Iterator[Step]:
    space = names.router(pop.name)
    yield Addr(space, "lan", str(pop.lan4[1]), 24)
    yield Addr(space, "lan", str(pop.lan6[1]), 64)
    yield _no_link_local(space, "wan")
    yield Addr(space, "wan", str(pop.wan4), 24)
    yield Addr(space, "wan", str(pop.wan6), 64)
    yield Up(space, "wan")
    for other in topology.pops:
        if other.name != pop.name:
            yield Neighbour(space, "wan", str(other.wan4), names.wan_mac(other.index))
            yield Neighbour(space, "wan", str(other.wan6), names.wan_mac(other.index))
    for city in topology.cities_of(pop.name):
        dev = names.city_port(city.name)
        yield from _access(space, dev, city, own=1, far=2, far_mac=names.city_mac(city.index))


def _access(space: str, dev: str, city: City, *, own: int, far: int, far_mac: str) -> Iterator[Step]:
    yield _no_link_local(space, dev)
    yield Addr(space, dev, str(city.net4[own]), 24)
    yield Addr(space, dev, str(city.net6[own]), 64)
    yield Up(space, dev)
    yield Neighbour(space, dev, str(city.net4[far]), far_mac)
    yield Neighbour(space, dev, str(city.net6[far]), far_mac)


def _city_addresses(city: City) -> Iterator[Step]:
    space = names.city(city.name)
    yield from _access(space, "eth0", city, own=2, far=1, far_mac=names.access_mac(city.index))
    yield Route(space, "0.0.0.0/0", str(city.net4[1]), "eth0")
    yield Route(space, "::/0", str(city.net6[1]), "eth0")


def _lan_host(space: str, pop: Pop, host: int) -> Iterator[Step]:
    yield Addr(space, "eth0", f"10.{pop.index}.0.{host}", 24)
    yield Addr(space, "eth0", f"fd5e:ed9e:{pop.index}::{host}", 64)
    yield Up(space, "eth0")
    yield Route(space, "0.0.0.0/0", str(pop.lan4[1]), "eth0")
    yield Route(space, "::/0", str(pop.lan6[1]), "eth0")


def _node_addresses(topology: Topology, pop: Pop, node: Node) -> Iterator[Step]:
    space = names.node(node.name)
    if node.ingress:
        yield Veth(space, names.MARKER, "02:ed:9e:aa:00:01", space, f"{names.MARKER}p", "02:ed:9e:aa:00:02")
        yield Up(space, f"{names.MARKER}p")
        yield Up(space, names.MARKER)
        # On `lo` for good, so that flows live on while the announcement comes and goes.
        yield Addr(space, "lo", str(topology.vip4), 32)
        yield Addr(space, "lo", str(topology.vip6), 128)
    yield from _lan_host(space, pop, node.host)


def _origin_addresses(topology: Topology) -> Iterator[Step]:
    yield from _lan_host(names.ORIGIN, topology.pop(topology.origin.pop), 9)


def attach(topology: Topology, city: str) -> tuple[Step, ...]:
    """The host becomes a user in `city`: the cable, the host's addresses, two routes, two rules.

    By the rules all that the host sends from the lab's addresses goes into the lab: an answer to
    somebody in there would else take the host's default route and leave the machine.
    """
    link, space = topology.host, names.city(city)
    return (
        Veth(space, "host", names.host_mac(2), names.HOST, names.HOST_LINK, names.host_mac(1)),
        *_host_at(topology, city),
        Tag(names.HOST, names.HOST_LINK),
        Sysctl(names.HOST, f"net.ipv6.conf.{names.HOST_LINK}.accept_ra", "0"),
        Sysctl(names.HOST, f"net.ipv6.conf.{names.HOST_LINK}.accept_dad", "0"),
        Addr(names.HOST, names.HOST_LINK, str(link.host4), link.net4.prefixlen),
        Addr(names.HOST, names.HOST_LINK, str(link.host6), link.net6.prefixlen),
        Up(names.HOST, names.HOST_LINK),
        Route(names.HOST, f"{topology.vip4}/32", str(link.city4), names.HOST_LINK, str(link.host4)),
        Route(names.HOST, f"{topology.vip6}/128", str(link.city6), names.HOST_LINK, str(link.host6)),
        Route(names.HOST, "0.0.0.0/0", str(link.city4), names.HOST_LINK, table=names.HOST_TABLE),
        Route(names.HOST, "::/0", str(link.city6), names.HOST_LINK, table=names.HOST_TABLE),
        Rule(names.HOST, str(link.host4), names.HOST_TABLE),
        Rule(names.HOST, str(link.host6), names.HOST_TABLE),
    )


def move(topology: Topology, old: str, new: str) -> tuple[Step, ...]:
    """Carry the city's end of the host's cable to another city.

    The host's own end and its routes stay, so that no packet for the VIP can leave by the
    host's default route in between.
    """
    arrive, leave = _host_at(topology, new), undo(_host_at(topology, old))
    return (*leave, MoveLink(names.city(old), "host", names.city(new)), *arrive)


def _host_at(topology: Topology, city: str) -> Iterator[Step]:
    link, space, at = topology.host, names.city(city), topology.city(city)
    # Up first, so that undoing takes the addresses before the kernel drops those of IPv6 with the link.
    yield Up(space, "host")
    yield Addr(space, "host", str(link.city4), link.net4.prefixlen)
    yield Addr(space, "host", str(link.city6), link.net6.prefixlen)
    router, dev = names.router(at.pop), names.city_port(city)
    yield Route(router, str(link.net4), str(at.net4[2]), dev)
    yield Route(router, str(link.net6), str(at.net6[2]), dev)


def undo(steps: Iterable[Step]) -> tuple[Step, ...]:
    """What takes `steps` back, last first. What lies in a namespace made here goes with it."""
    steps = tuple(steps)
    made = {step.ns for step in steps if isinstance(step, Namespace)}
    kept = [step for step in steps if isinstance(step, Namespace) or step.ns not in made]
    return tuple(back for step in reversed(kept) if (back := undone(step)) is not None)


def overlaps(topology: Topology, existing: Iterable[Network]) -> list[tuple[Network, Network]]:
    """(ours, existing) for every route of the host that covers or cuts an address of ours.

    Default routes and the halves and eighths that VPNs use in their place do not count: ours
    are more specific.
    """
    ours: tuple[Network, ...] = (
        IPv4Network(topology.vip4),
        IPv6Network(topology.vip6),
        topology.host.net4,
        topology.host.net6,
    )
    found = []
    for net in existing:
        for mine in ours:
            if net.version == mine.version and net.prefixlen > 3 and net.overlaps(mine):
                found.append((mine, net))  # noqa: PERF401 -- two loops and a test read better in the open
    return found
