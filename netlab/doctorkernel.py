"""What this machine's kernel can, found out by doing it: what the lab does, once, in a namespace of its own.

The namespace, and all that was made in it, is gone a moment later; a running lab is not touched. It
refuses to know what is good enough (checks.py).
"""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Final

from netlab import apply, checks, faultclock, names, netns, plan
from netlab.checks import Check
from netlab.node import MESH_PORT, REDIS_PORT
from netlab.steps import Addr, Bridge, Namespace, Step, Sysctl, Up, Veth
from netlab.topology import Topology
from netlab.wanport import Port

TIMEOUT_S: Final = 10.0
_MACS: Final = tuple(f"02:ed:9e:dd:00:0{number}" for number in range(1, 6))
_NET6: Final = "fd5e:ed9e:dd::1"
#: BGP, the door, the index, the mesh: what listens in a POP. Its own namespace has all ports free.
_PORTS: Final = (179, 80, REDIS_PORT, MESH_PORT)
_OF_ONE_INTERFACE: Final = re.compile(r"\.conf\.(?!all\.|default\.)")
#: In a mount namespace that ends with the program.
_MOUNTS: Final = "mount -t tmpfs -o size=1m doctor /run && mkdir /run/a /run/b && mount --bind /run/a /run/b"


def run(*command: str) -> tuple[int, str]:
    """Exit code and everything that it said. Raises OSError, TimeoutExpired."""
    done = subprocess.run(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout


def look(topology: Topology) -> Iterator[Check]:
    """A check for each thing that the lab does with a kernel; what fails makes what needs it fail too."""
    space = names.doctor(os.getpid())
    made = _error(lambda: apply.carry_out([Namespace(space)]))
    try:
        yield checks.tried(
            "namespaces", made, "make one and name it", "a kernel with CONFIG_NET_NS, and mounts allowed"
        )
        if not made:
            yield from _in_namespace(space, topology)
    finally:
        netns.drop(space)
    mounts = _error(lambda: _must("unshare", "--mount", "sh", "-c", _MOUNTS))
    yield checks.tried(
        "mounts",
        mounts,
        "lay a small disk over a directory (fail --how full)",
        "run with CAP_SYS_ADMIN, and install util-linux",
        needed=False,
    )
    clock = _error(lambda: faultclock.environment("+0"))
    yield checks.tried(
        "faketime",
        clock,
        "give a node another clock (fail --how clock-ahead)",
        "apt-get install faketime",
        needed=False,
    )


def _in_namespace(space: str, topology: Topology) -> Iterator[Check]:
    def done(*steps: Step) -> str:
        return _error(lambda: apply.carry_out(steps))

    def inside(work: Callable[[], object]) -> str:
        return _error(lambda: netns.inside(space, work))

    ipv6 = done(Addr(space, "lo", _NET6, 64))
    yield checks.tried("ipv6", ipv6, "give an interface an address", "boot without ipv6.disable=1")
    settings = _settings(topology)
    sysctls = done(*(Sysctl(space, key, value) for key, value in settings.items()))
    yield checks.tried(
        "settings", sysctls, f"set {len(settings)} of them as in routers and nodes", "a newer kernel"
    )
    ports = inside(_listen)
    what = f"listen on {', '.join(map(str, _PORTS))} in a namespace; none of this machine's is in the way"
    yield checks.tried("ports", ports, what, "run without a filter on bind()")
    veth = done(Veth(space, "d0", _MACS[0], space, "d1", _MACS[1]), Up(space, "d0"), Up(space, "d1"))
    yield checks.tried("veth", veth, "lay a cable", "modprobe veth")
    if not veth:
        bridge = done(
            Bridge(space, "lan", _MACS[2]), Veth(space, "d2", _MACS[3], space, "d3", _MACS[4], master="lan")
        )
        yield checks.tried("bridge", bridge, "make one with a port, as every router has", "modprobe bridge")
        raw = inside(lambda: Port("d0").close())
        yield checks.tried(
            "af_packet", raw, "read whole frames with offload headers from it", "modprobe af_packet"
        )
        yield checks.netem(_error(lambda: apply.delay(space, "d0", 1000)))
    if (nft := shutil.which("nft")) is None:
        yield checks.program("nftables", nft, "nftables", "only tests need it", needed=False)
        return
    told = inside(lambda: _must(nft, "add table inet doctor"))
    yield checks.tried("nftables", told, "make a table", "modprobe nf_tables", needed=False)


def _settings(topology: Topology) -> dict[str, str]:
    """What the lab sets in a whole namespace; the fabric alone goes without IPv6."""
    return {
        step.key: step.value
        for step in plan.up(topology)
        if isinstance(step, Sysctl) and step.ns != names.WAN and not _OF_ONE_INTERFACE.search(step.key)
    }


def _listen() -> None:
    for port in _PORTS:
        with socket.create_server(("127.0.0.1", port)):
            pass


def _must(*command: str) -> None:
    code, told = run(*command)
    if code != 0:
        raise OSError(told.strip() or f"exit code {code}")


def _error(work: Callable[[], object]) -> str:
    """Nothing, or why it did not work in one line."""
    try:
        work()
    except (
        apply.ApplyError,
        faultclock.NoClockError,
        OSError,
        LookupError,
        subprocess.TimeoutExpired,
    ) as error:
        return str(error).splitlines()[0]
    return ""
