"""Read `node.yaml`: a good file becomes a `NodeConfig`, any other a sentence.

`load` raises ConfigError, which names the file, the line, the setting and what to write
instead. Nothing here opens a socket or looks at the machine.
"""

import contextlib
import ipaddress
import re
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from edge.config import (
    Announcing,
    Index,
    Mesh,
    NodeConfig,
    Public,
    Routing,
    Weights,
    Worker,
    host_port,
    size_bytes,
)
from edge.config_errors import explain, line_of, twice

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
MAX_FILE_BYTES: Final = 1024 * 1024
#: What a socket's path may be long (108 with its end), less the longest name in run_dir.
MAX_RUN_DIR_CHARS: Final = 107 - len("/worker-99.sock")
MAX_WORKERS: Final = 64
_ORIGINS: Final = ("http://", "https://", "s3://", "gs://", "az://", "file://")
_INTERFACE: Final = re.compile(r"[^\s/]{1,15}")
_MODES: Final = ("predicted", "waterfall", "nearest", "never")


class ConfigError(Exception):
    """The file can't be used; the text says where and what to write."""


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
    _check_routing(config.routing, found)
    found.at_least("drain.lame_duck_ms", config.drain.lame_duck_ms, 0)
    found.at_least("drain.finish_ms", config.drain.finish_ms, 0)
    if config.provider:
        found.name("provider", config.provider)
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

    def at_least(self, path: str, value: float, least: int) -> None:
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
    found.at_least("weights.scrub_bytes_per_s", weights.scrub_bytes_per_s, 0)
    found.at_least("weights.scrub_every_s", weights.scrub_every_s, 1)
    if weights.blobs:
        found.check("weights.blobs", host_port, weights.blobs)
    if weights.index is not None:
        _check_index(weights.index, found)


def _check_index(index: Index, found: _Problems) -> None:
    ways = [name for name in ("url", "sentinels", "cluster") if getattr(index, name)]
    found.unless(len(ways) == 1, "weights.index", "write one of url, sentinels and cluster")
    known = index.url.startswith(("redis://", "rediss://", "unix://")) and "@" not in index.url
    found.unless(
        known or not index.url,
        "weights.index.url",
        "write redis://10.0.0.1:6379; user and password are set beside it",
    )
    for field in ("sentinels", "cluster"):
        for number, address in enumerate(getattr(index, field)):
            found.check(f"weights.index.{field}.{number}", host_port, address)
    found.unless(
        bool(index.sentinels) == bool(index.master),
        "weights.index.master",
        "write what the sentinels call it beside them, and nothing without them",
    )
    found.unless(
        bool(index.user) == bool(index.password_file),
        "weights.index.user",
        "write user and password_file, or neither of them",
    )
    fits = 10 <= index.timeout_ms <= 10_000
    found.unless(fits, "weights.index.timeout_ms", "write a number from 10 to 10000")
    for field in ("lease_ms", "alive_ms"):
        found.at_least(f"weights.index.{field}", getattr(index, field), 1_000)


def _check_routing(routing: Routing, found: _Problems) -> None:
    found.unless(routing.mode in _MODES, "routing.mode", f"write one of {', '.join(_MODES)}")
    found.at_least("routing.horizon_s", routing.horizon_s, 1)
    found.at_least("routing.min_resident_s", routing.min_resident_s, 0)
    found.at_least("routing.ms_per_usd", routing.ms_per_usd, 0)
    found.at_least("routing.usd_per_gib", routing.usd_per_gib, 0)


def _check_mesh(mesh: Mesh, node: str, found: _Problems) -> None:
    found.check("mesh.listen", host_port, mesh.listen)
    for field in ("ca", "certificate", "key"):
        found.unless(bool(getattr(mesh, field)), f"mesh.{field}", "write the path of a PEM file")
    for field in ("connect_timeout_ms", "max_calls", "max_links", "heartbeat_ms"):
        found.at_least(f"mesh.{field}", getattr(mesh, field), 1)
    found.at_least("mesh.coalesce_ms", mesh.coalesce_ms, 0)
    ordered = mesh.heartbeat_ms < mesh.suspect_ms < mesh.unroutable_ms < mesh.forget_ms
    found.unless(ordered, "mesh.suspect_ms", "write heartbeat_ms < suspect_ms < unroutable_ms < forget_ms")
    seen: set[str] = {node}
    for index, peer in enumerate(mesh.peers):
        at = f"mesh.peers.{index}"
        found.name(f"{at}.node", peer.node)
        found.check(f"{at}.address", host_port, peer.address)
        found.unless(
            peer.node not in seen, f"{at}.node", f"{peer.node!r} is there twice, or is this node itself"
        )
        seen.add(peer.node)
    if mesh.discover is not None:
        found.unless(bool(mesh.discover.name), "mesh.discover.name", "write _mesh._tcp.edge.internal")
        for index, resolver in enumerate(mesh.discover.resolvers):
            found.check(f"mesh.discover.resolvers.{index}", host_port, resolver)
        found.at_least("mesh.discover.every_ms", mesh.discover.every_ms, 100)
        found.at_least("mesh.discover.timeout_ms", mesh.discover.timeout_ms, 10)


def _check_worker(at: str, worker: Worker, found: _Problems) -> None:
    found.check(f"{at}.device_bytes", size_bytes, worker.device_bytes)
    if worker.memory_bytes:
        found.check(f"{at}.memory_bytes", size_bytes, worker.memory_bytes)
    device_ok = worker.device == "cpu" or re.fullmatch(r"cuda:[0-9]{1,2}", worker.device) is not None
    found.unless(device_ok, f"{at}.device", f"{worker.device!r} is no device: write cpu or cuda:0")
    provider_ok = worker.provider == "" or (worker.provider == "tensorrt" and worker.device != "cpu")
    found.unless(provider_ok, f"{at}.provider", "write tensorrt beside a cuda device, or nothing")
    found.unless(1 <= worker.threads <= 256, f"{at}.threads", "write a number from 1 to 256")
    _check_limits(at, worker, found)


def _check_limits(at: str, limited: Worker, found: _Problems) -> None:
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
