"""Where BGP leads a city: by RTT to the nearest POP, by AS paths to the one with fewest networks between."""

import pytest

from netlab import paths, planetfile
from netlab.topology import Topology

LINE = """
name: line
pops:
  iad: {region: us, nodes: {iad-a: {ingress: true}}}
  car: {region: us}
  fra: {region: eu, nodes: {fra-a: {ingress: true}}}
  nrt: {region: ap, nodes: {nrt-a: {ingress: true}}}
rtt_ms: {iad-car: 100, iad-fra: 90, iad-nrt: 160, car-fra: [10, 30], car-nrt: 10, fra-nrt: 230}
cities: {rio: {pop: car, rtt_ms: 3}, nyc: {pop: iad, rtt_ms: 6}}
"""


def line(bgp: str = "{}") -> Topology:
    return planetfile.parse(f"{LINE}bgp: {bgp}\n")


# Sentence, the planet's `bgp:`, the way that rio's packets take.
WAYS = [
    ("RTTs decide: the nearest", "{}", ("car", "nrt")),
    ("all paths are equal: the first in the file", "{prefer: as-path}", ("car", "iad")),
    ("who prepends is chosen last", "{prefer: as-path, prepend: {iad: 1}}", ("car", "fra")),
    ("unless all do", "{prefer: as-path, prepend: {iad: 1, fra: 1, nrt: 1}}", ("car", "iad")),
    (
        "one network more is too many, however near",
        "{prefer: as-path, links: [car-iad, iad-nrt, nrt-fra]}",
        ("car", "iad"),
    ),
    (
        "until the nearer network prepends more",
        "{prefer: as-path, links: [car-iad, car-fra, fra-nrt], prepend: {iad: 1}}",
        ("car", "fra"),
    ),
]


@pytest.mark.parametrize(("bgp", "way"), [w[1:] for w in WAYS], ids=[w[0] for w in WAYS])
def test_where_a_city_lands(bgp: str, way: paths.Way) -> None:
    found = paths.catchments(line(bgp))
    assert found["rio"] == way
    assert found["nyc"] == ("iad",), "a POP that announces serves its own"


def test_a_router_passes_on_what_it_heard_only_with_links() -> None:
    mesh, chain = line("{prefer: as-path}"), line("{prefer: as-path, links: [iad-fra, fra-car, car-nrt]}")
    assert paths.ways(mesh, ["nrt"])["iad"] == ("iad", "nrt")
    assert paths.ways(chain, ["nrt"])["iad"] == ("iad", "fra", "car", "nrt")


def test_an_rtt_is_the_way_there_and_the_way_back() -> None:
    chain = line("{prefer: as-path, links: [iad-fra, fra-car, car-nrt]}")
    rio = chain.city("rio")
    assert paths.rtt_ms(chain, rio, "fra") == 3 + 10 + 30
    assert paths.rtt_ms(chain, rio, "iad") == 3 + (10 + 45) + (45 + 30)
    assert paths.rtt_ms(chain, rio, "car") == 3


def test_nobody_is_led_anywhere_where_nobody_announces() -> None:
    assert paths.ways(line(), []) == {}
    assert paths.rtt_ms(line(), line().city("rio"), "atlantis") is None


def test_on_the_planet_everybody_lands_at_the_nearest() -> None:
    planet = planetfile.load(planetfile.PLANET)
    assert {city: way[-1] for city, way in paths.catchments(planet).items()} == {
        city.name: planet.nearest(city.name).name for city in planet.cities
    }


def test_transit_is_a_planet_where_some_do_not() -> None:
    transit = planetfile.load(planetfile.find("transit"))
    found = {city: (way[-1], transit.nearest(city).name) for city, way in paths.catchments(transit).items()}
    assert found == {
        "tyo": ("nrt", "nrt"),
        "sin": ("lax", "nrt"),
        "syd": ("lax", "nrt"),
        "lon": ("jfk", "fra"),
        "ber": ("fra", "fra"),
    }
