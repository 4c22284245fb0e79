"""What a node is told: `node.yaml` as frozen structs, every default once, units in the names.

`load` turns a file into a `NodeConfig` or raises ConfigError, which names the file, the line,
the setting and what to write instead. Nothing here opens a socket or looks at the machine.
`edge/node.yaml` is the annotated sample; a test parses it.
"""

import contextlib
import ipaddress
import re
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from edge.config_errors import explain, line_of, twice
from edge.limits import HttpLimits

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)\s*(B|KiB|MiB|GiB|TiB)")
_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


MAX_FILE_BYTES: Final = 1024 * 1024
#: What a socket's path may be long (108 with its end), less the longest name in run_dir.
MAX_RUN_DIR_CHARS: Final = 107 - len("/worker-99.sock")
MAX_WORKERS: Final = 64
_ORIGINS: Final = ("http://", "https://", "s3://", "gs://", "az://", "file://")
_INTERFACE: Final = re.compile(r"[^\s/]{1,15}")


class ConfigError(Exception):
    """The file can't be used; the text says where and what to write."""


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


class Peer(Struct, frozen=True, kw_only=True):
    """Another node of this POP: where its mesh listens and how many workers it has."""

    node: str
    pop: str
    address: str
    workers: int = 0
    #: Per worker of the peer, as seen from here.
    soft_limit: int = 32
    hard_limit: int = 128


class Mesh(Struct, frozen=True, kw_only=True):
    """Node to node: TLS 1.3, certificates of this fleet's CA on both sides."""

    listen: str
    ca: str
    certificate: str
    key: str
    peers: tuple[Peer, ...] = ()
    connect_timeout_ms: int = 2_000
    max_calls: int = 4_096


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


class Weights(Struct, frozen=True, kw_only=True):
    """The store on disk, the origin behind it, and what may lie in host memory."""

    store: str
    origin: str
    disk_bytes: str = "20GiB"
    host_bytes: str = "4GiB"
    catalogue_poll_ms: int = 2_000
    fetch_parallel: int = 4
    fetch_timeout_ms: int = 60_000
    #: A fetch that moves fewer bytes than this per second is given up.
    min_bytes_per_s: int = 65_536


class Worker(Struct, frozen=True, kw_only=True):
    """One device. Above `soft_limit` others are preferred, above `hard_limit` requests wait."""

    device: str = "cpu"
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
    users: Users = Users()
    log_level: str = "info"


def load(path: Path) -> NodeConfig:
    """The node described by the file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: is larger than {MAX_FILE_BYTES} bytes; is it the right file?")
        text = raw.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}. Give the node's file with -c") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    return parse(text, str(path))


def parse(text: str, name: str = "node.yaml") -> NodeConfig:
    """Like `load`, from text; `name` stands in the errors."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        plain = yaml.load(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{name}{line}: is no YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(plain, dict):
        problem = "is empty" if plain is None else "is no list of settings, as in node: iad-a"
        raise ConfigError(f"{name}:1: the file {problem}; start from the sample edge/node.yaml")
    if double := twice(tree):
        raise ConfigError(
            f"{name}:{double[0]}: {double[2]}: stands twice, first in line {double[1]}; remove one"
        )
    try:
        config = msgspec.convert(plain, NodeConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(str(error), tree, name, NodeConfig)) from error
    for path, problem in _problems(config):
        raise ConfigError(f"{name}:{line_of(tree, path)}: {'.'.join(path)}: {problem}")
    return config


def _problems(config: NodeConfig) -> list[tuple[list[str], str]]:
    """What types can't say, each with the path of its setting; all of them are found, the first is told."""
    found = _Problems()
    for field in ("node", "pop", "region"):
        found.name(field, getattr(config, field))
    run_dir = config.run_dir
    found.absolute("run_dir", run_dir)
    found.unless(
        len(run_dir.encode()) <= MAX_RUN_DIR_CHARS,
        "run_dir",
        f"write a path of at most {MAX_RUN_DIR_CHARS} characters: the sockets lie in it",
    )
    _check_public(config.public, found)
    _check_weights(config.weights, found)
    if config.mesh is not None:
        _check_mesh(config.mesh, config.node, found)
    if config.admin.listen:
        found.check("admin.listen", host_port, config.admin.listen)
        needs = "needs admin.token_file: TCP without a token is refused"
        found.unless(bool(config.admin.token_file), "admin.listen", needs)
    found.unless(len(config.workers) <= MAX_WORKERS, "workers", f"write at most {MAX_WORKERS}")
    for index, worker in enumerate(config.workers):
        _check_worker(f"workers.{index}", worker, found)
    if config.announce is not None:
        _check_announce(config.announce, config.public, found)
    found.at_least("queue.max_waiting", config.queue.max_waiting, 0)
    found.at_least("queue.max_wait_ms", config.queue.max_wait_ms, 0)
    uids = msgspec.structs.asdict(config.users)
    for role, uid in uids.items():
        found.unless(
            1 <= uid <= 0x7FFFFFFF, f"users.{role}", f"{uid} is no uid for a child: write one above 0"
        )
        others = [other for other, theirs in uids.items() if theirs == uid and other != role]
        found.unless(
            not others, f"users.{role}", f"{uid} is also users.{''.join(others[:1])}: write different ones"
        )
    levels = ("debug", "info", "warning", "error")
    found.unless(config.log_level in levels, "log_level", f"write one of {', '.join(levels)}")
    return found.list


class _Problems:
    """Collects what is wrong, by setting."""

    def __init__(self) -> None:
        self.list: list[tuple[list[str], str]] = []

    def wrong(self, path: str, problem: str) -> None:
        self.list.append((path.split("."), problem))

    def unless(self, good: bool, path: str, problem: str) -> None:
        if not good:
            self.wrong(path, problem)

    def check(self, path: str, test: Any, *arguments: Any) -> None:
        try:
            test(*arguments)
        except ValueError as error:
            self.wrong(path, str(error))

    def name(self, path: str, value: str) -> None:
        self.unless(
            NAME.fullmatch(value) is not None, path, f"{value!r} is no name: write a-z, 0-9 and -, at most 32"
        )

    def absolute(self, path: str, value: str) -> None:
        self.unless(
            value.startswith("/"), path, f"{value!r} is no absolute path: write one that begins with /"
        )

    def at_least(self, path: str, value: int, least: int) -> None:
        self.unless(value >= least, path, f"{value} is too little: write at least {least}")


def _check_public(public: Public, found: _Problems) -> None:
    found.unless(bool(public.listen), "public.listen", "write at least one address, as in 127.0.0.1:8080")
    for index, address in enumerate(public.listen):
        found.check(f"public.listen.{index}", host_port, address)
        first = public.listen.index(address)
        found.unless(first == index, f"public.listen.{index}", f"{address} is there twice")
    for field in ("deadline_ms", "max_deadline_ms"):
        found.at_least(f"public.{field}", getattr(public, field), 1)
    for field, value in msgspec.structs.asdict(public.limits).items():
        found.at_least(f"public.limits.{field}", value, 1)
    within = public.deadline_ms <= public.max_deadline_ms
    found.unless(within, "public.deadline_ms", "must not exceed public.max_deadline_ms")


def _check_weights(weights: Weights, found: _Problems) -> None:
    found.absolute("weights.store", weights.store)
    known = weights.origin.startswith(_ORIGINS)
    found.unless(
        known, "weights.origin", f"{weights.origin!r} is no origin: begin with one of {' '.join(_ORIGINS)}"
    )
    for field in ("disk_bytes", "host_bytes"):
        found.check(f"weights.{field}", size_bytes, getattr(weights, field))
    found.unless(1 <= weights.fetch_parallel <= 64, "weights.fetch_parallel", "write a number from 1 to 64")
    for field in ("catalogue_poll_ms", "fetch_timeout_ms", "min_bytes_per_s"):
        found.at_least(f"weights.{field}", getattr(weights, field), 1)


def _check_mesh(mesh: Mesh, node: str, found: _Problems) -> None:
    found.check("mesh.listen", host_port, mesh.listen)
    for field in ("ca", "certificate", "key"):
        found.unless(bool(getattr(mesh, field)), f"mesh.{field}", "write the path of a PEM file")
    for field in ("connect_timeout_ms", "max_calls"):
        found.at_least(f"mesh.{field}", getattr(mesh, field), 1)
    seen: set[str] = {node}
    for index, peer in enumerate(mesh.peers):
        at = f"mesh.peers.{index}"
        found.name(f"{at}.node", peer.node)
        found.name(f"{at}.pop", peer.pop)
        found.check(f"{at}.address", host_port, peer.address)
        found.at_least(f"{at}.workers", peer.workers, 0)
        _check_limits(at, peer, found)
        found.unless(
            peer.node not in seen, f"{at}.node", f"{peer.node!r} is there twice, or is this node itself"
        )
        seen.add(peer.node)


def _check_worker(at: str, worker: Worker, found: _Problems) -> None:
    found.check(f"{at}.device_bytes", size_bytes, worker.device_bytes)
    if worker.memory_bytes:
        found.check(f"{at}.memory_bytes", size_bytes, worker.memory_bytes)
    device_ok = worker.device == "cpu" or re.fullmatch(r"cuda:[0-9]{1,2}", worker.device) is not None
    found.unless(device_ok, f"{at}.device", f"{worker.device!r} is no device: write cpu or cuda:0")
    found.unless(1 <= worker.threads <= 256, f"{at}.threads", "write a number from 1 to 256")
    _check_limits(at, worker, found)


def _check_limits(at: str, limited: Peer | Worker, found: _Problems) -> None:
    soft, hard = limited.soft_limit, limited.hard_limit
    found.unless(1 <= soft <= hard, f"{at}.soft_limit", f"{soft} must lie between 1 and hard_limit, {hard}")


def _check_announce(announce: Announcing, public: Public, found: _Problems) -> None:
    interface = announce.interface
    named = _INTERFACE.fullmatch(interface) is not None
    found.unless(named, "announce.interface", f"{interface!r} is no interface's name, as in ann0")
    found.unless(bool(announce.addresses), "announce.addresses", "write the anycast addresses")
    listened = set()
    for listen in public.listen:
        with contextlib.suppress(ValueError):
            listened.add(ipaddress.ip_address(host_port(listen)[0]))
    for index, text in enumerate(announce.addresses):
        at = f"announce.addresses.{index}"
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            found.wrong(at, f"{text!r} is no address: write 192.0.2.1 or 2001:db8::1")
            continue
        everywhere = any(other.is_unspecified and other.version == address.version for other in listened)
        heard = everywhere or address in listened
        found.unless(heard, at, f"nobody listens on {text}: write it in public.listen too, with its port")
    found.unless(
        announce.lease_ms >= 1000 and announce.lease_ms % 1000 == 0,
        "announce.lease_ms",
        f"{announce.lease_ms} is no whole number of seconds, in which the kernel counts: write 2000",
    )
    found.unless(
        0 < announce.renew_ms * 3 <= announce.lease_ms,
        "announce.renew_ms",
        "must be at most a third of lease_ms, else one late renewal withdraws",
    )
    found.unless(
        0 < announce.heartbeat_max_age_ms < announce.lease_ms,
        "announce.heartbeat_max_age_ms",
        "must be less than lease_ms, else a silent proxy is noticed too late",
    )
