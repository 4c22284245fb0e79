"""planet.yaml: what it gives, and what it says when it is wrong."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from netlab import planetfile
from netlab.planetfile import PLANET, TopologyError, parse
from netlab.topology import Topology

GOOD = """\
name: two
pops:
  iad:
    region: us
    nodes: {iad-a: {ingress: true, workers: 1}, iad-b: {}}
  fra:
    region: eu
    nodes: {fra-a: {ingress: true}}
rtt_ms: {fra-iad: 90}
cities:
  nyc: {pop: iad, rtt_ms: 6}
  ber: {pop: fra, rtt_ms: 8.5}
"""


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


# (sentence, what to replace, by what, line of the error, its text)
ERRORS = [
    (
        "an unknown setting",
        "region: us",
        "regoin: us",
        4,
        "pops.iad.regoin: unknown setting; did you mean region?",
    ),
    (
        "an unknown node setting",
        "workers: 1",
        "gpus: 1",
        5,
        "pops.iad.nodes.iad-a.gpus: unknown setting; known here",
    ),
    ("a missing setting", "    region: eu\n", "", 6, "pops.fra.region: is missing"),
    ("no pops at all", GOOD[GOOD.index("pops:") : GOOD.index("rtt_ms")], "", 1, "pops: is missing"),
    ("a wrong type", "rtt_ms: 6", "rtt_ms: six", 11, "cities.nyc.rtt_ms: Expected `float | null`, got `str`"),
    (
        "yes for a boolean",
        "ingress: true, w",
        "ingress: yes, w",
        5,
        "ingress: Expected `bool`, got `str`: write true or",
    ),
    (
        "a boolean for a name",
        "name: two",
        "name: true",
        1,
        "name: Expected `str`, got `bool`; put the word in quotes",
    ),
    ("an empty section", "ber: {pop: fra, rtt_ms: 8.5}", "ber:", 12, "cities.ber: is empty"),
    (
        "a list for a section",
        "{fra-a: {ingress: true}}",
        "[fra-a]",
        8,
        "pops.fra.nodes: Expected `object`, got `array`",
    ),
    ("a bad name", "iad-b: {}", "Iad_B: {}", 5, "'Iad_B' is no name: write a-z, 0-9 and -"),
    ("a name too long", "nyc:", "new-york-city-usa:", 11, "at most 12"),
    ("a name the lab needs", "iad-b: {}", "r-iad: {}", 5, "'r-iad' is a name the lab uses itself"),
    ("a node twice", "fra-a", "iad-a", 8, "'iad-a' is the name of a node already"),
    ("a node like a POP", "fra-a", "iad", 8, "'iad' is the name of a POP already"),
    ("a city like a node", "nyc:", "iad-a:", 11, "'iad-a' is the name of something else already"),
    (
        "a setting twice",
        "name: two\n",
        "name: two\nname: three\n",
        2,
        "'name' is there twice; keep one of them",
    ),
    ("nobody announces", "ingress: true", "ingress: false", 2, "pops: no node announces the anycast address"),
    (
        "too many nodes",
        "{fra-a: {ingress: true}}",
        "{" + ", ".join(f"n{i}: {{}}" for i in range(33)) + "}",
        8,
        "pops.fra.nodes: holds 33 nodes: write at most 32",
    ),
    ("a pair left out", "{fra-iad: 90}", "{}", 9, "rtt_ms: iad-fra is missing; write `iad-fra: 80`"),
    (
        "a pair unknown",
        "{fra-iad: 90}",
        "{fra-idd: 90}",
        9,
        "no pair of POPs is called 'fra-idd'; did you mean fra-iad?",
    ),
    (
        "a pair twice",
        "{fra-iad: 90}",
        "{fra-iad: 90, iad-fra: 80}",
        9,
        "rtt_ms.iad-fra: this pair is there in the other",
    ),
    (
        "an RTT out of range",
        "{fra-iad: 90}",
        "{fra-iad: 9000}",
        9,
        "9000 is out of range: write a number from 0 to 900",
    ),
    ("a city nowhere", "pop: fra, rtt", "pop: frA, rtt", 12, "no POP is called 'frA'; did you mean fra?"),
    (
        "too many workers",
        "workers: 1",
        "workers: 99",
        5,
        "workers: 99 is out of range: write a number from 0 to 16",
    ),
    ("a strange device", "workers: 1", "device: gpu", 5, "'gpu' is no device: write cpu or cuda:0"),
    ("no YAML", "name: two", "name: [two", 2, "is no YAML"),
    (
        "a lease renewed too late",
        "name: two",
        "name: two\nlease: {renew_ms: 900}",
        2,
        "lease.renew_ms: 900 is out of range",
    ),
    (
        "a lease too short",
        "name: two",
        "name: two\nlease: {valid_s: 0.5}",
        2,
        "lease.valid_s: 0.5 is out of range",
    ),
    (
        "a lease misspelt",
        "name: two",
        "name: two\nlease: {valid: 2}",
        2,
        "lease.valid: unknown setting; did you mean valid_s",
    ),
    (
        "a VIP that is a network",
        "name: two",
        'name: two\nanycast: [192.0.2.0/24, "2001:db8::1"]',
        2,
        "these are networks",
    ),
    (
        "a VIP that is no address",
        "name: two",
        "name: two\nanycast: [here, there]",
        2,
        "anycast.0: 'here' does not appear",
    ),
    (
        "only one family",
        "name: two",
        "name: two\nanycast: [192.0.2.1]",
        2,
        "needs one IPv4 and one IPv6 entry",
    ),
    (
        "a VIP of the lab's own",
        "name: two",
        'name: two\nanycast: [10.1.0.11, "2001:db8::1"]',
        2,
        "lies in the lab's own",
    ),
    ("a multicast VIP", "name: two", 'name: two\nanycast: [224.0.0.1, "2001:db8::1"]', 2, "can't be routed"),
    (
        "a link too small",
        "name: two",
        'name: two\nhost: {city: nyc, link: [192.0.2.0/31, "2001:db8::/64"]}',
        2,
        "too small",
    ),
    (
        "the host nowhere",
        "name: two",
        "name: two\nhost: {city: nic}",
        2,
        "no city is called 'nic'; did you mean nyc?",
    ),
    (
        "the origin nowhere",
        "name: two",
        "name: two\norigin: {pop: ord}",
        2,
        "origin.pop: no POP is called 'ord'",
    ),
    (
        "a region of no POP",
        "name: two",
        "name: two\nregions: {ap: {}}",
        2,
        "regions.ap: no region of a POP is called 'ap'",
    ),
    (
        "a Redis in another region",
        "name: two",
        "name: two\nregions: {us: {redis: fra-a}}",
        2,
        "regions.us.redis: no node of us is called 'fra-a'",
    ),
    (
        "a region's setting misspelt",
        "name: two",
        "name: two\nregions: {us: {redi: iad-a}}",
        2,
        "regions.us.redi: unknown setting; did you mean redis?",
    ),
    (
        "a way of routing that is none",
        "name: two",
        "name: two\nrouting: {mode: best}",
        2,
        "routing.mode: 'best' is none: write predicted, waterfall",
    ),
    (
        "a routing setting misspelt",
        "name: two",
        "name: two\nrouting: {horizon: 3}",
        2,
        "routing.horizon: unknown setting; did you mean horizon_s?",
    ),
    (
        "a wait of less than nothing",
        "name: two",
        "name: two\nqueue: {max_wait_ms: -1}",
        2,
        "queue.max_wait_ms: -1 is out of range: write a number from 0",
    ),
    (
        "a farewell misspelt",
        "name: two",
        "name: two\ndrain: {lame_duck: 1}",
        2,
        "drain.lame_duck: unknown setting; did you mean lame_duck_ms?",
    ),
    (
        "a size without a unit",
        "workers: 1",
        "disk_bytes: 20G",
        5,
        "disk_bytes: '20G' is no size: write 64MiB",
    ),
    (
        "a limit of nothing",
        "workers: 1",
        "soft_limit: 0",
        5,
        "soft_limit: 0 is out of range: write a number from 1 to 65536",
    ),
    (
        "one end of a pair without a place",
        "    region: eu\n    nodes: {fra-a: {ingress: true}}\nrtt_ms: {fra-iad: 90}",
        "    region: eu\n    at: [50, 9]\n    nodes: {fra-a: {ingress: true}}\nrtt_ms: {}",
        10,
        "rtt_ms: iad-fra is missing; write `iad-fra: 80` (milliseconds), or `at: [latitude, longitude]` below pops.iad",
    ),
    (
        "a place off the globe",
        "    region: eu",
        "    region: eu\n    at: [91, 0]",
        8,
        "pops.fra.at.0: 91 is out of range: write a number from -90 to 90",
    ),
    (
        "a city without a distance",
        "ber: {pop: fra, rtt_ms: 8.5}",
        "ber: {pop: fra, at: [52, 13]}",
        12,
        "cities.ber.rtt_ms: is missing; write it, or `at: [latitude, longitude]` here and below pops.fra",
    ),
    (
        "three ways",
        "{fra-iad: 90}",
        "{fra-iad: [30, 30, 30]}",
        9,
        "rtt_ms.fra-iad: Expected `array` of length 2",
    ),
    (
        "a way too long",
        "{fra-iad: 90}",
        "{fra-iad: [30, 500]}",
        9,
        "rtt_ms.fra-iad.1: 500 is out of range: write a number from 0 to 450",
    ),
    (
        "a preference that is none",
        "name: two",
        "name: two\nbgp: {prefer: nearest}",
        2,
        "bgp.prefer: 'nearest' is none: write rtt or as-path",
    ),
    (
        "links while RTTs decide",
        "name: two",
        "name: two\nbgp: {links: [iad-fra]}",
        2,
        "bgp.links: changes nothing while RTTs decide: write `prefer: as-path` too",
    ),
    (
        "a link to nowhere",
        "name: two",
        "name: two\nbgp: {prefer: as-path, links: [iad-fro]}",
        2,
        "bgp.links.0: no pair of POPs is called 'iad-fro'; did you mean iad-fra?",
    ),
    (
        "a POP without a link",
        "name: two",
        "name: two\nbgp: {prefer: as-path, links: []}",
        2,
        "bgp.links: no way leads from iad to fra; add a link to it",
    ),
    (
        "a POP that prepends too often",
        "name: two",
        "name: two\nbgp: {prefer: as-path, prepend: {fra: 17}}",
        2,
        "bgp.prepend.fra: 17 is out of range: write a number from 0 to 16",
    ),
    (
        "BFD of a word",
        "name: two",
        "name: two\nbfd: {pop: true}",
        2,
        "bfd.pop: write {interval_ms: 100, multiplier: 3}, or false",
    ),
    (
        "BFD faster than anybody",
        "name: two",
        "name: two\nbfd: {wan: {interval_ms: 1}}",
        2,
        "bfd.wan.interval_ms: 1 is out of range: write a number from 10 to 10000",
    ),
    (
        "BFD that a single frame ends",
        "name: two",
        "name: two\nbfd: {pop: {multiplier: 1}}",
        2,
        "bfd.pop.multiplier: 1 is out of range: write a number from 2 to 50",
    ),
    (
        "a Redis that is just there",
        "name: two",
        "name: two\nregions: {us: {redis: true}}",
        2,
        "regions.us.redis: write the node where it runs, or false for none",
    ),
    (
        "a story instead of a sentence",
        "name: two",
        "name: two\nabout: " + "so " * 41,
        2,
        "about: is too long: write one sentence of at most 120 characters",
    ),
    (
        "a planet's name too long",
        "name: two",
        "name: " + "two" * 11,
        1,
        "is no name: write a-z, 0-9 and -, at most 32",
    ),
    ("a list as a name", "name: two", "? [a, b]\n: two", 1, "a setting's name must be a word"),
    ("an empty file", GOOD, "", 1, "the file: is empty"),
]


@pytest.mark.parametrize(
    ("old", "new", "line", "text"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS]
)
def test_an_error_says_where_and_what_to_write(old: str, new: str, line: int, text: str) -> None:
    assert old in GOOD, "the table must change something"
    with pytest.raises(TopologyError) as caught:
        parse(GOOD.replace(old, new), "my.yaml")
    assert str(caught.value).startswith(f"my.yaml:{line}: "), str(caught.value)
    assert text in str(caught.value)


def test_a_file_that_unfolds_without_end_is_refused() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for one, two in zip("abcdef", "bcdefg", strict=True):
        bomb += f"{two}: &{two} [{', '.join([f'*{one}'] * 10)}]\n"
    with pytest.raises(TopologyError, match="holds more than 20000 values"):
        parse(bomb)


def test_a_file_nested_too_deeply_is_refused() -> None:
    with pytest.raises(TopologyError, match="nested too deeply"):
        parse("a: " + "[" * 900 + "]" * 900)
