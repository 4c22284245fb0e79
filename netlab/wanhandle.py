"""The WAN from outside: bytes between POPs, links that are cut and mended.

It speaks to the fabric's control socket and knows POPs where the fabric knows ports. A cut link
swallows packets and says nothing, as a cable under the sea does: routers learn of it when BGP's
hold time ends. It refuses to know what that does to anybody.
"""

import json
import socket
from collections.abc import Iterable, Iterator
from typing import Any, Final

from netlab import names, state
from netlab.topology import Topology

MAX_ANSWER_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 2.0


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """One request to the fabric. Raises OSError or ValueError where it can't be asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        wire.settimeout(TIMEOUT_S)
        wire.connect(str(state.wan_control()))
        wire.sendall(json.dumps(request).encode() + b"\n")
        with wire.makefile("rb") as reader:
            return dict(json.loads(reader.readline(MAX_ANSWER_BYTES)))


class WanHandle:
    """The links between POPs; a link is named by its two POPs in either order."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology

    def bytes(self, origin: str, to: str) -> int:
        """Bytes of frames that left the WAN in this direction so far. Raises KeyError for an unknown POP."""
        return self.all_bytes()[self._pop(origin), self._pop(to)]

    def all_bytes(self) -> dict[tuple[str, str], int]:
        """The same for every directed pair of POPs, from one look."""
        pops = {names.wan_port(pop.name): pop.name for pop in self.topology.pops}
        return {
            (pops[pair["from"]], pops[pair["to"]]): int(pair["bytes"])
            for pair in self._told({"op": "stats"})["pairs"]
            if pair["from"] in pops and pair["to"] in pops
        }

    def bytes_into(self, pops: Iterable[str]) -> int:
        """Bytes that came to these POPs from all others so far."""
        inside = {self._pop(pop) for pop in pops}
        return sum(
            count for (origin, to), count in self.all_bytes().items() if to in inside and origin not in inside
        )

    def cut(self, one: str, other: str) -> None:
        """Both directions swallow everything from now on."""
        for origin, to in self._both(one, other):
            self._told({"op": "cut", "from": origin, "to": to, "cut": True})

    def mend(self, one: str = "", other: str = "") -> None:
        """Both directions carry again; without names, every link that was cut."""
        pairs = self._both(one, other) if one else self.cuts()
        for origin, to in list(pairs):
            self._told({"op": "cut", "from": origin, "to": to, "cut": False})

    def cuts(self) -> list[tuple[str, str]]:
        """The directed pairs of ports that are cut now."""
        return [(pair["from"], pair["to"]) for pair in self._told({"op": "stats"})["pairs"] if pair["cut"]]

    def partition(self, one: Iterable[str], other: Iterable[str]) -> None:
        """Cut every link between the two groups of POPs; inside each of them nothing changes."""
        far = list(other)
        for near in one:
            for away in far:
                self.cut(near, away)

    def _both(self, one: str, other: str) -> Iterator[tuple[str, str]]:
        ends = names.wan_port(self._pop(one)), names.wan_port(self._pop(other))
        yield ends
        yield ends[::-1]

    def _pop(self, name: str) -> str:
        return self.topology.pop(name).name

    def _told(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = ask(request)
        if "error" in answer:
            raise RuntimeError(f"the WAN: {request}: {answer['error']}")
        return answer
