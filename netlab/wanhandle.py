"""The WAN from outside: conditions of the links between POPs, cuts, counters.

It speaks to the fabric's control socket and knows POPs where the fabric knows ports. A cut link
swallows packets and says nothing, as a cable under the sea does: routers learn of it when BGP's
hold time ends. It refuses to know what that does to anybody, and remembers nothing: what differs
from the planet, the fabric itself is asked.
"""

import json
import socket
from collections.abc import Iterable
from typing import Any, Final, Literal

from netlab import names, state
from netlab.topology import Topology
from netlab.wanlinks import LinkState, link_state
from netlab.wanwatch import Counters, Watch, counted

MAX_ANSWER_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 2.0

Direction = Literal["both", "there", "back"]


class WanRefusedError(RuntimeError):
    """The fabric can't do what was asked; the text names the value and what to write instead."""


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """One request to the fabric. Raises OSError or ValueError where it can't be asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        wire.settimeout(TIMEOUT_S)
        wire.connect(str(state.wan_control()))
        wire.sendall(json.dumps(request).encode() + b"\n")
        with wire.makefile("rb") as reader:
            return dict(json.loads(reader.readline(MAX_ANSWER_BYTES)))


class WanHandle:
    """The links between POPs; a link is named by its two POPs, and the first is where "there" begins."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology

    # -- counting --------------------------------------------------------------------------

    def counters(self) -> dict[tuple[str, str], Counters]:
        """What every directed pair of POPs did so far, from one look."""
        return {pops: counted(pair) for pops, pair in self._pairs().items()}

    def bytes(self, origin: str, to: str) -> int:
        """Bytes of packets that left the WAN in this direction so far. Raises KeyError for an unknown POP."""
        return self.all_bytes()[self._pop(origin), self._pop(to)]

    def all_bytes(self) -> dict[tuple[str, str], int]:
        """The same for every directed pair of POPs, from one look."""
        return {pops: int(pair["bytes"]) for pops, pair in self._pairs().items()}

    def bytes_into(self, pops: Iterable[str]) -> int:
        """Bytes that came to these POPs from all others so far."""
        inside = {self._pop(pop) for pop in pops}
        return sum(
            count for (origin, to), count in self.all_bytes().items() if to in inside and origin not in inside
        )

    def watch(self) -> Watch:
        """Frames and late frames of the whole WAN from now on; `with` it around a measurement."""
        return Watch(self._total)

    # -- changing --------------------------------------------------------------------------

    def set(
        self,
        one: str,
        other: str,
        *,
        rtt_ms: float | None = None,
        jitter_ms: float | None = None,
        loss: float | None = None,
        reorder: float | None = None,
        rate_bps: int | None = None,
        mtu_bytes: int | None = None,
        mtu_silent: bool | None = None,
        direction: Direction = "both",
    ) -> None:
        """Give a link other conditions; those not named stay, and 0 takes one away.

        `rtt_ms` is the round trip that both ends will see; with one `direction` ("there" is from
        `one` to `other`) that direction alone takes up the difference. Everything else holds for each
        packet of each direction asked: see netlab.wanconditions.Conditions. Raises KeyError for an
        unknown POP and WanRefusedError.
        """
        given = {
            "jitter_ms": jitter_ms,
            "loss": loss,
            "reorder": reorder,
            "rate_bps": rate_bps,
            "mtu_bytes": mtu_bytes,
            "mtu_silent": mtu_silent,
        }
        wishes = {name: value for name, value in given.items() if value is not None}
        for origin, to in self._directions(one, other, direction):
            delay = {} if rtt_ms is None else {"one_way_ms": self._one_way_ms(origin, to, rtt_ms, direction)}
            self._told("set", origin, to, **delay, **wishes)

    def cut(self, one: str, other: str, *, direction: Direction = "both") -> None:
        """The link swallows everything from now on, in both directions or one."""
        for origin, to in self._directions(one, other, direction):
            self._told("cut", origin, to, cut=True)

    def uncut(self, one: str, other: str, *, direction: Direction = "both") -> None:
        """The link carries again, with the conditions that it has."""
        for origin, to in self._directions(one, other, direction):
            self._told("cut", origin, to, cut=False)

    def mend(self, one: str = "", other: str = "") -> None:
        """The planet's own delay and conditions, and no cut; without names, for every link that differs."""
        pairs = (
            list(self._directions(one, other, "both"))
            if one
            else [(link.origin, link.to) for link in self.conditions()]
        )
        for origin, to in pairs:
            self._told("reset", origin, to)

    # -- telling ---------------------------------------------------------------------------

    def links(self) -> list[LinkState]:
        """Every directed pair of POPs as it is now, from one look."""
        return [link_state(*pops, pair) for pops, pair in self._pairs().items()]

    def link_state(self, origin: str, to: str) -> LinkState:
        """One direction as it is now. Raises KeyError for an unknown POP and WanRefusedError."""
        (way,) = self._directions(origin, to, "there")
        return link_state(*way, self._pairs()[way])

    def conditions(self) -> list[LinkState]:
        """Every directed pair of POPs that is not as on the planet now."""
        return [link for link in self.links() if not link.as_planned]

    def cuts(self) -> list[tuple[str, str]]:
        """The directed pairs of POPs that are cut now."""
        return [(link.origin, link.to) for link in self.conditions() if link.cut]

    # -- speaking --------------------------------------------------------------------------

    def _directions(self, one: str, other: str, direction: Direction) -> list[tuple[str, str]]:
        there = self._pop(one), self._pop(other)
        if there[0] == there[1]:
            raise WanRefusedError(f"{one} to {other} is no link; name two POPs")
        return {"both": [there, there[::-1]], "there": [there], "back": [there[::-1]]}[direction]

    def _one_way_ms(self, origin: str, to: str, rtt_ms: float, direction: Direction) -> float:
        if direction == "both":
            return rtt_ms / 2
        back_ms = self.link_state(to, origin).one_way_ms
        if rtt_ms < back_ms:
            raise WanRefusedError(f"{to} to {origin} alone takes {back_ms:g} ms; write a larger RTT")
        return rtt_ms - back_ms

    def _pop(self, name: str) -> str:
        return self.topology.pop(name).name

    def _pairs(self) -> dict[tuple[str, str], dict[str, Any]]:
        pops = {names.wan_port(pop.name): pop.name for pop in self.topology.pops}
        return {
            (pops[pair["from"]], pops[pair["to"]]): pair
            for pair in _ask_or_refuse({"op": "stats"})["pairs"]
            if pair["from"] in pops and pair["to"] in pops
        }

    def _total(self) -> tuple[int, int]:
        pairs = _ask_or_refuse({"op": "stats"})["pairs"]
        return sum(pair["frames"] for pair in pairs), sum(pair["late"] for pair in pairs)

    def _told(self, op: str, origin: str, to: str, **wishes: Any) -> None:
        ends = {"from": names.wan_port(origin), "to": names.wan_port(to)}
        _ask_or_refuse({"op": op, **ends, **wishes})


def _ask_or_refuse(request: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = ask(request)
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"the WAN does not answer ({str(error) or type(error).__name__}): `poplab heal` starts it again "
            f"if it is dead, `poplab logs wan` may say why"
        ) from error
    if "error" in answer:
        raise WanRefusedError(f"the WAN: {answer['error']}")
    return answer
