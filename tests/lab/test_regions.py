"""Each region has a Redis of its own: who gets in, what it survives, and that it goes with the lab."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab import netns, planetfile, resp, start, state, supervise
from netlab.lab import Lab
from netlab.regions import RedisHandle
from tests.support.lab import STANDIN, poplab, say

pytestmark = pytest.mark.lab

REGIONS = {"us": "iad-a", "eu": "fra-a", "ap": "nrt-a"}


@pytest.mark.usefixtures("no_lab")
def test_down_finds_it_stopped_and_forgotten(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text("{}")
    lab, _ = start.up(
        start.Wish(planet=planetfile.find("two-workers"), models=tmp_path, program=STANDIN), say
    )
    redis = lab.region("us").redis
    redis.stop()
    (state.ROOT / "state.json").unlink()
    assert start.down()
    assert not supervise.alive(redis.process)


def password(lab: Lab, node: str) -> str:
    return (lab.node(node).home / "redis.password").read_text().strip()


def ask_as(lab: Lab, node: str, *words: str, region: str = "") -> resp.Value:
    """A command as a node of the lab gives it."""
    redis = lab.region(region or lab.topology.pop(lab.node(node).node.pop).region).redis
    return redis.cli_as(node, password(lab, node), *words)


@pytest.fixture
def eu(network: Lab) -> Iterator[RedisHandle]:
    """The Redis of eu, well and empty before and after."""
    redis = network.region("eu").redis
    yield redis
    redis.cont()
    redis.start()
    redis.cli("FLUSHALL")


@pytest.mark.parametrize(("region", "node"), REGIONS.items())
def test_each_region_has_its_own_on_one_of_its_nodes(network: Lab, region: str, node: str) -> None:
    redis = network.region(region).redis
    assert redis.address == str(network.topology.node(node).v4)
    assert redis.pid in network.node(node).pids("redis")
    assert redis.pid not in network.node(node).pids(), "it is no part of popctl's process tree"
    assert redis.cli("PING") == "PONG"
    assert redis.cli("CONFIG", "GET", "maxmemory-policy") == ["maxmemory-policy", "noeviction"]
    assert redis.cli("CONFIG", "GET", "save") == ["save", ""]


@pytest.mark.parametrize("node", ["fra-a", "ams-a"])
def test_a_node_reaches_its_keys_from_where_it_stands(network: Lab, eu: RedisHandle, node: str) -> None:
    def from_the_node() -> resp.Value:
        with socket.create_connection((eu.address, eu.port), timeout=5) as wire:
            return resp.ask(wire, node, password(network, node), ("SET", f"wc:{{eu}}:alive:{node}", "1"))

    assert netns.inside(network.node(node).ns, from_the_node) == "OK"
    assert ask_as(network, node, "GETRANGE", f"wc:{{eu}}:alive:{node}", "0", "9") == "1"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("another region's key", ("SET", "wc:{us}:epoch", "1")),
        ("another node's sign of life", ("SET", "wc:{eu}:alive:fra-a", "1")),
        ("forgetting everything", ("FLUSHALL",)),
        ("a setting", ("CONFIG", "SET", "maxmemory", "1")),
        ("the list of users", ("ACL", "LIST")),
        ("every key of everybody", ("KEYS", "*")),
    ],
)
def test_what_a_node_may_not_do(network: Lab, eu: RedisHandle, what: str, words: tuple[str, ...]) -> None:
    with pytest.raises(resp.RedisError, match=r"^NOPERM"):
        ask_as(network, "ams-a", *words)
    assert eu.cli("DBSIZE") == 0, what


def test_nobody_else_gets_in(network: Lab, eu: RedisHandle) -> None:
    for user, secret in (("default", ""), ("fra-a", "guessed"), ("nrt-a", password(network, "nrt-a"))):
        with pytest.raises(resp.RedisError, match=r"^WRONGPASS"):
            eu.cli_as(user, secret, "PING")


def test_passwords_are_for_root_alone(network: Lab) -> None:
    for node in network.topology.nodes:
        assert (network.node(node.name).home / "redis.password").stat().st_mode & 0o777 == 0o600
    assert len({password(network, node.name) for node in network.topology.nodes}) == 5


def test_it_has_no_rights(network: Lab, eu: RedisHandle) -> None:
    status = Path(f"/proc/{eu.pid}/status").read_text().split("\n")
    assert next(line for line in status if line.startswith("Uid:")).split()[1:] == ["64010"] * 4
    assert next(line for line in status if line.startswith("CapEff:")).split()[1] == "0" * 16


def test_killed_it_is_seen_down_and_comes_back_empty(network: Lab, eu: RedisHandle) -> None:
    eu.cli("SET", "wc:{eu}:epoch", "1")
    eu.kill()
    with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
        eu.cli("PING")
    assert network.region("eu").redis.status()["state"] == "down"
    assert "redis-eu" in poplab("status").stdout.split("down: ")[1]
    eu.start()
    assert eu.cli("DBSIZE") == 0
    assert Lab.running().region("eu").redis.pid == eu.pid
    assert ask_as(Lab.running(), "fra-a", "GETRANGE", "wc:{eu}:epoch", "0", "9") == "", (
        "its users are the same"
    )


def test_stopped_it_answers_nobody_until_it_goes_on(network: Lab, eu: RedisHandle) -> None:
    eu.cli("SET", "wc:{eu}:epoch", "1")
    eu.stop()
    with pytest.raises(TimeoutError):
        eu.cli("PING", timeout_s=0.3)
    assert network.region("eu").redis.status()["state"] == "stopped"
    eu.cont()
    assert eu.cli("DBSIZE") == 1


def test_killing_a_node_leaves_the_redis_beside_it(network: Lab) -> None:
    redis = network.region("ap").redis
    node = network.node("nrt-a")
    assert redis.pid not in node.signal(signal.SIGCONT)
    assert {member.role for member in node.members()} >= {"bird", "redis"}


def test_status_shows_every_region(network: Lab) -> None:
    rows = [line.split() for line in poplab("status").stdout.splitlines()]
    for region, node in REGIONS.items():
        redis = network.region(region).redis
        assert [region, node, f"{redis.address}:6379", "up,", "pid", str(redis.pid)] in rows
