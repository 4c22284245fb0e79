"""redis.conf: what a region's Redis is told, and whom it lets in. That Redis agrees: tests/lab/test_regions.py."""

import hashlib
from ipaddress import IPv4Address
from pathlib import Path

from netlab.redisconf import ADMIN, node_rules, redis_conf

TEXT = redis_conf(
    "us", IPv4Address("10.1.0.11"), 6379, Path("/run/x/us"), {ADMIN: "one", "iad-a": "two", "iad-b": "three"}
)
LINES = TEXT.splitlines()


def test_it_listens_on_one_address_and_keeps_nothing() -> None:
    for line in (
        "bind 10.1.0.11",
        "port 6379",
        'save ""',
        "appendonly no",
        "maxmemory 256mb",
        "maxmemory-policy noeviction",
    ):
        assert line in LINES


def test_nobody_gets_in_without_a_name_and_no_password_stands_in_the_file() -> None:
    assert "user default off" in LINES
    users = [line.split()[1:4] for line in LINES if line.startswith("user ") and " on " in line]
    assert users == [
        [name, "on", "#" + hashlib.sha256(password.encode()).hexdigest()]
        for name, password in ((ADMIN, "one"), ("iad-a", "two"), ("iad-b", "three"))
    ]


def test_a_node_writes_its_regions_keys_and_no_others_sign_of_life() -> None:
    rules = node_rules("us", "iad-a").split()
    assert [rule for rule in rules if rule.startswith("%R")] == ["%R~wc:{us}:*"]
    assert {rule for rule in rules if rule.startswith("~")} == {
        f"~wc:{{us}}:{key}" for key in ("epoch", "ev", "loc:*", "lease:*", "have:*", "node:*", "alive:iad-a")
    }
    assert not [rule for rule in rules if rule.startswith(("%W", "allkeys", "+@"))]
    assert rules.index("-@all") < min(rules.index(rule) for rule in rules if rule.startswith("+"))
