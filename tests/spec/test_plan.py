"""The order in which a planet is made, and what takes it back."""

from ipaddress import ip_network

import pytest

from netlab import names, plan, planetfile
from netlab.planetfile import PLANET
from netlab.steps import (
    Addr,
    Drop,
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
from netlab.topology import Topology


@pytest.fixture(scope="module")
def planet() -> Topology:
    return planetfile.load(PLANET)


@pytest.fixture(scope="module")
def steps(planet: Topology) -> tuple[Step, ...]:
    return plan.up(planet)


def test_every_step_stands_in_a_namespace_made_before(steps: tuple[Step, ...]) -> None:
    made: set[str] = set()
    for step in steps:
        if isinstance(step, Namespace):
            made.add(step.ns)
        else:
            assert step.ns in made, step
            assert not isinstance(step, Veth) or step.peer_ns in made, step


def test_nothing_inside_the_planet_touches_the_host(steps: tuple[Step, ...]) -> None:
    assert not [step for step in steps if step.ns == names.HOST]


def test_an_interface_exists_before_it_is_used(steps: tuple[Step, ...]) -> None:
    there: set[tuple[str, str]] = set()
    for step in steps:
        match step:
            case Veth():
                there |= {(step.ns, step.name), (step.peer_ns, step.peer)}
                assert not step.master or (step.ns, step.master) in there
            case Namespace(ns):
                there.add((ns, "lo"))
            case Addr(ns, dev) | Route(ns, _, _, dev) | Neighbour(ns, dev):
                assert (ns, dev) in there, step
            case Sysctl():
                pass
            case _:
                there.add((step.ns, getattr(step, "name", "")))


def test_names_of_interfaces_fit_the_kernel(steps: tuple[Step, ...]) -> None:
    for step in steps:
        if isinstance(step, Veth):
            assert len(step.name) <= 15
            assert len(step.peer) <= 15


def test_no_two_cables_share_a_mac(steps: tuple[Step, ...]) -> None:
    cables = [step for step in steps if isinstance(step, Veth) and step.name != names.MARKER]
    macs = [mac for cable in cables for mac in (cable.mac, cable.peer_mac)]
    assert len(macs) == len(set(macs))


def test_routers_know_each_other_without_asking(planet: Topology, steps: tuple[Step, ...]) -> None:
    known = {(s.ns, s.address): s.mac for s in steps if isinstance(s, Neighbour) and s.dev == "wan"}
    macs = {s.ns: s.mac for s in steps if isinstance(s, Veth) and s.name == "wan"}
    for one in planet.pops:
        for other in planet.pops:
            if one is not other:
                for address in (other.wan4, other.wan6):
                    assert known[names.router(one.name), str(address)] == macs[names.router(other.name)]


def test_the_vip_is_for_good_on_ingress_nodes_and_nowhere_else(
    planet: Topology, steps: tuple[Step, ...]
) -> None:
    vips = {str(planet.vip4), str(planet.vip6)}
    there = {(s.ns, s.dev) for s in steps if isinstance(s, Addr) and s.address in vips}
    assert there == {(names.node(node.name), "lo") for node in planet.nodes if node.ingress}


def test_undoing_the_planet_is_dropping_its_namespaces(steps: tuple[Step, ...]) -> None:
    back = plan.undo(steps)
    made = [step for step in steps if isinstance(step, Namespace)]
    assert back == tuple(Drop(step) for step in reversed(made))


def test_the_host_gets_exactly_two_routes_and_two_addresses(planet: Topology) -> None:
    on_host = [step for step in plan.attach(planet, "nyc") if step.ns == names.HOST]
    assert [(s.to, s.via, s.src) for s in on_host if isinstance(s, Route) and not s.table] == [
        ("198.51.100.1/32", "203.0.113.254", "203.0.113.253"),
        ("fd5e:ed9e::1/128", "fd5e:ed9e:ff::2", "fd5e:ed9e:ff::1"),
    ]
    assert [(s.address, s.prefix) for s in on_host if isinstance(s, Addr)] == [
        ("203.0.113.253", 30),
        ("fd5e:ed9e:ff::1", 64),
    ]
    assert {s.dev for s in on_host if isinstance(s, (Addr, Route))} == {names.HOST_LINK}
    assert {s.key.split(".")[3] for s in on_host if isinstance(s, Sysctl)} == {names.HOST_LINK}
    assert [s.name for s in on_host if isinstance(s, Tag)] == [names.HOST_LINK]


def test_what_the_host_sends_from_the_labs_addresses_can_only_go_into_the_lab(planet: Topology) -> None:
    on_host = [step for step in plan.attach(planet, "nyc") if step.ns == names.HOST]
    assert [(s.source, s.table) for s in on_host if isinstance(s, Rule)] == [
        ("203.0.113.253", names.HOST_TABLE),
        ("fd5e:ed9e:ff::1", names.HOST_TABLE),
    ]
    assert [(s.to, s.via) for s in on_host if isinstance(s, Route) and s.table == names.HOST_TABLE] == [
        ("0.0.0.0/0", "203.0.113.254"),
        ("::/0", "fd5e:ed9e:ff::2"),
    ]


def test_moving_leaves_the_host_alone(planet: Topology) -> None:
    steps = plan.move(planet, "nyc", "tyo")
    assert not [step for step in steps if step.ns == names.HOST]
    assert MoveLink(names.city("nyc"), "host", names.city("tyo")) in steps
    assert [s.of.ns for s in steps if isinstance(s, Drop) and isinstance(s.of, Route)] == [
        names.router("iad")
    ] * 2
    assert [s.ns for s in steps if isinstance(s, Route)] == [names.router("nrt")] * 2


def test_undoing_a_move_is_moving_back(planet: Topology) -> None:
    there = plan.move(planet, "nyc", "syd")
    back = plan.undo(there)
    assert plan.undo(back) == there
    arrives = [step for step in plan.move(planet, "syd", "nyc") if isinstance(step, (Addr, Route, Up))]
    assert sorted(map(str, (s for s in back if isinstance(s, (Addr, Route, Up))))) == sorted(
        map(str, arrives)
    )


UNDONE: list[tuple[str, Step, Step | None]] = [
    ("a namespace is dropped", Namespace("a"), Drop(Namespace("a"))),
    ("a dropped one is made again", Drop(Namespace("a")), Namespace("a")),
    ("a link goes back", MoveLink("a", "x", "b"), MoveLink("b", "x", "a")),
    ("a link goes down", Up("a", "x"), Drop(Up("a", "x"))),
    ("a sysctl goes with its namespace", Sysctl("a", "net.ipv4.ip_forward", "1"), None),
    ("a neighbour goes with its link", Neighbour("a", "x", "192.0.2.1", "02:00:00:00:00:01"), None),
]


@pytest.mark.parametrize(("step", "back"), [row[1:] for row in UNDONE], ids=[row[0] for row in UNDONE])
def test_each_step_knows_what_takes_it_back(step: Step, back: Step | None) -> None:
    assert undone(step) == back


OVERLAPS = [
    ("nothing there", [], 0),
    ("a default route", ["0.0.0.0/0", "::/0"], 0),
    ("what VPNs use for a default route", ["0.0.0.0/1", "128.0.0.0/1", "2000::/3"], 0),
    ("somebody else's network", ["192.168.0.0/16", "10.0.0.0/8", "2001:db8::/32"], 0),
    ("a network around the VIP", ["198.51.100.0/24"], 1),
    ("the VIP itself", ["198.51.100.1/32"], 1),
    ("a network around the host link", ["203.0.113.0/24"], 1),
    ("an address inside the host link", ["203.0.113.254/32"], 1),
    ("all local IPv6 addresses", ["fd00::/8"], 2),
    ("the IPv6 VIP", ["fd5e:ed9e::1/128"], 1),
]


@pytest.mark.parametrize(
    ("existing", "count"), [row[1:] for row in OVERLAPS], ids=[row[0] for row in OVERLAPS]
)
def test_overlaps_with_the_hosts_routes_are_found(planet: Topology, existing: list[str], count: int) -> None:
    found = plan.overlaps(planet, [ip_network(text) for text in existing])
    assert len(found) == count
    assert {str(theirs) for _, theirs in found} <= set(existing)
