"""Which thing is meant: `fra-a`, `fra-a/worker-0`, `r-fra/bird`, `eu/redis`, `origin`, `iad-fra`. Pure.

Names are taken as people write them, in either order where there is one, and told back in one
spelling. It refuses to know what is broken about them.
"""

import difflib
from collections.abc import Iterator

import msgspec

from netlab.faultways import Kind
from netlab.topology import Node, Pop, Topology

ALL = "all"


class Target(msgspec.Struct, frozen=True):
    """One thing that can fail. `name` is its spelling; `node` is set for a node and its parts.

    `of` is the rest: a part's role (`worker-0`), a BIRD's place (`r-fra`), a region, a link's ends.
    """

    kind: Kind
    name: str
    node: str = ""
    of: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


def every(topology: Topology) -> tuple[Target, ...]:
    """Each thing of a planet that can fail, in the planet's order."""
    return tuple(_every(topology))


def _every(topology: Topology) -> Iterator[Target]:
    for node in topology.nodes:
        yield Target("node", node.name, node.name)
        yield from _parts(node)
    for pop in topology.pops:
        yield Target("bird", f"r-{pop.name}/bird", of=(f"r-{pop.name}",))
    for region in topology.indexed:
        yield Target("redis", f"redis/{region.name}", of=(region.name,))
    yield Target("origin", "origin")
    for number, one in enumerate(topology.pops):
        wired = {pop.name for pop in topology.neighbours(one.name)}
        for other in topology.pops[number + 1 :]:
            if other.name in wired:
                yield Target("link", f"{one.name}-{other.name}", of=(one.name, other.name))


def _parts(node: Node) -> Iterator[Target]:
    for part in ("parent", "proxy", "weights"):
        yield Target(part, f"{node.name}/{part}", node.name, (part,))
    if node.workers:
        yield Target("worker", f"{node.name}/worker", node.name, ("worker",))
    if node.workers > 1:
        for number in range(node.workers):
            yield _worker(node, number)
    if node.ingress:
        yield Target("bird", f"{node.name}/bird", node.name, (node.name,))


def _worker(node: Node, number: int) -> Target:
    return Target("worker", f"{node.name}/worker-{number}", node.name, (f"worker-{number}",))


def parse(words: str | tuple[str, ...], topology: Topology) -> Target:
    """The target that is meant; several words are a link's two ends.

    Raises KeyError that names the nearest target, or what there is.
    """
    text = words if isinstance(words, str) else "-".join(words)
    known = _spellings(topology)
    if text in known:
        return known[text]
    raise KeyError(f"nothing that can fail is called {text!r}; {_hint(text, topology, known)}")


def _spellings(topology: Topology) -> dict[str, Target]:
    """Every way to write every target; what is written first in the planet wins."""
    known: dict[str, Target] = {}
    for target in every(topology):
        known.setdefault(target.name, target)
    for target in list(known.values()):
        for other in _others(target):
            known.setdefault(other, target)
    for node in topology.nodes:
        for number in range(node.workers):
            known.setdefault(f"{node.name}/worker-{number}", _worker(node, number))
    return known


def _others(target: Target) -> Iterator[str]:
    match target.kind:
        case "redis":
            yield f"{target.of[0]}/redis"
            yield f"redis-{target.of[0]}"
        case "link":
            one, other = target.of
            yield f"{other}-{one}"
            yield f"{one}/{other}"
            yield f"{other}/{one}"
        case "bird":
            yield f"{target.of[0]}.bird"
        case "origin":
            yield "origin/origin"
        case _:
            return


def _hint(text: str, topology: Topology, known: dict[str, Target]) -> str:
    """What was meant. A POP and a region are not broken whole; what they consist of is."""
    head, slash, part = text.partition("/")
    for pop in topology.pops:
        if text in (pop.name, f"r-{pop.name}"):
            return f"the POP consists of {_listed(pop)}"
    for region in topology.regions:
        if text == region.name:
            parts = [f"redis/{text}"] if region in topology.indexed else []
            parts += [node.name for node in topology.nodes_of(text)]
            return f"the region consists of {', '.join(parts)}"
    if text in ("redis", "link", "bird", "all"):
        fitting = [target.name for target in every(topology) if target.kind == text]
        return (
            f"write {' or '.join(fitting[:6])}"
            if fitting
            else f"poplab heal {ALL} heals, one at a time fails"
        )
    for node in topology.nodes:
        if slash and node.name == head:
            parts = [target.name for target in _parts(node)]
            near = difflib.get_close_matches(part, [name.split("/")[1] for name in parts], 1, 0.5)
            return f"did you mean {head}/{near[0]}?" if near else f"{head} has {', '.join(parts)}"
    near = difflib.get_close_matches(text, list(known), 1, 0.5)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(t.name for t in every(topology))}"


def _listed(pop: Pop) -> str:
    return ", ".join([*(node.name for node in pop.nodes), f"r-{pop.name}/bird"])
