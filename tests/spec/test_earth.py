"""How far apart two places are, and what light in glass takes for it."""

from itertools import combinations

import pytest

from netlab import earth, planetfile
from netlab.earth import Place

NYC, LON, TYO, SYD = (40.7, -74.0), (51.5, -0.1), (35.7, 139.7), (-33.9, 151.2)
WHERE = {"iad": (38.9, -77.4), "fra": (50.1, 8.7), "ams": (52.4, 4.9), "nrt": (35.8, 140.4)}

# Sentence, two places, km. The quarter of the meridian is pi/2 x radius by definition.
DISTANCES = [
    ("nowhere", NYC, NYC, 0.0),
    ("from the equator to the pole", (0.0, 0.0), (90.0, 0.0), 10_007.6),
    ("half around the globe", (0.0, 0.0), (0.0, 180.0), 20_015.1),
    ("over the pole", (80.0, 0.0), (80.0, 180.0), 2_223.9),
    ("over the date line", (0.0, 179.0), (0.0, -179.0), 222.4),
    ("New York to London", NYC, LON, 5_570.0),
    ("Tokyo to Sydney", TYO, SYD, 7_827.0),
]


@pytest.mark.parametrize(("one", "other", "km"), [d[1:] for d in DISTANCES], ids=[d[0] for d in DISTANCES])
def test_the_shortest_way_over_the_globe(one: Place, other: Place, km: float) -> None:
    assert earth.great_circle_km(one, other) == pytest.approx(km, rel=0.005, abs=0.1)
    assert earth.great_circle_km(other, one) == pytest.approx(earth.great_circle_km(one, other))


def test_an_rtt_is_there_and_back_through_one_and_a_half_times_the_distance() -> None:
    assert earth.rtt_ms((0.0, 0.0), (90.0, 0.0)) == round(1.5 * 2 * 10_007.557 / 200, 1)
    assert earth.rtt_ms(NYC, NYC) == 0.0


def test_the_factor_is_one_of_real_pairs() -> None:
    """What the planet's own RTTs, which are like those of real networks, are over the great circle."""
    planet = planetfile.load(planetfile.PLANET)
    factors = {
        (one, other): planet.rtt_ms(one, other)
        / (2 * earth.great_circle_km(WHERE[one], WHERE[other]) / earth.FIBRE_KM_PER_MS)
        for one, other in combinations(WHERE, 2)
    }
    assert min(factors.values()) == pytest.approx(1.37, abs=0.1)
    assert max(factors.values()) == pytest.approx(2.6, abs=0.2)
    assert min(factors.values()) < earth.ROUTE_FACTOR < max(factors.values())
