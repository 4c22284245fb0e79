"""Carry out the steps of a plan in the kernel. The only file that knows pyroute2.

It has no opinion about order: it does the steps as they come, takes back what it did when one
fails, and answers a few questions about the kernel (what is tagged as ours, what the host routes).
"""

import ipaddress
import itertools
import os
import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute, NetlinkError

from netlab import names, netns, plan
from netlab.steps import (
    Addr,
    Bridge,
    Drop,
    MoveLink,
    Namespace,
    Neighbour,
    Route,
    Rule,
    Step,
    Sysctl,
    Tag,
    Up,
    Veth,
)

_NODAD: Final = 0x02
_PERMANENT: Final = 0x80
_UNICAST, _LOCAL = 1, 2


class ApplyError(Exception):
    """A step could not be done; the text names the step and what the kernel said."""


def carry_out(steps: Iterable[Step]) -> None:
    """Do the steps in order. When one fails, undo those before it and raise ApplyError."""
    done: list[Step] = []
    try:
        for space, group in itertools.groupby(steps, key=_where):
            _one_namespace(space, list(group), done)
    except BaseException:
        for step in plan.undo(done):
            try:
                _one_namespace(_where(step), [step], [])
            except (ApplyError, OSError):
                continue  # its namespace or link may be what failed; the first error is the one to tell
        raise


def _where(step: Step) -> str:
    """The namespace to stand in; namespaces themselves are made from outside."""
    made = step.of if isinstance(step, Drop) else step
    return names.HOST if isinstance(made, Namespace) else step.ns


def _one_namespace(space: str, steps: list[Step], done: list[Step]) -> None:
    def body() -> None:
        with IPRoute() as ip:
            for step in steps:
                try:
                    _do(ip, step)
                except (NetlinkError, OSError, LookupError) as error:
                    raise ApplyError(f"{step}: {error}") from error
                done.append(step)

    netns.inside(space, body)


def _do(ip: Any, step: Step) -> None:
    match step:
        case Namespace(ns):
            netns.create(ns, _prepare)
        case Sysctl(_, key, value):
            _write_sysctl(key, value)
        case Bridge(_, name, mac):
            ip.link("add", ifname=name, kind="bridge", address=mac)
            ip.link("set", index=_index(name), state="up")
        case Veth():
            _cable(ip, step)
        case MoveLink(_, name, to):
            _with_namespace(to, lambda fd: ip.link("set", index=_index(name), net_ns_fd=fd))
        case Up(_, name):
            ip.link("set", index=_index(name), state="up")
        case Addr(_, dev, address, prefix):
            flags = {"flags": _NODAD} if ":" in address else {}
            ip.addr("add", index=_index(dev), address=address, prefixlen=prefix, **flags)
        case Neighbour(_, dev, address, mac):
            ip.neigh("replace", dst=address, lladdr=mac, ifindex=_index(dev), state=_PERMANENT)
        case Route():
            ip.route("add", **_route(step))
        case Rule():
            ip.rule("add", **_rule(step))
        case Tag(_, name):
            ip.link("set", index=_index(name), ifalias=names.TAG)
        case Drop(Namespace(ns)):
            netns.drop(ns)
        case Drop(Veth(_, name)):
            ip.link("del", index=_index(name))
        case Drop(Up(_, name)):
            ip.link("set", index=_index(name), state="down")
        case Drop(Addr(_, dev, address, prefix)):
            ip.addr("del", index=_index(dev), address=address, prefixlen=prefix)
        case Drop(Route() as route):
            ip.route("del", **_route(route))
        case Drop(Rule() as rule):
            ip.rule("del", **_rule(rule))
        case _:
            raise LookupError("nothing takes this back")


def _prepare() -> None:
    with IPRoute() as ip:
        ip.link("set", index=1, state="up", ifalias=names.TAG)


def _cable(ip: Any, step: Veth) -> None:
    def make(fd: int) -> None:
        peer = {"ifname": step.peer, "address": step.peer_mac, "net_ns_fd": fd}
        ip.link("add", ifname=step.name, kind="veth", address=step.mac, peer=peer)

    _with_namespace(step.peer_ns, make)
    if step.master:
        ip.link("set", index=_index(step.name), master=_index(step.master), state="up")


def _with_namespace(name: str, work: Any) -> None:
    descriptor = os.open(netns.path_of(name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        work(descriptor)
    finally:
        os.close(descriptor)


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise LookupError(f"there is no interface {name}") from error


def _route(step: Route) -> dict[str, Any]:
    net = ipaddress.ip_network(step.to)
    family = socket.AF_INET if net.version == 4 else socket.AF_INET6
    route: dict[str, Any] = {
        "dst": "default" if net.prefixlen == 0 else step.to,
        "family": family,
        "gateway": step.via,
        "oif": _index(step.dev),
        "proto": names.ROUTE_PROTO,
    }
    if step.src:
        route["prefsrc"] = step.src
    if step.table:
        route["table"] = step.table
    return route


def _rule(step: Rule) -> dict[str, Any]:
    family = socket.AF_INET6 if ":" in step.source else socket.AF_INET
    return {
        "family": family,
        "src": step.source,
        "table": step.table,
        "priority": step.table,
        "protocol": names.ROUTE_PROTO,
    }


def _write_sysctl(key: str, value: str) -> None:
    """Write and read back: some settings refuse in silence, the error comes at close or never."""
    path = Path("/proc/sys") / key.replace(".", "/")
    if not path.exists() and "ipv6" in key:
        raise LookupError(f"{key} does not exist: this kernel runs without IPv6, which the lab needs")
    path.write_text(value)
    seen = path.read_text().strip()
    if seen != value:
        raise LookupError(f"{key} was set to {value} and reads {seen}")


def delay(space: str, dev: str, microseconds: int) -> None:
    """Have the kernel's netem hold what leaves `dev`. Raises ApplyError where there is no netem."""

    def body() -> None:
        with IPRoute() as ip:
            try:
                ip.tc("add", "netem", index=_index(dev), handle="1:", delay=microseconds)
            except (NetlinkError, LookupError) as error:
                raise ApplyError(f"netem on {dev}: {error}") from error

    netns.inside(space, body)


def tagged_namespaces() -> list[str]:
    """Namespaces that are ours: by name and by the tag on their `lo`."""
    return [name for name in netns.names() if netns.is_namespace(name) and netns.inside(name, _is_tagged)]


def _is_tagged() -> bool:
    with IPRoute() as ip:
        return any(link.get_attr("IFLA_IFALIAS") == names.TAG for link in ip.get_links(1))


def host_link() -> str:
    """What `ep-host` in the host's namespace is: "ours", "foreign" or "" when there is none."""
    with IPRoute() as ip:
        for link in ip.get_links():
            if link.get_attr("IFLA_IFNAME") == names.HOST_LINK:
                return "ours" if link.get_attr("IFLA_IFALIAS") == names.TAG else "foreign"
    return ""


def drop_host_link() -> None:
    """Remove our interface from the host, and with it its addresses and routes."""
    with IPRoute() as ip:
        try:
            ip.link("del", index=_index(names.HOST_LINK))
        except (LookupError, NetlinkError) as error:
            if isinstance(error, NetlinkError) and error.code != 19:  # ENODEV: its namespace took it along
                raise ApplyError(f"{names.HOST_LINK}: {error}") from error


def drop_host_rules() -> int:
    """Remove our rules from the host: how many there were."""
    found, ours = 0, (names.ROUTE_PROTO, names.HOST_TABLE)
    with IPRoute() as ip:
        for family in (socket.AF_INET, socket.AF_INET6):
            for rule in ip.get_rules(family=family):
                if (rule.get_attr("FRA_PROTOCOL"), rule.get_attr("FRA_TABLE")) == ours:
                    kept = {
                        name: rule.get_attr(f"FRA_{name.upper()}") for name in ("src", "table", "priority")
                    }
                    ip.rule("del", family=family, **kept)
                    found += 1
    return found


def host_routes() -> list[IPv4Network | IPv6Network]:
    """Every unicast and local route of the host that does not lead through our own interface."""
    found: list[IPv4Network | IPv6Network] = []
    with IPRoute() as ip:
        ours = set(ip.link_lookup(ifname=names.HOST_LINK))
        for family, bits in ((socket.AF_INET, 32), (socket.AF_INET6, 128)):
            for route in ip.get_routes(family=family):
                if route["type"] not in (_UNICAST, _LOCAL) or route.get_attr("RTA_OIF") in ours:
                    continue
                to = route.get_attr("RTA_DST") or ("0.0.0.0" if bits == 32 else "::")
                found.append(ipaddress.ip_network(f"{to}/{route['dst_len']}"))
    return found
