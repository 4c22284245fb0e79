"""What the lab's objects are called in the kernel: namespaces, interfaces, MACs, routing protocol.

Every namespace starts with a prefix and carries a tag on its `lo`, so that a sweep finds the
lab's objects when nothing else remembers them. Users never type the prefix. Pure.
"""

from typing import Final

PREFIX: Final = "ep-"
#: The alias of `lo` in every namespace of ours, and of our interface in the host's namespace.
TAG: Final = "edgepop-lab"
#: Environment variable that every process of the lab carries.
ENV_TAG: Final = "EDGEPOP_LAB_TAG"
#: The host's own namespace, in plans.
HOST: Final = ""
HOST_LINK: Final = "ep-host"
#: `proto` of the routes and rules we set (ip route show proto 158).
ROUTE_PROTO: Final = 158
#: The host's table and rules for what it sends from the lab's address (ip route show table 5158).
HOST_TABLE: Final = 5158
MARKER: Final = "ann0"
#: In the environment of what `poplab exec` runs, and of its children: it is no part of the place.
VISITOR: Final = "POPLAB_EXEC"
WAN: Final = f"{PREFIX}wan"
ORIGIN: Final = f"{PREFIX}origin"


def router(pop: str) -> str:
    """Namespace of a POP's router."""
    return f"{PREFIX}r-{pop}"


def doctor(pid: int) -> str:
    """Namespace in which a `poplab doctor` of that pid tries things."""
    return f"{PREFIX}doctor-{pid}"


def doctor_pid(space: str) -> int:
    """Whose namespace it is; 0 where it is no doctor's."""
    pid = space.removeprefix(f"{PREFIX}doctor-")
    return int(pid) if pid != space and pid.isdecimal() else 0


def node(name: str) -> str:
    """Namespace of a node."""
    return f"{PREFIX}{name}"


def city(name: str) -> str:
    """Namespace of a city."""
    return f"{PREFIX}c-{name}"


def wan_port(pop: str) -> str:
    """The fabric's end of a router's WAN cable."""
    return f"w-{pop}"


def wire_city(name: str) -> str:
    """The fabric's end of the cable that leads to a city."""
    return f"c-{name}"


def wire_router(name: str) -> str:
    """The fabric's end of the cable that leads from a city to its router."""
    return f"a-{name}"


def city_port(name: str) -> str:
    """The router's interface towards a city."""
    return f"c-{name}"


def node_port(name: str) -> str:
    """The router's bridge port towards a node."""
    return f"n-{name}"


def _mac(kind: str, one: int, two: int) -> str:
    # Decimal digits on purpose: the MAC of 10.3.0.11 ends in 03:11, as people read it.
    return f"02:ed:9e:{kind}:{one:02d}:{two:02d}"


def lan_mac(pop_index: int, host: int) -> str:
    """MAC in a POP's LAN: pop and last part of the address."""
    return _mac("10", pop_index, host)


def wan_mac(pop_index: int) -> str:
    """MAC of a router on the WAN."""
    return _mac("64", 0, pop_index)


def city_mac(city_index: int) -> str:
    """MAC of a city."""
    return _mac("c0", city_index, 2)


def access_mac(city_index: int) -> str:
    """MAC of a router on a city's wire."""
    return _mac("c0", city_index, 1)


def host_mac(end: int) -> str:
    """MAC of the host link: 1 this machine, 2 the city."""
    return _mac("ff", 0, end)
