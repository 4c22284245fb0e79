"""Which fault explains that a user of this city lost a connection just then? Pure.

What users may see of a fault stands in netlab/faults.py in words; this is the same for a program,
and narrower than "something was broken": a fault in Tokyo explains nothing in Berlin, and a dead
Redis nothing at all. Refusals need no explanation: they explain themselves.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from netlab import faulttarget, paths
from netlab.chaoshistory import Event
from netlab.chaosplan import DRAIN, ingress_of
from netlab.topology import Topology

#: How long a fault is felt after it was healed: processes begin, BGP moves the users back.
SETTLE_S: Final = {"node": 15.0, "parent": 15.0, "proxy": 15.0, "bird": 30.0, "link": 10.0}
#: Around the moment in which users move: the longest round trip, and what BGP takes.
MOVE_S: Final = 0.5
#: What these break never reaches a user's connection, and is over with its healing.
INVISIBLE: Final = frozenset({"redis", "origin", "weights", "worker"})
#: Whose users are refused at first. All others keep their sockets, or lose the address before.
REFUSING: Final = frozenset(
    {("node", "kill"), ("node", "full"), ("node", "clock-ahead"), ("node", "clock-behind")}
)
#: After those, too, models come back: within this, refusals are not counted as out of the blue.
RELOAD_S: Final = 15.0


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """When a fault was felt, in wall clock; `until_s` is infinite when it was never healed."""

    target: str
    how: str
    kind: str
    from_s: float
    healed_s: float
    until_s: float

    def touches(self, began_s: float, ended_s: float) -> bool:
        """Whether it was felt between the two."""
        return self.from_s <= ended_s and began_s <= self.until_s

    def __str__(self) -> str:
        return f"{self.target} {self.how}"


def windows(events: Iterable[Event]) -> list[Window]:
    """The faults of a history, by their beginnings.

    A drain loses nobody anything but what is on its way in the moment of the withdrawal; its end
    moves users, too: the address is announced again and takes them away from another POP.
    """
    begun: dict[tuple[str, str], Event] = {}
    back: dict[tuple[str, str], Event] = {}
    found: list[Window] = []
    for event in sorted((event for event in events if event.target), key=lambda event: event.t):
        key = event.target, event.how
        if event.what == "breaking":
            begun.setdefault(key, event)
        elif event.what == "broken" and event.how == DRAIN:
            found.append(_window(event, event.t - MOVE_S, event.t, event.t + MOVE_S))
        elif event.what == "healing":
            back.setdefault(key, event)
        elif event.what == "healed" and key in begun:
            first = begun.pop(key)
            back_s = back.pop(key, event).t
            from_s = back_s if event.how == DRAIN else first.t
            settle_s = SETTLE_S.get(event.kind, RELOAD_S)
            found.append(_window(first, from_s, event.t, event.t + settle_s))
    never = float("inf")
    found += [_window(event, event.t, never, never) for event in begun.values() if event.how != DRAIN]
    return sorted(found, key=lambda window: window.from_s)


def _window(begun: Event, from_s: float, healed_s: float, until_s: float) -> Window:
    return Window(
        target=begun.target,
        how=begun.how,
        kind=begun.kind,
        from_s=from_s,
        healed_s=healed_s,
        until_s=until_s,
    )


class Blame:
    """Answers for one history on one planet."""

    def __init__(self, topology: Topology, faults: Sequence[Window]) -> None:
        self._topology = topology
        self._faults = faults
        self._ways = paths.catchments(topology)

    def explains(self, city: str, loss: str, began_s: float, ended_s: float) -> list[Window]:
        """The faults by which a connection of this city may have been lost so; empty when there is none.

        One on the city's own way, and with such a one whatever else could be met elsewhere.
        """
        felt = [f for f in self._faults if f.kind not in INVISIBLE and f.touches(began_s, ended_s)]
        if not any(self._on_the_way(city, fault) for fault in felt):
            return []
        return [fault for fault in felt if loss != "refused" or (fault.kind, fault.how) in REFUSING]

    def quiet(self, began_s: float, ended_s: float) -> bool:
        """Whether nothing at all was broken or just healed."""
        return not any(fault.touches(began_s, ended_s) for fault in self._faults)

    def _on_the_way(self, city: str, fault: Window) -> bool:
        way = self._ways.get(city, ())
        target = faulttarget.parse(fault.target, self._topology)
        if target.kind == "link":
            return any(set(target.of) == set(leg) for leg in pairwise(way))
        if target.kind == "bird" and target.of[0].removeprefix("r-") in way:
            return True
        ingress = ingress_of(self._topology, target)
        return bool(way) and any(self._topology.node(node).pop == way[-1] for node in ingress)
