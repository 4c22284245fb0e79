"""The kernel's routing tables, read from /proc/net/route and ipv6_route."""

from ipaddress import ip_address

import pytest

from netlab.fib import Hop, lookup, lookups

# A router's tables, as the kernel printed them.
ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
lan\t0000020A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wan\t0000010A\t01004064\t0003\t0\t0\t32\t00FFFFFF\t0\t0\t0
wan\t016433C6\t03004064\t0007\t0\t0\t64\tFFFFFFFF\t0\t0\t0
lan\t016433C6\t0B00020A\t0007\t0\t0\t32\tFFFFFFFF\t0\t0\t0
wan\t00000000\t04004064\t0003\t0\t0\t0\t00000000\t0\t0\t0
*\t007100CB\t00000000\t0201\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
ROUTE6 = """\
fd5eed9e000000000000000000000001 80 00000000000000000000000000000000 00 \
fd5eed9e000200000000000000000011 00000020 00000001 00000000 00000003      lan
fd5eed9e000200000000000000000000 40 00000000000000000000000000000000 00 \
00000000000000000000000000000000 00000100 00000001 00000000 00000001      lan
00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
"""

CASES = [
    ("on the wire", "10.2.0.11", Hop(None, "lan")),
    ("through a neighbour", "10.1.0.9", Hop(ip_address("100.64.0.1"), "wan")),
    ("the smaller metric of two", "198.51.100.1", Hop(ip_address("10.2.0.11"), "lan")),
    ("by default", "192.0.2.1", Hop(ip_address("100.64.0.4"), "wan")),
    ("rejected", "203.0.113.9", None),
    ("IPv6 through a neighbour", "fd5e:ed9e::1", Hop(ip_address("fd5e:ed9e:2::11"), "lan")),
    ("IPv6 on the wire", "fd5e:ed9e:2::11", Hop(None, "lan")),
    ("IPv6 nowhere", "2001:db8::1", None),
]


@pytest.mark.parametrize(("to", "hop"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_the_most_specific_route_wins(to: str, hop: Hop | None) -> None:
    assert lookup(ROUTE, ROUTE6, ip_address(to)) == hop


def test_an_empty_table_leads_nowhere() -> None:
    assert lookup("Iface\n", "", ip_address("10.2.0.11")) is None


def test_many_are_looked_up_in_one_reading() -> None:
    addresses = [ip_address(text) for text in ("198.51.100.1", "fd5e:ed9e::1", "192.0.2.1")]
    assert lookups(ROUTE, ROUTE6, addresses) == [lookup(ROUTE, ROUTE6, address) for address in addresses]
