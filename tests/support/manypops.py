"""A planet of any number of POPs, as the text of its file: for what grows with them.

POPs lie evenly over the globe (a Fibonacci sphere), RTTs follow from that. Only the first few have a node:
the others are routers alone, which is what a POP costs in namespaces, cables and BGP sessions.
"""

from math import asin, degrees, pi, sqrt
from typing import Final

PLACES_WITH_NODES: Final = 4
CITIES: Final = 12
REGIONS: Final = ("us", "eu", "ap")
_GOLDEN: Final = pi * (3 - sqrt(5))


def text(pops: int) -> str:
    """planet.yaml with that many POPs."""
    lines = [f"name: pops-{pops}", "pops:"]
    for index in range(pops):
        lat = degrees(asin(1 - 2 * (index + 0.5) / pops))
        lon = degrees(index * _GOLDEN) % 360 - 180
        node = f"p{index}-a: {{ingress: true}}" if index < PLACES_WITH_NODES else ""
        region = REGIONS[index % len(REGIONS)]
        lines.append(f"  p{index}: {{region: {region}, at: [{lat:.3f}, {lon:.3f}], nodes: {{{node}}}}}")
    cities = min(CITIES, pops)
    lines.append("cities:")
    lines += [f"  city{index}: {{pop: p{index * pops // cities}, rtt_ms: 5}}" for index in range(cities)]
    return "\n".join(lines) + "\n"
