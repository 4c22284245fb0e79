"""planet.yaml that is wrong: where the mistake is, and what to write instead."""

import pytest

from netlab.planetfile import TopologyError, parse
from tests.support.planet import GOOD
from tests.support.planeterrors import ADDRESSES

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
    ("a node like a Redis", "iad-b: {}", "redis-us: {}", 5, "'redis-us' is a name the lab uses itself"),
    ("a node like a doctor", "iad-b: {}", "doctor-1: {}", 5, "'doctor-1' is a name the lab uses itself"),
    ("a node like the whole planet", "iad-b: {}", "all: {}", 5, "'all' is a name the lab uses itself"),
    ("a city like the WAN", "nyc:", "wan:", 11, "'wan' is a name the lab uses itself"),
    ("a city like a router", "nyc:", "r-iad:", 11, "'r-iad' is a name the lab uses itself"),
    ("a city like this machine", "nyc:", "host:", 11, "'host' is a name the lab uses itself"),
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
    (
        "a city on the moon",
        "rtt_ms: 6",
        "rtt_ms: 1282",
        11,
        "cities.nyc.rtt_ms: 1282 is out of range: write a number from 0 to 900",
    ),
    (
        "a port too high",
        "name: two",
        "name: two\norigin: {pop: iad, port: 80000}",
        2,
        "origin.port: 80000 is out of",
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
    (
        "a character that no text holds",
        "name: two",
        'name: two\nabout: "a\x07b"',
        2,
        "is no YAML: '\\x07' can't stand in a text; remove it",
    ),
    (
        "a tag that promises too much",
        "ingress: true, w",
        "ingress: !!bool foo, w",
        5,
        "'foo' can't be read as bool",
    ),
    ("a time that is none", "name: two", "name: !!timestamp two", 1, "'two' can't be read as timestamp"),
    ("a number of nothing", "workers: 1", "workers: !!int ''", 5, "'' can't be read as int"),
    (
        "a number without end",
        "workers: 1",
        "workers: 1" + "0" * 400,
        5,
        "0...' is too large: write a number below",
    ),
    ("and one that Python refuses", "workers: 1", "workers: 1" + "0" * 5000, 5, "0...' can't be read as int"),
    *ADDRESSES,
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
