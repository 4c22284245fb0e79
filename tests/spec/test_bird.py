"""bird.conf: who announces what to whom, and who is preferred."""

import re

import msgspec
import pytest

from netlab import bird, planetfile
from netlab.planetfile import PLANET
from netlab.topology import Bfd, Topology

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
            f"if source = RTS_BGP && net = {vip} && bgp_path.len = 1 then {{ accept; }}",
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


def test_both_ends_watch_each_other_inside_the_pop_alone(fra: str, node: str) -> None:
    watched = 'protocol bfd watch {{\n  interface "{}" {{ interval 100 ms; multiplier 3; }};\n}}'
    assert watched.format("lan") in fra
    assert watched.format("eth0") in node
    assert {name for name, body in sessions(fra).items() if "bfd on;" in body} == {
        "node4_fra_a",
        "node6_fra_a",
    }
    assert {name for name, body in sessions(node).items() if "bfd on;" in body} == {"router4", "router6"}


def changed(planet: Topology, **bgp: object) -> Topology:
    return msgspec.structs.replace(planet, bgp=msgspec.structs.replace(planet.bgp, **bgp))


def test_bfd_can_be_off_or_on_the_wan_too(planet: Topology) -> None:
    fra = planet.pop("fra")
    assert "bfd" not in bird.router_conf(changed(planet, bfd_pop=None), fra)
    assert "bfd" not in bird.node_conf(changed(planet, bfd_pop=None), planet.node("fra-a"))
    everywhere = bird.router_conf(changed(planet, bfd_wan=Bfd(300, 5)), fra)
    assert 'interface "wan" { interval 300 ms; multiplier 5; };' in everywhere
    assert all("bfd on;" in body for body in sessions(everywhere).values())


def test_equals_are_told_apart_by_rank(fra: str) -> None:
    """`merge paths` would spread a city over two POPs of one RTT."""
    ranks = {name: re.findall(r"bgp_med = (\d+);", body) for name, body in sessions(fra).items()}
    assert ranks["wan4_ams"] == ["0"]
    assert (ranks["wan4_iad"], ranks["wan6_nrt"]) == (["1"], ["2"])
    assert ranks["node4_fra_a"] == []
    assert all(("med metric on;" in body) == name.startswith("wan") for name, body in sessions(fra).items())


def test_where_as_paths_decide_no_other_pop_is_preferred(planet: Topology) -> None:
    found = sessions(bird.router_conf(changed(planet, prefer="as-path"), planet.pop("fra")))
    preferences = {name: re.findall(r"bgp_local_pref = (\d+);", body)[0] for name, body in found.items()}
    assert {preferences[name] for name in found if name.startswith("wan")} == {"100"}
    assert preferences["node4_fra_a"] == "1000"


def test_with_links_a_router_speaks_with_those_alone_and_carries_what_it_heard(planet: Topology) -> None:
    linked = changed(planet, prefer="as-path", links=(("ams", "fra"), ("fra", "iad"), ("iad", "nrt")))
    conf = bird.router_conf(linked, planet.pop("fra"))
    assert {name for name in sessions(conf) if name.startswith("wan")} == {
        f"wan{family}_{pop}" for family in (4, 6) for pop in ("ams", "iad")
    }
    assert conf.count("  if source = RTS_BGP then accept;\n") == 2


def test_who_prepends_does_so_before_the_anycast_address_of_its_own_nodes(planet: Topology) -> None:
    conf = bird.router_conf(changed(planet, prefer="as-path", prepend={"fra": 2}), planet.pop("fra"))
    again = "bgp_path.prepend(65002); bgp_path.prepend(65002); accept;"
    assert conf.count(f"bgp_path.len = 1 then {{ {again} }}") == 2
    assert "prepend" not in bird.router_conf(changed(planet, prepend={"fra": 2}), planet.pop("ams"))


def test_interfaces_of_the_pops_cities_are_announced(planet: Topology) -> None:
    assert 'interface "lan", "c-tyo", "c-syd";' in bird.router_conf(planet, planet.pop("nrt"))
