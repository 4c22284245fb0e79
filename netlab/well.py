"""Is the planet well? Every check that a fresh planet passes, in one place.

Each check looks from outside and answers with sentences on what is not as it should be. Tests,
`poplab heal` and whoever breaks things share it. It refuses to know why something is not well, and
mends nothing.
"""

import http.client
from collections.abc import Callable, Iterator
from typing import Any, Final

from netlab import clock, faultbook, mounts, names, paths, probe, resp, state, supervise
from netlab.clock import DeadlineMissed, wait_until
from netlab.handles import NodeHandle
from netlab.lab import Lab

LOOK_EVERY_S: Final = 0.2
LOOKS: Final = 2
TELL_EVERY_S: Final = 3.0
#: How long one question may take: nobody who is well is that slow.
ANSWER_WITHIN_S: Final = 3.0
MAX_TOLD: Final = 6
Say = Callable[[str], None]


def quiet(text: str) -> None:
    """Tell nobody."""


def wait_until_well(within_s: float, say: Say = quiet) -> None:
    """Until `unwell` finds nothing twice in a row: what was broken for an instant is missed a little later.

    Raises DeadlineMissed that names what is not well.
    """
    last: list[str] = []
    calm = 0
    told_s = clock.now_s()

    def well() -> bool:
        nonlocal last, calm, told_s
        last = unwell(Lab.running())
        calm = 0 if last else calm + 1
        if last and clock.now_s() - told_s > TELL_EVERY_S:
            told_s = clock.now_s()
            say(f"not well yet: {_text(last)}")
        return calm >= LOOKS

    try:
        wait_until(well, "the planet is well", within_s=within_s, every_s=LOOK_EVERY_S)
    except DeadlineMissed as missed:
        text = f"the planet is not well after {within_s:.0f} s: {_text(last)}"
        raise DeadlineMissed(text) from missed


def _text(found: list[str]) -> str:
    more = len(found) - MAX_TOLD
    return "; ".join(found[:MAX_TOLD]) + (f"; and {more} more" if more > 0 else "")


def unwell(lab: Lab) -> list[str]:
    """What is not as on a fresh planet, one sentence each; empty when it is well.

    The first group that finds something ends the look: what depends on it can't be well either.
    """
    recorded = [f"{fault.target} was broken ({fault.how}): {fault.remedy}" for fault in faultbook.entries()]
    return recorded or felt(lab)


def felt(lab: Lab) -> list[str]:
    """The same, whatever the book says."""
    for group in (_broken, _programs, _routes, _nodes, _indexes, _users):
        if found := list(group(lab)):
            return found
    return []


def _broken(lab: Lab) -> Iterator[str]:
    """What only somebody's will explains."""
    for at in mounts.below(state.ROOT):
        yield f"something is mounted at {at}"
    try:
        for link in lab.wan.conditions():
            yield f"the link from {link.origin} to {link.to} is not as the planet says: {link.text()}"
    except (OSError, ValueError) as error:
        yield f"the WAN does not answer: {type(error).__name__}"


def _programs(lab: Lab) -> Iterator[str]:
    for process in lab.state.processes:
        if not supervise.alive(process):
            yield f"{process.name} is dead"
        elif supervise.stopped(process.pid):
            yield f"{process.name} is stopped"
    for node in _nodes_of(lab):
        for member in node.members():
            if supervise.stopped(member.pid):
                yield f"{node.name}/{member.name} is stopped"


def _routes(lab: Lab) -> Iterator[str]:
    birds = [p.name.removesuffix(".bird") for p in lab.state.processes if p.name.endswith(".bird")]
    for place in birds:
        sessions = lab.sessions(place)
        if not sessions:
            yield f"the BIRD of {place} does not answer"
        for session in (name for name, up in sessions.items() if not up):
            if not (lab.state.bare and session.startswith("node")):  # a bare lab's nodes have no BIRD
                yield f"BGP: {place} has no session {session}"
    yield from lab.astray()


def _nodes(lab: Lab) -> Iterator[str]:
    for node in _nodes_of(lab):
        if (word := node.status()["state"]) != "ready":
            yield f"{node.name} is {word}"
        elif _is_popctl(lab):
            yield from _said_by(lab, node)
    if not lab.state.bare:
        yield from _origin(lab)


def _said_by(lab: Lab, node: NodeHandle) -> Iterator[str]:
    said = _asked(node, "/edge/state")
    if isinstance(said, str):
        yield said
        return
    for child in said["tree"]["children"]:
        if not (child["up"] and child["ready"]):
            yield f"{node.name}/{child['role']} is not ready"
    if node.node.ingress and said["tree"]["announcement"] != "announced":
        yield f"{node.name} is {said['tree']['announcement']}"
    joined = {p["node"] for p in said["peers"] if p["linked"] and p["standing"] == "good"}
    if missing := sorted({other.name for other in lab.topology.nodes} - joined - {node.name}):
        yield f"{node.name} has no good link to {', '.join(missing)}"
    for endpoint in said["endpoints"]:
        if endpoint["state"] != "up" or endpoint["standing"] != "good":
            yield f"{node.name} holds {endpoint['name']} for {endpoint['state']}, {endpoint['standing']}"
    if not said["origin_up"]:
        yield f"{node.name} finds no origin"
    indexed = {region.name for region in lab.topology.indexed}
    index = said["weights"]["index"]
    if said["region"] in indexed and index.get("state") != "up":
        yield f"{node.name}'s index is {index.get('state')}"


def _asked(node: NodeHandle, path: str) -> Any:
    try:
        answer = probe.ask_unix(str(node.admin_socket), "GET", path, timeout_s=ANSWER_WITHIN_S)
    except (OSError, http.client.HTTPException) as error:
        return f"{node.name} does not answer its operator: {type(error).__name__}"
    return answer.json if answer.status == 200 else f"{node.name} answers {answer.status} to GET {path}"


def _origin(lab: Lab) -> Iterator[str]:
    router, address = names.router(lab.topology.origin.pop), str(lab.topology.origin4)
    try:
        probe.request(
            router,
            address,
            "HEAD",
            "/catalog.json",
            port=lab.topology.origin.port,
            timeout_s=ANSWER_WITHIN_S,
        )
        faults = {fault["kind"] for fault in lab.origin.stats()["faults"]}
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        yield f"the origin does not answer: {type(error).__name__}"
        return
    if faults:
        yield f"the origin is told to lie: {', '.join(sorted(faults))}"


def _indexes(lab: Lab) -> Iterator[str]:
    """Each region's Redis lets its nodes in, keeps its settings, and lists what lies on their disks."""
    for region in lab.topology.indexed if not lab.state.bare else ():
        redis = lab.region(region.name).redis
        try:
            for name in ("maxmemory", "min-replicas-to-write"):
                wanted = _bytes(redis.configured(name) or "0")
                seen = redis.cli("CONFIG", "GET", name, timeout_s=ANSWER_WITHIN_S)
                if not isinstance(seen, list) or seen[1:] != [wanted]:
                    yield f"redis/{region.name}: {name} is not {wanted}"
            for node in lab.topology.nodes_of(region.name):
                handle = lab.node(node.name)
                have = f"wc:{{{region.name}}}:have:{node.name}"
                redis.cli_as(node.name, handle.redis_password(), "SCARD", have, timeout_s=ANSWER_WITHIN_S)
                told = redis.cli("SMEMBERS", have, timeout_s=ANSWER_WITHIN_S)
                if _is_popctl(lab) and (set(told) if isinstance(told, list) else set()) != _disk(handle):
                    yield f"redis/{region.name} does not list what {node.name} has"
        except (OSError, resp.RedisError) as error:
            yield f"redis/{region.name}: {str(error) or type(error).__name__}"


def _bytes(size: str) -> str:
    """redis.conf's 256mb as CONFIG GET tells it."""
    return str(int(size.removesuffix("mb")) << 20) if size.endswith("mb") else size


def _disk(node: NodeHandle) -> set[str]:
    shelves = (node.home / "store" / shelf for shelf in ("blobs", "manifests"))
    return {
        path.name.removesuffix(".json") for shelf in shelves if shelf.is_dir() for path in shelf.iterdir()
    }


def _users(lab: Lab) -> Iterator[str]:
    """Last, and only when all else is well: what it is for."""
    for city, way in paths.catchments(lab.topology).items() if not lab.state.bare else ():
        if (seen := lab.city(city).served_by()) != way[-1]:
            yield f"{city} is served by {seen}, not by {way[-1]}"


def _nodes_of(lab: Lab) -> list[NodeHandle]:
    return [] if lab.state.bare else [lab.node(node.name) for node in lab.topology.nodes]


def _is_popctl(lab: Lab) -> bool:
    """Whether real nodes run; a stand-in for popctl has nothing to say."""
    return "edge.cli" in lab.state.program
