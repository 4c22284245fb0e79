"""What a node is told: `node.yaml` as frozen structs, every default once, units in the names.

`edge.config_file` reads and checks a file; nothing here opens one, opens a socket or looks
at the machine. `edge/node.yaml` is the annotated sample; a test parses it.
"""

import ipaddress
import re
from typing import Final

import msgspec

from edge.limits import HttpLimits

_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)\s*(B|KiB|MiB|GiB|TiB)")
_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def size_bytes(text: str) -> int:
    """Bytes of "512MiB", "2GiB", "100B", at least one. Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"{text!r} is no size: write a number and B, KiB, MiB, GiB or TiB, as in 512MiB")
    return int(float(found[1]) * _UNITS[found[2]])


def host_port(text: str) -> tuple[str, int]:
    """("10.1.0.11", 80) of "10.1.0.11:80", IPv6 in brackets. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    try:
        if not (colon and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
            raise ValueError
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if ":" in bare and bare == host:
            raise ValueError
        ipaddress.ip_address(bare)
    except ValueError:
        raise ValueError(
            f"{text!r} is no address: write 192.0.2.1:80, or [2001:db8::1]:80 for IPv6"
        ) from None
    return bare, int(port)


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section: unknown settings are errors."""


class Public(Struct, frozen=True, kw_only=True):
    """The front door. `hosts` are names it answers for beside the addresses it listens on."""

    listen: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    limits: HttpLimits = HttpLimits()
    #: Without the client's own Edge-Deadline-Ms, and the most that a client may ask for.
    deadline_ms: int = 30_000
    max_deadline_ms: int = 60_000
    #: API keys, see edge/proxy/keys.py; without a file there are none, and operator calls are refused.
    keys_file: str = ""
    #: Whether inference needs a key, and whether lists of models do.
    infer_needs_key: bool = False
    lists_need_key: bool = False
    #: False: of all Edge-* answer headers only the request id leaves.
    explain_headers: bool = True


class Peer(Struct, frozen=True, kw_only=True):
    """Another node: where its mesh listens. What it has, it tells by its beacons."""

    node: str
    address: str


class Discover(Struct, frozen=True, kw_only=True):
    """Peers from DNS: the SRV records of `name`, asked again every `every_ms`."""

    name: str
    #: Addresses with ports; empty for the system's resolvers.
    resolvers: tuple[str, ...] = ()
    every_ms: int = 5_000
    timeout_ms: int = 1_000


class Mesh(Struct, frozen=True, kw_only=True):
    """Node to node: TLS 1.3, certificates of this fleet's CA on both sides.

    Peers are a list, or found by DNS, or both. Silence of a peer makes it suspect, then
    unroutable, then forgotten.
    """

    listen: str
    ca: str
    certificate: str
    key: str
    peers: tuple[Peer, ...] = ()
    discover: Discover | None = None
    connect_timeout_ms: int = 1_000
    max_calls: int = 4_096
    max_links: int = 1_024
    heartbeat_ms: int = 500
    coalesce_ms: int = 100
    suspect_ms: int = 1_500
    unroutable_ms: int = 3_000
    forget_ms: int = 30_000


class Routing(Struct, frozen=True, kw_only=True):
    """Where requests go. `mode`: predicted | waterfall | nearest | never (never leaves the POP).

    `hydrate` lets this node bring models near in the background. Money counts when `ms_per_usd`
    is above 0: how many milliseconds a dollar of egress is worth.
    """

    mode: str = "predicted"
    hydrate: bool = True
    #: How far ahead a background load must pay for itself, and how long a resident model is safe from one.
    horizon_s: int = 300
    min_resident_s: int = 30
    ms_per_usd: float = 0.0
    usd_per_gib: float = 0.0


class Admin(Struct, frozen=True, kw_only=True):
    """The operator's plane; the UNIX socket is always there, TCP only with a token file."""

    listen: str = ""
    token_file: str = ""


class Announcing(Struct, frozen=True, kw_only=True):
    """The VIP as a kernel lease on a marker interface that a BGP daemon watches."""

    interface: str
    addresses: tuple[str, ...]
    lease_ms: int = 2_000
    renew_ms: int = 300
    #: The proxy's heartbeat may be this old and the lease is still renewed.
    heartbeat_max_age_ms: int = 700


class Index(Struct, frozen=True, kw_only=True):
    """The region's Redis. It may be away at any time; nothing waits for it longer than `timeout_ms`.

    One server at `url`, or the one that `sentinels` call `master`, or the one of a `cluster` that
    has the region's slot. Those two are lists of addresses, not all of which need be alive.
    """

    url: str = ""
    sentinels: tuple[str, ...] = ()
    master: str = ""
    cluster: tuple[str, ...] = ()
    user: str = ""
    password_file: str = ""
    timeout_ms: int = 200
    lease_ms: int = 10_000
    alive_ms: int = 6_000


class Weights(Struct, frozen=True, kw_only=True):
    """The store on disk, the origin behind it, and what may lie in host memory.

    `blobs` is where this node gives its blobs to others (HTTPS with the mesh's certificates);
    with `index` nodes of a region fetch each blob once and from each other.
    """

    store: str
    origin: str
    blobs: str = ""
    index: Index | None = None
    disk_bytes: str = "20GiB"
    host_bytes: str = "4GiB"
    catalogue_poll_ms: int = 2_000
    #: At most so many ranges of one fetch at a time; it starts with 4, and with more where they gain.
    fetch_parallel: int = 16
    fetch_timeout_ms: int = 60_000
    #: A fetch that moves fewer bytes than this per second is given up.
    min_bytes_per_s: int = 65_536
    #: All blobs are read again and again, at this rate, which 0 turns off; a pass begins at most so often.
    scrub_bytes_per_s: int = 16_777_216
    scrub_every_s: int = 86_400


class Worker(Struct, frozen=True, kw_only=True):
    """One device. Above `soft_limit` others are preferred, above `hard_limit` requests wait."""

    device: str = "cpu"
    #: tensorrt: models whose shapes are known run on it. Empty: on CUDA where the device is a GPU.
    provider: str = ""
    device_bytes: str = "2GiB"
    threads: int = 1
    soft_limit: int = 32
    hard_limit: int = 128
    #: A CPU worker's RLIMIT_DATA; empty for a GPU worker, whose driver maps far more than it uses.
    memory_bytes: str = "8GiB"


class Queue(Struct, frozen=True, kw_only=True):
    """Who may wait at the door when every worker is at its hard limit."""

    max_waiting: int = 256
    max_wait_ms: int = 2_000


class Drain(Struct, frozen=True, kw_only=True):
    """Leaving: answers say Connection: close for `lame_duck_ms`, then the address is withdrawn.

    What still runs then has `finish_ms`.
    """

    lame_duck_ms: int = 1_000
    finish_ms: int = 10_000


class Users(Struct, frozen=True, kw_only=True):
    """The uid (= gid) of each child; ignored, with a notice, when the parent is not root."""

    proxy: int = 64_001
    weights: int = 64_002
    worker: int = 64_003


class NodeConfig(Struct, frozen=True, kw_only=True):
    """One node, whole."""

    node: str
    pop: str
    region: str
    run_dir: str
    public: Public
    weights: Weights
    mesh: Mesh | None = None
    admin: Admin = Admin()
    announce: Announcing | None = None
    workers: tuple[Worker, ...] = ()
    queue: Queue = Queue()
    routing: Routing = Routing()
    drain: Drain = Drain()
    #: Who carries this node's traffic, for egress prices.
    provider: str = ""
    users: Users = Users()
    log_level: str = "info"
