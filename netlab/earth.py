"""How far apart are two places, and what does that cost in milliseconds? Pure.

It knows a globe and glass. It refuses to know what stands at the places, and cables: a real path
goes around mountains, seas and contracts, so a measured value is always better (`rtt_ms:`).
"""

from math import asin, cos, radians, sin, sqrt
from typing import Final

#: Latitude and longitude in degrees, north and east positive.
Place = tuple[float, float]

#: Mean radius of the Earth (IUGG).
RADIUS_KM: Final = 6371.0088
#: Light in fibre: two thirds of c. Source: IEPM, "Derivation of Directness of Connection" (SLAC).
FIBRE_KM_PER_MS: Final = 200.0
#: A cable's length over the great circle. The six pairs of planet.yaml need 1.3 to 2.6, the short way over
#: an ocean 1.4; Bozkurt et al., "Dissecting Latency in the Internet's Fiber Infrastructure", quotes 2.1 as
#: the rule for the whole Internet. 1.5 is a well connected network's.
ROUTE_FACTOR: Final = 1.5


def great_circle_km(one: Place, other: Place) -> float:
    """Distance over the surface of a sphere, by the haversine formula."""
    lat, lon = radians(one[0]), radians(one[1])
    far_lat, far_lon = radians(other[0]), radians(other[1])
    half = sin((far_lat - lat) / 2) ** 2 + cos(lat) * cos(far_lat) * sin((far_lon - lon) / 2) ** 2
    return 2 * RADIUS_KM * asin(sqrt(min(1.0, half)))


def rtt_ms(one: Place, other: Place) -> float:
    """There and back through fibre, to a tenth of a millisecond: ROUTE_FACTOR x 2 x distance / speed."""
    return round(ROUTE_FACTOR * 2 * great_circle_km(one, other) / FIBRE_KM_PER_MS, 1)
