"""A planet as a picture: who is served where, how far that is, and who is not at home."""

import json

import pytest

from netlab import atlas, planetfile
from netlab.topology import Topology


@pytest.fixture(scope="module")
def transit() -> Topology:
    return planetfile.load(planetfile.find("transit"))


@pytest.fixture(scope="module")
def planet() -> Topology:
    return planetfile.load(planetfile.PLANET)


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}


def test_the_text_of_the_planet(planet: Topology) -> None:
    assert (
        atlas.text(atlas.world(planet))
        == """\
planet  planet, not running
BGP     RTTs decide

RTT, ms  iad  fra  ams  nrt
iad      -    90   85   160
fra      90   -    8    230
ams      85   8    -    240
nrt      160  230  240  -

CITY  ROUTER  SERVED BY  RTT     NEAREST
nyc   iad     iad        6 ms    yes
ber   fra     fra        8 ms    yes
lon   ams     ams        6 ms    yes
tyo   nrt     nrt        4 ms    yes
syd   nrt     nrt        100 ms  yes"""
    )


def test_who_lands_far_is_told_where_the_nearest_is(transit: Topology) -> None:
    text = atlas.text(atlas.world(transit))
    assert "sin   tsg     lax        214.6 ms  no: nrt is 83.5 ms away" in text
    assert "tyo   nrt     nrt        4 ms      yes" in text
    assert "(153.9)" in text
    assert "in brackets: their routers do not speak" in text


def test_where_a_city_really_lands_is_shown(planet: Topology) -> None:
    landed = {city.name: {"v4": "ams", "v6": "ams"} for city in planet.cities}
    landed["nyc"] = {"v4": "iad", "v6": ""}
    landed["tyo"] = {"v4": "", "v6": ""}
    found = atlas.world(planet, landed)
    cities = {city["city"]: city for city in found["cities"]}
    assert found["running"]
    assert (cities["ber"]["served_by"]["v4"], cities["ber"]["expected"]) == ("ams", "fra")
    assert (cities["ber"]["rtt_ms"], cities["ber"]["lands_at_nearest"]) == (16, False)
    assert cities["lon"]["lands_at_nearest"]
    text = atlas.text(found)
    assert "iad over IPv4, nobody over IPv6" in text
    assert "tyo   nrt     nobody" in text
    assert cities["tyo"]["rtt_ms"] is None


def test_a_way_that_is_longer_in_one_direction_is_told() -> None:
    asymmetric = planetfile.load(planetfile.find("asymmetric"))
    assert "one way: iad to fra 70 ms, back 20 ms" in atlas.text(atlas.world(asymmetric))
    graph = atlas.mermaid(atlas.world(asymmetric))
    assert 'p_iad -->|"70 ms"| p_fra' in graph
    assert 'p_fra -->|"20 ms"| p_iad' in graph


def test_many_pops_are_a_list_of_neighbours() -> None:
    pops = "".join(f"  p{i}: {{region: us, at: [0, {i}]}}\n" for i in range(14))
    many = planetfile.parse(
        f"name: many\npops:\n  iad: {{region: us, at: [0, -1], nodes: {{iad-a: {{ingress: true}}}}}}\n{pops}"
        "cities: {nyc: {pop: p13, rtt_ms: 1}}\n"
    )
    text = atlas.text(atlas.world(many))
    assert rows(text)["p0"] == ["iad", "1.7,", "p1", "1.7,", "p2", "3.3"]
    assert max(len(line) for line in text.splitlines()) < 80


def test_one_pop_has_no_distances() -> None:
    assert "RTT, ms" not in atlas.text(atlas.world(planetfile.load(planetfile.find("one-pop"))))


def test_the_graph_of_transit(transit: Topology) -> None:
    graph = atlas.mermaid(atlas.world(transit)).splitlines()
    assert graph[0] == "graph LR"
    assert '  p_tsg["tsg<br/>router"]' in graph
    assert '  p_lax["lax<br/>us, nodes 1, workers 1"]' in graph
    assert '  p_lax ---|"59.6 ms"| p_jfk' in graph
    assert not [line for line in graph if "p_fra" in line and "p_tsg" in line], "they do not speak"
    assert '  c_sin -.->|"214.6 ms"| p_lax' in graph
    assert graph[-1] == "  class c_sin,c_syd,c_lon far;"


def test_a_planet_where_all_is_near_has_no_red(planet: Topology) -> None:
    assert "classDef" not in atlas.mermaid(atlas.world(planet))


def test_it_is_plain_json(transit: Topology) -> None:
    found = json.loads(json.dumps(atlas.world(transit)))
    assert found["schema_version"] == 1
    assert [pop["pop"] for pop in found["pops"]][:2] == ["lax", "jfk"]
