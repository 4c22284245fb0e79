"""Every way to fail, row by row. Pure: a table.

What is here is promised to whoever reads `poplab fail --list`: faultacts.py has hands for each row,
and tests/lab/test_faults.py does each of them. It refuses to know targets and how to find them.
"""

from typing import Final, Literal, get_args

import msgspec

Kind = Literal["node", "parent", "proxy", "weights", "worker", "bird", "redis", "origin", "link"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


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
_FARTHER = "nothing where a node nearer than the other end can serve; else another region, or a refusal"
_AS_PLANNED = "the link is as the planet says, in every respect"

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
        seen="what lies on its disk is served; a model that does not is refused there (503 no-space)",
        slow=True,
    ),
    Way(
        kind="node",
        how="clock-ahead",
        does="the node is started again under a wall clock that is an hour ahead (libfaketime)",
        undo="the node is started again under the machine's clock",
        seen="nothing once it is back: no deadline is read from the wall clock",
        slow=True,
    ),
    Way(
        kind="node",
        how="clock-behind",
        does="the node is started again under a wall clock that is an hour behind (libfaketime)",
        undo="the node is started again under the machine's clock",
        seen="it serves alone: by its clock nobody's certificate of the last hour is valid yet",
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
        undo=_AS_PLANNED,
        seen=_FARTHER,
    ),
    Way(
        kind="link",
        how="one-way",
        does="the WAN link swallows every frame from its first POP to its second; answers get lost",
        undo=_AS_PLANNED,
        seen=_FARTHER,
    ),
    Way(
        kind="link",
        how="lossy",
        does="the WAN link loses 30 % of its packets, both ways",
        undo=_AS_PLANNED,
        seen="answers that cross it are late; what can be served nearer does not change",
    ),
    Way(
        kind="link",
        how="narrow",
        does="the WAN link carries 1 Mbit/s, both ways, and queues 100 ms",
        undo=_AS_PLANNED,
        seen="weights that cross it take long; answers that cross it wait behind them",
    ),
)
