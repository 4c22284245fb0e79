"""planet.yaml: what it gives."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from netlab import planetfile
from netlab.planetfile import PLANET, TopologyError, parse
from netlab.topology import Topology
from tests.support.planet import GOOD


@pytest.fixture(scope="module")
def planet() -> Topology:
    return planetfile.load(PLANET)


def test_the_planet_is_the_one_of_the_design(planet: Topology) -> None:
    nodes = {node.name: (node.pop, node.ingress, node.workers) for node in planet.nodes}
    assert nodes == {
        "iad-a": ("iad", True, 0),
        "iad-b": ("iad", False, 1),
        "fra-a": ("fra", True, 1),
        "ams-a": ("ams", True, 0),
        "nrt-a": ("nrt", True, 1),
    }
    assert {pop.name: pop.region for pop in planet.pops} == {
        "iad": "us",
        "fra": "eu",
        "ams": "eu",
        "nrt": "ap",
    }
    assert {(c.name, c.pop, c.rtt_ms) for c in planet.cities} == {
        ("nyc", "iad", 6),
        ("ber", "fra", 8),
        ("lon", "ams", 6),
        ("tyo", "nrt", 4),
        ("syd", "nrt", 100),
    }
    assert planet.rtt_ms("ams", "nrt") == planet.rtt_ms("nrt", "ams") == 240
    assert planet.rtt_ms("iad", "iad") == 0
    assert (planet.origin.pop, str(planet.origin4)) == ("iad", "10.1.0.9")


def test_addresses_follow_from_the_place_in_the_file(planet: Topology) -> None:
    assert (str(planet.node("iad-b").v4), str(planet.node("iad-b").v6)) == ("10.1.0.12", "fd5e:ed9e:1::12")
    nrt = planet.pop("nrt")
    assert (str(nrt.lan4), str(nrt.lan6)) == ("10.4.0.0/24", "fd5e:ed9e:4::/64")
    assert (str(nrt.wan4), str(nrt.wan6)) == ("100.64.0.4", "fd5e:ed9e:64::4")
    assert (str(planet.city("syd").net4[2]), str(planet.city("syd").net6[2])) == (
        "10.105.0.2",
        "fd5e:ed9e:105::2",
    )
    host = planet.host
    assert (str(host.host4), str(host.city4)) == ("203.0.113.253", "203.0.113.254")
    assert (str(host.host6), str(host.city6)) == ("fd5e:ed9e:ff::1", "fd5e:ed9e:ff::2")


def test_no_two_places_share_an_address(planet: Topology) -> None:
    taken = [ip_address(planet.vip4), ip_address(planet.vip6), planet.origin4]
    for pop in planet.pops:
        taken += [pop.wan4, pop.wan6, pop.lan4[1], pop.lan6[1]]
        for node in pop.nodes:
            taken += [node.v4, node.v6]
    for city in planet.cities:
        taken += [city.net4[1], city.net4[2], city.net6[1], city.net6[2]]
    assert len(taken) == len(set(taken))


def test_what_is_left_out_has_a_default() -> None:
    two = parse(GOOD)
    assert (str(two.vip4), str(two.vip6)) == ("198.51.100.1", "fd5e:ed9e::1")
    assert (two.lease.valid_s, two.lease.renew_ms) == (2.0, 300)
    assert (two.host.city, two.origin.pop, two.origin.port) == ("nyc", "iad", 8080)
    assert two.node("iad-b").ingress is False
    assert two.city("ber").rtt_ms == 8.5


def test_a_regions_redis_is_on_its_first_node_unless_it_is_said(planet: Topology) -> None:
    assert {region.name: region.redis for region in planet.regions} == {
        "us": "iad-a",
        "eu": "fra-a",
        "ap": "nrt-a",
    }
    assert [node.name for node in planet.nodes_of("eu")] == ["fra-a", "ams-a"]
    two = parse(GOOD + "regions: {us: {redis: iad-b}}\n")
    assert (two.region("us").redis, two.region("eu").redis) == ("iad-b", "fra-a")
    with pytest.raises(KeyError, match="no region is called 'usa'; did you mean us"):
        two.region("usa")


def test_two_workers_share_a_region_and_never_ask_each_other() -> None:
    two = planetfile.load(planetfile.find("two-workers"))
    assert {(node.pop, node.ingress, node.workers) for node in two.nodes} == {
        ("iad", True, 1),
        ("ewr", True, 1),
    }
    assert [region.name for region in two.regions] == ["us"]
    assert two.routing.mode == "never"
    assert {two.nearest(city.name).name for city in two.cities} == {"iad", "ewr"}


def test_a_topology_is_found_by_its_name_or_its_path(tmp_path: Path) -> None:
    assert planetfile.find("planet") == PLANET
    mine = tmp_path / "mine"
    assert planetfile.find(str(mine)) == mine
    with pytest.raises(
        TopologyError, match=r"no topology is called 'planer'; did you mean planet[?]; or give"
    ):
        planetfile.find("planer")


SHIPPED = sorted(planetfile.SHIPPED.glob("*.yaml"))


def test_a_region_can_be_without_redis() -> None:
    two = parse(GOOD + "regions: {eu: {redis: false}}\n")
    assert [region.name for region in two.indexed] == ["us"]
    assert two.region("eu").redis is None


def test_a_pop_can_be_a_router_alone() -> None:
    two = parse(GOOD.replace("    nodes: {fra-a: {ingress: true}}\n", ""))
    assert two.pop("fra").nodes == ()
    assert two.region("eu").redis is None
    assert two.nearest("ber").name == "iad"


def test_a_delay_can_differ_by_direction() -> None:
    two = parse(GOOD.replace("fra-iad: 90", "fra-iad: [70, 20]"))
    assert (two.one_way_ms("fra", "iad"), two.one_way_ms("iad", "fra")) == (70, 20)
    assert two.rtt_ms("iad", "fra") == two.rtt_ms("fra", "iad") == 90
    assert two.one_way_ms("iad", "iad") == two.rtt_ms("iad", "iad") == 0


def test_what_is_written_wins_over_the_map() -> None:
    placed = GOOD.replace("    region: us", "    region: us\n    at: [38.9, -77.4]")
    placed = placed.replace("    region: eu", "    region: eu\n    at: [50.1, 8.7]")
    assert parse(placed).rtt_ms("iad", "fra") == 90
    by_map = parse(placed.replace("rtt_ms: {fra-iad: 90}\n", "").replace("rtt_ms: 8.5", "at: [52.5, 13.4]"))
    assert by_map.rtt_ms("iad", "fra") == pytest.approx(98.2, abs=0.5)
    assert by_map.city("ber").rtt_ms == pytest.approx(6.3, abs=0.1)
    assert by_map.city("nyc").rtt_ms == 6


def test_sixty_three_pops_have_addresses_of_their_own() -> None:
    pops = "".join(f"  p{i}: {{region: us, at: [{i}, {i}]}}\n" for i in range(1, 63))
    text = (
        f"name: many\npops:\n  iad: {{region: us, at: [0, 0], nodes: {{iad-a: {{ingress: true}}}}}}\n{pops}"
    )
    text += "cities: {" + ", ".join(f"c{i}: {{pop: iad, rtt_ms: 1}}" for i in range(99)) + "}\n"
    many = parse(text)
    test_no_two_places_share_an_address(many)
    with pytest.raises(TopologyError, match="holds 64 POPs: write 1 to 63"):
        parse(text.replace("cities:", "  last: {region: us, at: [1, 1]}\ncities:"))


def test_neighbours_are_all_others_or_those_with_a_link() -> None:
    three = GOOD.replace(
        "rtt_ms: {fra-iad: 90}", "  ams: {region: eu}\nrtt_ms: {fra-iad: 90, iad-ams: 85, fra-ams: 8}"
    )
    assert [pop.name for pop in parse(three).neighbours("fra")] == ["iad", "ams"]
    linked = parse(three + "bgp: {prefer: as-path, links: [ams-iad, iad-fra]}\n")
    assert [pop.name for pop in linked.neighbours("fra")] == ["iad"]
    assert [pop.name for pop in linked.neighbours("iad")] == ["fra", "ams"]
    assert (linked.transit, parse(three).transit) == (True, False)


BFD = [
    ("left out: the POPs alone", "", (100, 3), None),
    ("off", "bfd: {pop: false}", None, None),
    ("on everywhere", "bfd: {wan: {}}", (100, 3), (100, 3)),
    ("slower", "bfd: {pop: {interval_ms: 200}, wan: {interval_ms: 300, multiplier: 5}}", (200, 3), (300, 5)),
]


@pytest.mark.parametrize(("text", "pop", "wan"), [row[1:] for row in BFD], ids=[row[0] for row in BFD])
def test_bfd_is_asked_for_by_place(
    text: str, pop: tuple[int, int] | None, wan: tuple[int, int] | None
) -> None:
    bgp = parse(f"{GOOD}{text}\n").bgp
    assert [bfd and (bfd.interval_ms, bfd.multiplier) for bfd in (bgp.bfd_pop, bgp.bfd_wan)] == [pop, wan]


def test_every_topology_that_ships_says_its_own_name() -> None:
    for path in SHIPPED:
        planet = planetfile.load(path)
        assert planet.name == path.stem
        assert planet.about.endswith(".")


def test_addresses_and_lease_can_be_chosen() -> None:
    chosen = parse(
        GOOD + 'anycast: [192.0.2.77, "2001:db8::77"]\nlease: {valid_s: 1, renew_ms: 200}\n'
        'host: {city: ber, link: [192.0.2.128/29, "2001:db8:1::/64"]}\norigin: {pop: fra, port: 81}\n'
    )
    assert (str(chosen.vip4), str(chosen.vip6)) == ("192.0.2.77", "2001:db8::77")
    assert (chosen.host.city, str(chosen.host.host4), str(chosen.host.city4)) == (
        "ber",
        "192.0.2.133",
        "192.0.2.134",
    )
    assert (chosen.lease.valid_s, chosen.lease.renew_ms) == (1.0, 200)
    assert str(chosen.origin4) == "10.2.0.9"


def test_words_that_older_yaml_takes_for_booleans_are_names() -> None:
    text = GOOD.replace("fra", "no").replace("ber:", "on:").replace("region: eu", "region: off")
    two = parse(text)
    assert [pop.name for pop in two.pops] == ["iad", "no"]
    assert two.pop("no").region == "off"
    assert two.city("on").pop == "no"


def test_the_nearest_pop_is_the_nearest_that_announces() -> None:
    assert parse(GOOD).nearest("ber").name == "fra"
    assert parse(GOOD.replace("{fra-a: {ingress: true}}", "{fra-a: {}}")).nearest("ber").name == "iad"


def test_an_unknown_name_is_answered_with_what_there_is(planet: Topology) -> None:
    with pytest.raises(KeyError, match="no node is called 'iadb'; did you mean iad-b"):
        planet.node("iadb")
    with pytest.raises(KeyError, match="no city is called 'rio'; there are: nyc, ber, lon, tyo, syd"):
        planet.city("rio")
