"""Where does BGP lead a city, over which POPs, and how far is that? Pure.

The same choice that bird.py has the routers make, worked out ahead: the own POP first, then
by local_pref (RTT) or by the length of the AS path, equals by rank. It says what is *expected*;
lab.py reads from the kernels what *is*.
"""

from collections.abc import Collection, Mapping
from itertools import pairwise

from netlab.topology import City, Pop, Topology

#: POPs that a packet crosses, from where it starts to where it ends, both included.
Way = tuple[str, ...]


def ranked(topology: Topology, pop: Pop) -> tuple[Pop, ...]:
    """The POPs it speaks BGP with, those first that win among equals: the nearer, then the file's order."""
    others = topology.neighbours(pop.name)
    if topology.bgp.prefer == "rtt":
        return tuple(sorted(others, key=lambda other: topology.rtt_ms(pop.name, other.name)))
    return others


def ways(
    topology: Topology, ends: Collection[str], longer: Mapping[str, int] | None = None
) -> dict[str, Way]:
    """From each POP the way to the one of `ends` that BGP chooses; a POP that reaches none is left out.

    `longer` says by how many AS numbers an end prepends what it announces.
    """
    order = {pop.name: [other.name for other in ranked(topology, pop)] for pop in topology.pops}
    lengths = dict(longer or {})
    best: dict[str, Way] = {end: (end,) for end in ends}
    for _ in topology.pops:  # no way has more steps than there are POPs
        fresh = {
            pop: chosen
            for pop, others in order.items()
            if (chosen := _chosen(topology, pop, others, best, ends, lengths)) is not None
        }
        if fresh == best:
            break
        best = fresh
    return best


def _chosen(
    topology: Topology,
    pop: str,
    others: Collection[str],
    best: Mapping[str, Way],
    ends: Collection[str],
    longer: Mapping[str, int],
) -> Way | None:
    if pop in ends:
        return (pop,)
    # A router passes on what it learned only where not everybody hears it at first hand.
    heard = [
        best[other]
        for other in others
        if other in best and pop not in best[other] and (topology.transit or other in ends)
    ]
    if not heard:
        return None
    if topology.bgp.prefer == "rtt":
        return (pop, *heard[0])  # `others` stand in the order of their RTT
    return (pop, *min(heard, key=lambda way: len(way) + longer.get(way[-1], 0)))


def catchments(topology: Topology) -> dict[str, Way]:
    """City -> the way from its router to the POP that serves it when every ingress node announces."""
    announcing = [pop.name for pop in topology.pops if any(node.ingress for node in pop.nodes)]
    found = ways(topology, announcing, topology.bgp.prepend)
    return {city.name: found[city.pop] for city in topology.cities if city.pop in found}


def rtt_ms(topology: Topology, city: City, pop: str) -> float | None:
    """What a packet from the city to `pop` and its answer take; None when there is no way."""
    there = ways(topology, [pop]).get(city.pop)
    back = ways(topology, [city.pop]).get(pop)
    if there is None or back is None:
        return None
    return city.rtt_ms + one_way_ms(topology, there) + one_way_ms(topology, back)


def one_way_ms(topology: Topology, way: Way) -> float:
    """The delays along a way, added up."""
    return sum(topology.one_way_ms(one, other) for one, other in pairwise(way))
