"""Addresses in planet.yaml that can't be: rows of the table in tests/spec/test_topology_errors.py."""

ADDRESSES = [
    (
        "a VIP in a POP's LAN",
        "name: two",
        'name: two\nanycast: [192.0.2.1, "fd5e:ed9e:1::11"]',
        2,
        "anycast: fd5e:ed9e:1::11 lies in the lab's own addresses",
    ),
    (
        "a VIP that no router carries",
        "name: two",
        'name: two\nanycast: [192.0.2.1, "fe80::1"]',
        2,
        "anycast: fe80::1 can't be routed",
    ),
    (
        "the host in a POP's LAN",
        "name: two",
        'name: two\nhost: {city: nyc, link: [10.1.0.0/24, "2001:db8::/64"]}',
        2,
        "host.link: 10.1.0.0/24 lies in the lab's own addresses; write another",
    ),
    (
        "the host on the WAN",
        "name: two",
        'name: two\nhost: {city: nyc, link: [192.0.2.0/30, "fd5e:ed9e:64::/64"]}',
        2,
        "host.link: fd5e:ed9e:64::/64 lies in the lab's own addresses",
    ),
    (
        "the host on a city's wire",
        "name: two",
        'name: two\nhost: {city: nyc, link: [192.0.2.0/30, "fd5e:ed9e:102::/64"]}',
        2,
        "host.link: fd5e:ed9e:102::/64 lies in the lab's own addresses",
    ),
    (
        "the host around the VIP",
        "name: two",
        'name: two\nhost: {city: nyc, link: [198.51.100.0/30, "2001:db8::/64"]}',
        2,
        "host.link: 198.51.100.0/30 holds the anycast address",
    ),
]
