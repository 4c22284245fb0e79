"""Where does a namespace's kernel send a packet? Pure: reads the text of /proc/net/route and ipv6_route.

Only the main table and the most specific route count, which is all that the lab's routers have.
Reading text costs a fraction of a millisecond; asking by netlink would cost `status` its start.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec

from netlab.topology import Address

_UP, _REJECT = 0x0001, 0x0200


class Hop(msgspec.Struct, frozen=True):
    """The next hop; `via` is None when the destination is on the wire itself."""

    via: Address | None
    dev: str


_Route = tuple[IPv4Network | IPv6Network, int, int, Hop]


def lookup(route_text: str, route6_text: str, to: Address) -> Hop | None:
    """The next hop towards `to`, or None when nothing leads there."""
    return lookups(route_text, route6_text, [to])[0]


def lookups(route_text: str, route6_text: str, to: Iterable[Address]) -> list[Hop | None]:
    """The next hop towards each: the tables are read once, which fifty POPs are grateful for."""
    tables = {4: _routes4(route_text), 6: _routes6(route6_text)}
    return [_best(tables[address.version], address) for address in to]


def _best(routes: list[_Route], to: Address) -> Hop | None:
    best: tuple[int, int, Hop] | None = None
    for net, metric, flags, hop in routes:
        if to in net and flags & _UP:
            candidate = (net.prefixlen, -metric, hop)
            if best is None or candidate[:2] > best[:2]:
                best = candidate if not flags & _REJECT else (net.prefixlen, -metric, Hop(None, ""))
    return best[2] if best is not None and best[2].dev else None


def _routes4(text: str) -> list[_Route]:
    found: list[_Route] = []
    for line in text.splitlines()[1:]:
        dev, to, via, flags, _, _, metric, mask, *_ = line.split()
        gateway = _little(via)
        net = IPv4Network(f"{_little(to)}/{_little(mask)}")
        found.append((net, int(metric), int(flags, 16), Hop(gateway if int(gateway) else None, dev)))
    return found


def _little(text: str) -> IPv4Address:
    return IPv4Address(bytes.fromhex(text)[::-1])


def _routes6(text: str) -> list[_Route]:
    found: list[_Route] = []
    for line in text.splitlines():
        to, length, _, _, via, metric, _, _, flags, dev = line.split()
        gateway = IPv6Address(int(via, 16))
        net = IPv6Network((int(to, 16), int(length, 16)))
        found.append((net, int(metric, 16), int(flags, 16), Hop(gateway if int(gateway) else None, dev)))
    return found
