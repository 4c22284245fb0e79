"""Which links does a partition cut? Pure: two groups of POPs in, directed pairs out.

It refuses to know what cutting is.
"""

from collections.abc import Iterable

from netlab.topology import Topology, unknown


def crossing(topology: Topology, one: Iterable[str], other: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Every directed pair of POPs from one side to the other; without `other`, against all the rest.

    A side is POPs and regions by name. Raises KeyError for an unknown name, for a POP on both sides
    and for a side without anybody.
    """
    near, far = _members(topology, one), _members(topology, other)
    if not near:
        raise KeyError("a partition needs somebody on its first side; name a POP or a region")
    far = far or [pop.name for pop in topology.pops if pop.name not in near]
    if twice := [pop for pop in near if pop in far]:
        raise KeyError(f"{twice[0]} is on both sides; write each POP once")
    if not far:
        raise KeyError(f"{', '.join(near)} is the whole planet; leave somebody for the other side")
    return [pair for here in near for there in far for pair in ((here, there), (there, here))]


def _members(topology: Topology, side: Iterable[str]) -> list[str]:
    """POPs of a side, each once: by their own name or their region's."""
    pops = {pop.name: [pop.name] for pop in topology.pops}
    regions: dict[str, list[str]] = {}
    for pop in topology.pops:
        regions.setdefault(pop.region, []).append(pop.name)
    places = regions | pops
    found: list[str] = []
    for name in side:
        if name not in places:
            raise KeyError(unknown(name, list(places), "POP or region"))
        found += [pop for pop in places[name] if pop not in found]
    return found
