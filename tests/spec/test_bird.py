"""bird.conf: who announces what to whom, and who is preferred."""

import re

import pytest

from netlab import bird, planetfile
from netlab.planetfile import PLANET
from netlab.topology import Topology

SESSION = re.compile(r"protocol bgp (\w+) \{(.*?)\n\}", re.DOTALL)


@pytest.fixture(scope="module")
def planet() -> Topology:
    return planetfile.load(PLANET)


@pytest.fixture(scope="module")
def fra(planet: Topology) -> str:
    return bird.router_conf(planet, planet.pop("fra"))


@pytest.fixture(scope="module")
def node(planet: Topology) -> str:
    return bird.node_conf(planet, planet.node("fra-a"))


def sessions(conf: str) -> dict[str, str]:
    return dict(SESSION.findall(conf))


def test_a_router_speaks_to_its_nodes_and_to_every_other_router_in_both_families(fra: str) -> None:
    assert set(sessions(fra)) == {
        f"{kind}{family}_{name}"
        for family in (4, 6)
        for kind, name in (("node", "fra_a"), ("wan", "iad"), ("wan", "ams"), ("wan", "nrt"))
    }


def test_a_node_without_ingress_is_no_neighbour(planet: Topology) -> None:
    assert "iad_b" not in bird.router_conf(planet, planet.pop("iad"))


# Sentence, session, local_pref.
PREFERENCES = [
    ("the own POP first", "node4_fra_a", 1000),
    ("then the near one", "wan4_ams", 992),
    ("then the far one", "wan4_iad", 910),
    ("then the farthest", "wan4_nrt", 770),
    ("and so over IPv6", "wan6_nrt", 770),
]


@pytest.mark.parametrize(
    ("session", "preference"), [p[1:] for p in PREFERENCES], ids=[p[0] for p in PREFERENCES]
)
def test_nearest_is_preferred(fra: str, session: str, preference: int) -> None:
    assert re.findall(r"bgp_local_pref = (\d+);", sessions(fra)[session]) == [str(preference)]


def test_routers_tell_others_only_what_is_their_own(fra: str) -> None:
    for name, body in sessions(fra).items():
        expected = f"export filter to_wan{name[3]};" if name.startswith("wan") else "export none;"
        assert expected in body
    for family, vip, link in (
        (4, "198.51.100.1/32", "203.0.113.252/30"),
        (6, "fd5e:ed9e::1/128", "fd5e:ed9e:ff::/64"),
    ):
        rules = re.search(rf"filter to_wan{family} \{{(.*?)\n\}}", fra, re.DOTALL)
        assert rules is not None
        assert [line.strip() for line in rules[1].strip().splitlines()] == [
            "if source = RTS_DEVICE then accept;",
            f"if source = RTS_INHERIT && net = {link} then accept;",
            f"if source = RTS_BGP && net = {vip} && bgp_path.len = 1 then accept;",
            "reject;",
        ]


def test_routers_take_the_vip_alone_from_nodes(fra: str) -> None:
    assert "if net != 198.51.100.1/32 then reject;" in sessions(fra)["node4_fra_a"]
    assert "if net != fd5e:ed9e::1/128 then reject;" in sessions(fra)["node6_fra_a"]


def test_a_node_announces_the_vip_of_the_marker_and_learns_nothing(node: str) -> None:
    assert 'protocol direct lease { ipv4; ipv6; interface "ann0"; }' in node
    found = sessions(node)
    assert set(found) == {"router4", "router6"}
    assert "import none; export where net = 198.51.100.1/32;" in found["router4"]
    assert "import none; export where net = fd5e:ed9e::1/128;" in found["router6"]


def test_both_ends_of_a_session_agree(planet: Topology, fra: str, node: str) -> None:
    def ends(body: str) -> tuple[tuple[str, str], tuple[str, str]]:
        local = re.search(r"local (\S+) as (\d+);", body)
        peer = re.search(r"neighbor (\S+) as (\d+);", body)
        assert local is not None
        assert peer is not None
        return (local[1], local[2]), (peer[1], peer[2])

    nrt = sessions(bird.router_conf(planet, planet.pop("nrt")))
    for here, there in (
        (sessions(fra)["node4_fra_a"], sessions(node)["router4"]),
        (sessions(fra)["node6_fra_a"], sessions(node)["router6"]),
        (sessions(fra)["wan4_nrt"], nrt["wan4_fra"]),
        (sessions(fra)["wan6_nrt"], nrt["wan6_fra"]),
    ):
        assert ends(here) == tuple(reversed(ends(there)))


def test_waits_after_an_error_are_short_at_both_ends(fra: str, node: str) -> None:
    for body in (*sessions(fra).values(), *sessions(node).values()):
        assert "error wait time 1, 5; error forget time 10;" in body
        assert "connect delay time 1; connect retry time 1;" in body


def test_interfaces_of_the_pops_cities_are_announced(planet: Topology) -> None:
    assert 'interface "lan", "c-tyo", "c-syd";' in bird.router_conf(planet, planet.pop("nrt"))
