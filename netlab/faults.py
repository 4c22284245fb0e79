"""What can be broken on the planet, how, what its users then see, and what takes it back. Pure: tables.

    with lab.fail("fra-a/worker", "kill"):          # netlab/faultrun.py; a Breakage, healed at the end
        ...
    lab.fail("iad-fra", "cut"); lab.faults()        # [Fault(target="iad-fra", how="cut", at_s=..., ...)]
    lab.heal("iad-fra"); lab.heal()                 # one; all, and wait until the planet is well
    lab.wait_until_well(within_s=30)                # netlab/well.py: every check there is
    faulttarget.every(topology)                     # each target there is; with `ways`, all that can happen

A `Fault` is written into the lab's directory before it acts (faultbook.py), and its undoing
(faultacts.py) asks for nothing that only the process that broke it knew. This file refuses to know
processes, sockets and files.

Two ways are left out on purpose. `hang`, a process that is busy rather than stopped, can't be told
from `stop` by anybody outside it, and no program of ours spins on request. `slow` for a process would
take a CPU controller, which not every machine lends; an origin that is slow is `drip` and `stall`, a
link that is slow is the WAN's affair.
"""

from typing import Final, Literal, get_args

import msgspec

from netlab.topology import unknown

Kind = Literal["node", "parent", "proxy", "weights", "worker", "bird", "redis", "origin", "link"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
#: What a node consists of; a worker may be one of several, as in fra-a/worker-0.
PARTS: Final[tuple[Kind, ...]] = ("parent", "proxy", "weights", "worker", "bird")


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a kind of target can fail. Every sentence is for a person.

    `undo` says what heal does, `seen` what users see meanwhile. `passes` is whether the planet gets
    over it without heal. Ways with `slow` take a restart of the node to come and to go.
    """

    kind: Kind
    how: str
    does: str
    undo: str
    seen: str
    passes: bool = False
    slow: bool = False


_ELSEWHERE = "within 2.5 s the next POP answers; requests under way are lost"
_NOTHING = "nothing while the model they ask for is on a device or a disk"

WAYS: Final[tuple[Way, ...]] = (
    Way(
        kind="node",
        how="kill",
        does="kill -9 of every process of the node; its BIRD and its region's Redis live",
        undo="the node is started again",
        seen=f"refused at first, and {_ELSEWHERE}",
        slow=True,
    ),
    Way(
        kind="node",
        how="stop",
        does="SIGSTOP of every process of the node; its BIRD and its region's Redis go on",
        undo="SIGCONT",
        seen=f"silence, and {_ELSEWHERE}",
    ),
    Way(
        kind="node",
        how="blackhole",
        does="its port at the POP's router swallows every frame, both ways, and its carrier stays",
        undo="the port forwards again",
        seen="silence until the router misses it (BFD, or else BGP's hold time), then the next POP answers",
    ),
    Way(
        kind="node",
        how="full",
        does="its disk is full: the node is started again on a store without a free byte",
        undo="the node is started again with its store where it was, and what it had",
        seen="what lies on its disk is served; what does not comes from other nodes or is refused",
        slow=True,
    ),
    Way(
        kind="parent",
        how="kill",
        does="kill -9 of the node's parent; its guard withdraws the address, its children follow it",
        undo="the node is started again",
        seen=f"{_ELSEWHERE}; the node refuses nobody before",
        slow=True,
    ),
    Way(
        kind="parent",
        how="stop",
        does="SIGSTOP of the node's parent; its guard withdraws the address, its children serve on",
        undo="SIGCONT",
        seen="within 2.5 s new requests go to the next POP",
    ),
    Way(
        kind="proxy",
        how="kill",
        does="kill -9 of the proxy; its parent starts another one",
        undo="nothing: its parent has started another one (the node is started again if it has none)",
        seen="what was in the proxy is lost; others wait up to 2 s. A second time within 10 s: the next POP",
        passes=True,
    ),
    Way(
        kind="proxy",
        how="stop",
        does="SIGSTOP of the proxy, as if its event loop were blocked; its parent kills it after 5 s",
        undo="SIGCONT, if it still lives",
        seen="silence, within 2.5 s the next POP",
        passes=True,
    ),
    Way(
        kind="weights",
        how="kill",
        does="kill -9 of the process that fetches weights; its parent starts another one",
        undo="nothing: its parent has started another one (the node is started again if it has none)",
        seen=f"{_NOTHING}; a load under way fails",
        passes=True,
    ),
    Way(
        kind="weights",
        how="stop",
        does="SIGSTOP of the process that fetches weights; its parent kills it when it was silent too long",
        undo="SIGCONT, if it still lives",
        seen=f"{_NOTHING}; loads wait",
        passes=True,
    ),
    Way(
        kind="worker",
        how="kill",
        does="kill -9 of the worker, and what it had on its device is lost; its parent starts another one",
        undo="nothing: its parent has started another one (the node is started again if it has none)",
        seen="503 worker-lost for what ran on it; others are sent elsewhere until it is back",
        passes=True,
    ),
    Way(
        kind="worker",
        how="stop",
        does="SIGSTOP of the worker; its parent kills it when it was silent too long",
        undo="SIGCONT, if it still lives",
        seen="what runs on it waits; others are sent elsewhere",
        passes=True,
    ),
    Way(
        kind="bird",
        how="kill",
        does="kill -9 of BIRD; nobody starts another one",
        undo="BIRD is started again",
        seen="of a node: the next POP answers. Of a router: its kernel keeps the routes, others drop theirs",
    ),
    Way(
        kind="bird",
        how="stop",
        does="SIGSTOP of BIRD: it says nothing and keeps its connections",
        undo="SIGCONT",
        seen="as if it were dead, once its neighbours miss it (BFD, or else BGP's hold time)",
    ),
    Way(
        kind="redis",
        how="kill",
        does="kill -9 of the region's Redis, and all that it knew is lost",
        undo="it is started again, empty, with its users; the nodes tell it what they have",
        seen=f"{_NOTHING}; nobody in the region learns of new blobs",
    ),
    Way(
        kind="redis",
        how="stop",
        does="SIGSTOP of the region's Redis: it keeps its connections and answers nothing",
        undo="SIGCONT",
        seen=f"{_NOTHING}; nobody in the region learns of new blobs",
    ),
    Way(
        kind="redis",
        how="flush",
        does="FLUSHALL: the region's index is empty and its epoch is gone",
        undo="nothing: the nodes tell it again what they have",
        seen=_NOTHING,
        passes=True,
    ),
    Way(
        kind="redis",
        how="wrong-password",
        does="every node of the region has another password than the one it knows, and is logged out",
        undo="each node's password is what it knows again",
        seen=f"{_NOTHING}; nobody in the region learns of new blobs",
    ),
    Way(
        kind="redis",
        how="read-only",
        does="the region's Redis refuses every write (NOREPLICAS)",
        undo="it takes writes again",
        seen=f"{_NOTHING}; leases and new blobs are not noted",
    ),
    Way(
        kind="redis",
        how="out-of-memory",
        does="the region's Redis has no memory left and evicts nothing: it refuses writes (OOM)",
        undo="it has the memory of its redis.conf again",
        seen=f"{_NOTHING}; leases and new blobs are not noted",
    ),
    Way(
        kind="origin",
        how="kill",
        does="kill -9 of the origin: whoever connects is refused",
        undo="it is started again",
        seen=f"{_NOTHING}; a model that is on no disk is refused",
    ),
    Way(
        kind="origin",
        how="stop",
        does="SIGSTOP of the origin: it takes connections and answers nothing",
        undo="SIGCONT",
        seen=f"{_NOTHING}; a model that is on no disk is waited for, then refused",
    ),
    Way(
        kind="origin",
        how="blackhole",
        does="its port at the POP's router swallows every frame, both ways, and its carrier stays",
        undo="the port forwards again",
        seen=f"{_NOTHING}; a model that is on no disk is waited for, then refused",
    ),
    Way(
        kind="origin",
        how="5xx",
        does="every request is answered 503",
        undo="it answers honestly again",
        seen=f"{_NOTHING}; a model that is on no disk is refused",
    ),
    Way(
        kind="origin",
        how="stall",
        does="every body stops half way for a minute",
        undo="it answers honestly again",
        seen=f"{_NOTHING}; a model that is on no disk is waited for, then refused",
    ),
    Way(
        kind="origin",
        how="drip",
        does="every body comes at 20 kB/s",
        undo="it answers honestly again",
        seen=f"{_NOTHING}; a model that is on no disk takes as long as that takes",
    ),
    Way(
        kind="origin",
        how="cut",
        does="every connection closes half way through the body",
        undo="it answers honestly again",
        seen=f"{_NOTHING}; a model that is on no disk is refused, or comes in pieces",
    ),
    Way(
        kind="origin",
        how="corrupt",
        does="one byte in the middle of every body is wrong",
        undo="it answers honestly again; a node that met wrong bytes asks again after half a minute",
        seen=f"{_NOTHING}; a model that is on no disk is refused, never served wrong",
    ),
    Way(
        kind="origin",
        how="200-to-range",
        does="a request for a part is answered with the whole, as some proxies do",
        undo="it answers honestly again",
        seen=f"{_NOTHING}; a model that is on no disk is refused",
    ),
    Way(
        kind="link",
        how="cut",
        does="the WAN link swallows every frame, both ways; nobody is told",
        undo="the link carries again",
        seen="nothing where a node nearer than the other end can serve; else another region, or a refusal",
    ),
)

#: What people call it elsewhere.
_MEANT: Final = {
    "crash": "kill",
    "die": "kill",
    "freeze": "stop",
    "hang": "stop",
    "pause": "stop",
    "vanish": "blackhole",
    "drop": "blackhole",
    "isolate": "blackhole",
    "disk-full": "full",
    "slow": "drip",
    "oom": "out-of-memory",
    "readonly": "read-only",
    "flushall": "flush",
    "password": "wrong-password",
    "down": "cut",
    "500": "5xx",
    "503": "5xx",
    "200": "200-to-range",
}


def ways(kind: Kind) -> tuple[Way, ...]:
    """How a target of this kind can fail."""
    return tuple(way for way in WAYS if way.kind == kind)


def way(kind: Kind, how: str) -> Way:
    """The way of that name. Raises KeyError that says which fit this kind."""
    fitting = ways(kind)
    for one in fitting:
        if one.how == how:
            return one
    names = [one.how for one in fitting]
    meant = _MEANT.get(how.lower(), "")
    hint = f"did you mean {meant}?" if meant in names else unknown(how, names, "way to fail").split("; ")[1]
    rest = "" if hint.startswith("there are") else f" ({', '.join(names)} fit it)"
    raise KeyError(f"a {kind} can't fail by {how!r}; {hint}{rest}")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault in force: what was broken, how, and when (wall clock, seconds since 1970)."""

    target: str
    kind: Kind
    how: str
    at_s: float

    @property
    def way(self) -> Way:
        """What is known of it."""
        return way(self.kind, self.how)

    @property
    def remedy(self) -> str:
        """The command that takes it back."""
        return f"poplab heal {self.target}"
