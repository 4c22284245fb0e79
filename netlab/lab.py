"""The running lab: what is up, who is served where, moving the host, and handles for scripts.

    lab = Lab.running()
    lab.city("ber").get("/pop").pop            # "fra"
    lab.node("iad-b").kill("worker")
    lab.city("ber").wait_until_served_by("ams", within_ms=2500)

It reads the kernel and BIRD for the truth and keeps none of its own; how the lab was brought up
is start.py's business.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from netlab import (
    birdctl,
    faultbook,
    faulttext,
    fib,
    names,
    netns,
    paths,
    plan,
    planetfile,
    sides,
    state,
    supervise,
    wanhandle,
)
from netlab.birdctl import BirdError
from netlab.clock import DeadlineMissed, wait_until
from netlab.handles import CityHandle, HostHandle, NodeHandle, PopHandle
from netlab.regions import RegionHandle, process_name
from netlab.state import State
from netlab.store import OriginHandle
from netlab.topology import Address, Topology, unknown
from netlab.wanhandle import WanHandle

if TYPE_CHECKING:
    from netlab.faultrun import Breakage
    from netlab.faults import Fault


class NotRunningError(Exception):
    """There is no lab; the text says how to start one."""


def dead(remembered: State) -> list[str]:
    """Names of the programs of a lab that ended, whatever became of its planet's file."""
    return [process.name for process in remembered.processes if not supervise.alive(process)]


class Lab:
    """One running lab."""

    def __init__(self, remembered: State) -> None:
        self.state = remembered
        self.topology: Topology = planetfile.parse(remembered.topology_text, remembered.topology_file)

    @classmethod
    def running(cls) -> "Lab":
        """The lab that is up. Raises NotRunningError."""
        found = state.read()
        if found is None or found.phase != "up":
            raise NotRunningError("no lab is running: start it with `make netlab`, or poplab up")
        return cls(found)

    # -- handles ---------------------------------------------------------------------------

    def city(self, name: str) -> CityHandle:
        """A city's user. Raises KeyError naming the cities there are."""
        return CityHandle(self.topology, self.topology.city(name))

    def node(self, name: str) -> NodeHandle:
        """A node's processes and address. Raises KeyError naming the nodes there are."""
        return NodeHandle(self.topology, self.topology.node(name), self._process(name))

    def pop(self, name: str) -> PopHandle:
        """The nodes of a POP together. Raises KeyError naming the POPs there are."""
        pop = self.topology.pop(name)
        return PopHandle(pop, tuple(self.node(node.name) for node in pop.nodes))

    def region(self, name: str) -> RegionHandle:
        """The nodes of a region and its Redis. Raises KeyError naming the regions there are."""
        region = self.topology.region(name)
        nodes = tuple(self.node(node.name) for node in self.topology.nodes_of(name))
        return RegionHandle(self.topology, region, nodes, self._process(process_name(name)))

    @property
    def wan(self) -> WanHandle:
        """The links between POPs: what they carried, and cutting them."""
        return WanHandle(self.topology)

    @property
    def origin(self) -> OriginHandle:
        """The object store. Raises KeyError in a lab without one."""
        process = self._process("origin")
        if process is None:
            raise KeyError("this lab is bare: it has no origin")
        return OriginHandle(self.topology, process)

    @property
    def host(self) -> HostHandle:
        """This machine as a user."""
        return HostHandle(self.topology)

    def _process(self, name: str) -> supervise.Process | None:
        return next((process for process in self.state.processes if process.name == name), None)

    # -- facts -----------------------------------------------------------------------------

    def any_alive(self) -> bool:
        """Whether at least one of the lab's programs lives."""
        return any(supervise.alive(process) for process in self.state.processes)

    def dead(self) -> list[str]:
        """Names of the lab's programs that ended."""
        return dead(self.state)

    def place(self, name: str) -> str:
        """Namespace of what a user calls a node, a city, r-POP, wan or origin. Raises KeyError."""
        places = {node.name: names.node(node.name) for node in self.topology.nodes}
        for city in self.topology.cities:
            places[city.name] = places[f"c-{city.name}"] = names.city(city.name)
        places |= {f"r-{pop.name}": names.router(pop.name) for pop in self.topology.pops}
        places |= {"wan": names.WAN, "origin": names.ORIGIN}
        if name not in places:
            raise KeyError(unknown(name, list(places), "place"))
        return places[name]

    def next_hop(self, place: str, to: Address) -> fib.Hop | None:
        """Where the kernel of a namespace sends a packet for `to`."""
        return self.next_hops(place, [to])[0]

    def next_hops(self, place: str, to: Iterable[Address]) -> list[fib.Hop | None]:
        """The same for several destinations, from one look."""

        def read() -> list[fib.Hop | None]:
            # "self" would be the process, which never leaves the host's namespace.
            base = Path("/proc/thread-self/net")
            return fib.lookups((base / "route").read_text(), (base / "ipv6_route").read_text(), to)

        return netns.inside(place, read)

    def trace(self, pop: str, to: Address) -> str:
        """The node or city that a packet for `to` reaches from a POP's router; empty where it is lost."""
        place = self.topology.pop(pop)
        for _ in self.topology.pops:
            hop = self.next_hop(names.router(place.name), to)
            if hop is None or hop.via is None:
                return ""
            for node in place.nodes:
                if hop.via in (node.v4, node.v6):
                    return node.name
            for city in self.topology.cities_of(place.name):
                if hop.via in (city.net4[2], city.net6[2]):
                    return city.name
            onward = [other for other in self.topology.pops if hop.via in (other.wan4, other.wan6)]
            if not onward:
                return ""
            place = onward[0]
        return ""

    def served_by(self, city: str) -> dict[str, str]:
        """{"v4": node, "v6": node}: where the city's packets for the anycast address end."""
        router = self.topology.city(city).pop
        return {"v4": self.trace(router, self.topology.vip4), "v6": self.trace(router, self.topology.vip6)}

    def sessions(self, place: str) -> dict[str, bool]:
        """BGP sessions of the BIRD at `place` (`r-iad`, `iad-a`); empty when it can't be asked."""
        try:
            return birdctl.sessions(state.bird_control(place))
        except BirdError:
            return {}

    def fabric(self) -> dict[str, Any]:
        """The WAN fabric's own counters; empty when it can't be asked."""
        try:
            return wanhandle.ask({"op": "stats"})
        except (OSError, ValueError):
            return {}

    # -- waiting ---------------------------------------------------------------------------

    def wait_until_converged(self, within_s: float) -> None:
        """Until every POP reaches every other, and every city's VIP route leads where BGP chooses."""

        def missing() -> list[str]:
            return self._unreached() or ([] if self.state.bare else self._misrouted())

        self._wait_until_none(missing, "BGP has converged", within_s)

    def wait_until_host_routed(self, within_s: float) -> None:
        """Until every POP's router knows the way back to this machine."""
        self._wait_until_none(self._no_way_back, "every POP knows the way to this machine", within_s)

    def _no_way_back(self) -> list[str]:
        return [
            f"{pop.name} sends {address} to {end or 'nobody'}"
            for pop in self.topology.pops
            for address in (self.topology.host.host4, self.topology.host.host6)
            if (end := self.trace(pop.name, address)) != self.state.host_city
        ]

    def _wait_until_none(self, missing: Any, what: str, within_s: float) -> None:
        last: list[str] = []

        def fine() -> bool:
            nonlocal last
            last = missing()
            return not last

        def check() -> None:
            for process in self.state.processes:
                if not supervise.alive(process):
                    end = supervise.tail(process.log)
                    raise supervise.ProgramFailedError(f"{process.name} ended; its log ends:\n{end}")

        try:
            wait_until(fine, what, within_s=within_s, every_s=0.1, check=check)
        except DeadlineMissed as missed:
            text = f"waited {within_s:.0f} s until {what}; still: {'; '.join(last)}"
            raise DeadlineMissed(text) from missed

    def _unreached(self) -> list[str]:
        wanted = {pop.name: (pop.lan4[1], pop.lan6[1]) for pop in self.topology.pops}
        missing = []
        for name in wanted:
            far = [address for other, both in wanted.items() if other != name for address in both]
            hops = zip(far, self.next_hops(names.router(name), far), strict=True)
            missing += [f"no route from {name} to {address}" for address, hop in hops if hop is None]
        return missing

    def _misrouted(self) -> list[str]:
        wrong = []
        for city, way in paths.catchments(self.topology).items():
            wanted = way[-1]
            for family, node in self.served_by(city).items():
                if not node or self.topology.node(node).pop != wanted:
                    wrong.append(f"{city} is led to {node or 'nobody'} instead of {wanted} ({family})")
        return wrong

    def astray(self) -> list[str]:
        """Every POP that can't reach another, city that is led elsewhere than a fresh planet leads it."""
        return self._unreached() + ([] if self.state.bare else self._misrouted()) + self._no_way_back()

    # -- changing --------------------------------------------------------------------------

    def move(self, city: str) -> "Lab":
        """Make this machine a user in another city. Raises KeyError for a city that is not there."""
        from netlab import apply  # the netlink library costs 0.4 s, which `status` need not pay

        self.topology.city(city)
        with state.locked():
            remembered = state.read() or self.state
            if remembered.host_city != city:
                apply.carry_out(plan.move(self.topology, remembered.host_city, city))
                remembered = msgspec.structs.replace(remembered, host_city=city)
                state.write(remembered)
        moved = Lab(remembered)
        moved.wait_until_host_routed(within_s=5.0)
        return moved

    def partition(self, one: Iterable[str], other: Iterable[str] = ()) -> None:
        """Cut every WAN link between two sides, or one and all the rest; `wan.mend()` undoes it.

        A side is POPs and regions by name. Raises KeyError before anything is cut (netlab/sides.py).
        """
        for origin, to in sides.crossing(self.topology, one, other):
            self.wan.cut(origin, to, direction="there")

    # -- breaking --------------------------------------------------------------------------

    def fail(self, target: str | tuple[str, ...], how: str) -> "Breakage":
        """Break one thing, as `poplab fail` does (netlab/faults.py); `with` heals it at the end.

        Raises KeyError for an unknown target or way.
        """
        from netlab import faultrun  # the netlink library costs 0.4 s, which `status` need not pay

        return faultrun.fail(self, target, how)

    def heal(self, target: str | tuple[str, ...] = "all", within_s: float = 90.0) -> "list[Fault]":
        """Undo the faults of a target, or all, and wait until the planet is well. Raises DeadlineMissed."""
        from netlab import faultrun

        return faultrun.heal(self, target, within_s=within_s)

    def faults(self) -> "list[Fault]":
        """What is broken on purpose now, the oldest first."""
        return faultbook.entries()

    def wait_until_well(self, within_s: float) -> None:
        """Until the planet passes every check that a fresh one passes. Raises DeadlineMissed."""
        from netlab import well

        well.wait_until_well(within_s)

    # -- telling ---------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Everything `poplab status` shows, as plain values."""
        fabric = self.fabric()
        return {
            "schema_version": 1,
            "planet": self.topology.name,
            "anycast": [str(self.topology.vip4), str(self.topology.vip6)],
            "wan": {
                "engine": fabric.get("engine", "down"),
                "late_frames": fabric.get("late_total", 0),
                "links": [link.as_dict() for link in self.wan.conditions()] if fabric else [],
            },
            "faults": [faulttext.fault_values(fault) for fault in self.faults()],
            "host": {"city": self.state.host_city, "served_by": self._led(self.state.host_city)},
            "pops": [self._pop_status(pop.name) for pop in self.topology.pops],
            "regions": [self.region(region.name).status() for region in self.topology.regions],
            "cities": [
                {
                    "city": c.name,
                    "router": c.pop,
                    "rtt_ms": c.rtt_ms,
                    "served_by": self._led(c.name),
                    "nearest": self.topology.nearest(c.name).name,
                }
                for c in self.topology.cities
            ],
            "processes": [
                {"name": p.name, "pid": p.pid, "state": "up" if supervise.alive(p) else "down", "log": p.log}
                for p in self.state.processes
            ],
        }

    def _led(self, city: str) -> dict[str, dict[str, str]]:
        return {
            family: {"pop": self.topology.node(node).pop if node else "", "node": node}
            for family, node in self.served_by(city).items()
        }

    def _pop_status(self, name: str) -> dict[str, Any]:
        pop = self.topology.pop(name)
        sessions = self.sessions(f"r-{name}")
        return {
            "pop": name,
            "region": pop.region,
            "bgp": {"up": sum(sessions.values()), "of": len(sessions)},
            "nodes": [self.node(node.name).status() for node in pop.nodes],
        }
