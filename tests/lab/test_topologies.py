"""The planets that ship beside the usual one: each shows what it was made for."""

import json
import socket
from collections.abc import Iterator

import pytest

from netlab import birdctl, names, netns, paths, start, state
from netlab.clock import now_ms, wait_until
from netlab.lab import Lab
from netlab.topology import Address
from tests.support.joined import ask
from tests.support.lab import Keeper, poplab
from tests.support.silence import silence

pytestmark = pytest.mark.lab

FAMILIES = (4, 6)


# -- transit: AS paths decide ------------------------------------------------------------------


@pytest.fixture
def transit(keeper: Keeper) -> Lab:
    return keeper.ensure("transit")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("city", "pop"), [("sin", "lax"), ("syd", "lax"), ("lon", "jfk"), ("tyo", "nrt")])
def test_where_as_paths_decide_some_land_on_the_wrong_pop(
    transit: Lab, city: str, pop: str, family: int
) -> None:
    answer = transit.city(city).get("/pop", family=family)
    assert (answer.status, answer.pop) == (200, pop)
    at_home = pop == transit.topology.nearest(city).name
    assert at_home is (city == "tyo")


def test_it_takes_as_long_as_the_ways_there_and_back(transit: Lab) -> None:
    sin = transit.topology.city("sin")
    expected_ms = paths.rtt_ms(transit.topology, sin, "lax")
    assert expected_ms is not None
    took_ms = transit.city("sin").connect_ms(times=5)
    assert expected_ms <= took_ms < expected_ms + 40, f"{took_ms:.1f} ms"
    assert took_ms > 2 * (sin.rtt_ms + transit.topology.rtt_ms("tsg", "nrt")), "Tokyo is nearer by far"


def test_status_and_map_say_who_is_far_from_home(transit: Lab) -> None:
    status = poplab("status").stdout
    assert "sin   tsg     3 ms  lax (lax-a), not the nearest, nrt" in status
    assert "tyo   nrt     4 ms  nrt (nrt-a)\n" in status
    told = poplab("map", "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["running"]
    wrong = {
        city["city"]: city["served_by"]["v4"] for city in found["cities"] if not city["lands_at_nearest"]
    }
    assert wrong == {"sin": "lax", "syd": "lax", "lon": "jfk"}
    assert {city["expected"] == city["served_by"]["v4"] for city in found["cities"]} == {True}


# -- ecmp: one POP with two doors --------------------------------------------------------------


@pytest.fixture
def ecmp(keeper: Keeper) -> Lab:
    return keeper.ensure("ecmp")


def doors_now(lab: Lab, family: int, times: int) -> set[str]:
    """Which nodes answer so many connections; or how one failed, as a flow that is open while routes move."""
    try:
        return {lab.city("nyc").get("/pop", family=family).node for _ in range(times)}
    except OSError as error:
        return {type(error).__name__}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_router_spreads_flows_over_two_ingress_nodes(ecmp: Lab, family: int) -> None:
    # The second one's route may come a moment after the first one's, and moves flows then.
    wait_until(lambda: doors_now(ecmp, family, 40) == {"iad-a", "iad-b"}, "both answer", within_s=20)
    assert "nyc   iad     6 ms  iad (iad-a, iad-b)" in poplab("status").stdout


@pytest.fixture
def withdrawn(ecmp: Lab) -> Iterator[Lab]:
    mark = ecmp.node("iad-a").home / "run" / "withdrawn"
    mark.touch()
    yield ecmp
    mark.unlink()
    wait_until(lambda: len(ecmp.node("iad-a").announced()) == 2, "iad-a announces again", within_s=10)


def test_one_of_them_withdrawn_leaves_all_to_the_other(withdrawn: Lab) -> None:
    for family in FAMILIES:
        wait_until(lambda: doors_now(withdrawn, family, 12) == {"iad-b"}, "iad-b alone answers", within_s=20)  # noqa: B023


def test_bfd_misses_a_silent_node_and_nobody_else(ecmp: Lab) -> None:
    """BGP alone would wait for its hold time; that BFD was quicker is BIRD's own word."""
    node = ecmp.topology.node("iad-a")
    ends = [
        (names.node("iad-a"), 'iifname "eth0"'),
        (names.router("iad"), f'iifname "lan" ether saddr {names.lan_mac(1, node.host)}'),
    ]

    def why() -> str:
        return "\n".join(birdctl.ask(state.bird_control("r-iad"), "show protocols all node4_iad_a"))

    with silence(ends):
        wait_until(lambda: "BFD session down" in why(), "BFD tells BGP", within_s=20)
        for family in FAMILIES:
            wait_until(lambda: doors_now(ecmp, family, 12) == {"iad-b"}, "iad-b alone answers", within_s=20)  # noqa: B023
        assert ecmp.sessions("r-iad")["node4_iad_b"], "a neighbour that speaks is left alone"
    wait_until(lambda: all(ecmp.sessions("r-iad").values()), "iad-a is back", within_s=30)
    wait_until(lambda: doors_now(ecmp, 4, 40) == {"iad-a", "iad-b"}, "both answer again", within_s=20)


# -- asymmetric: one way longer than the other -------------------------------------------------


@pytest.fixture
def asymmetric(keeper: Keeper) -> Lab:
    return keeper.ensure("asymmetric")


def one_way_ms(lab: Lab, origin: str, to: str, address: Address) -> float:
    """Shortest of a few datagrams from a router to another, by the one clock of this machine."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6

    def here() -> socket.socket:
        return socket.socket(family, socket.SOCK_DGRAM)

    place_from, place_to = names.router(origin), names.router(to)
    with netns.inside(place_from, here) as sender, netns.inside(place_to, here) as receiver:
        receiver.bind((str(address), 9))
        receiver.settimeout(5)
        took = []
        for _ in range(5):
            started_ms = now_ms()
            sender.sendto(b"when?", (str(address), 9))
            receiver.recv(16)
            took.append(now_ms() - started_ms)
    return min(took)


def test_there_takes_longer_than_back(asymmetric: Lab) -> None:
    iad, fra = asymmetric.topology.pop("iad"), asymmetric.topology.pop("fra")
    for there, back in ((fra.wan4, iad.wan4), (fra.wan6, iad.wan6)):
        assert 70 <= one_way_ms(asymmetric, "iad", "fra", there) < 85
        assert 20 <= one_way_ms(asymmetric, "fra", "iad", back) < 35


def test_up_refuses_another_planet_than_the_one_that_runs(asymmetric: Lab) -> None:
    pids = [process.pid for process in asymmetric.state.processes]
    refused = poplab("up", "-t", "one-pop")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "the planet 'asymmetric'" in refused.stderr
    assert "you ask for 'one-pop'" in refused.stderr
    assert "`poplab down` first" in refused.stderr
    again = poplab("up", "-t", "asymmetric")
    assert again.returncode == 0, again.stderr
    assert "the planet 'asymmetric' runs already" in again.stderr
    assert [process.pid for process in Lab.running().state.processes] == pids


# -- a region without Redis --------------------------------------------------------------------


@pytest.fixture
def no_redis(keeper: Keeper) -> Lab:
    if not (start.MODELS / "catalog.json").is_file():
        pytest.skip("this planet needs models: run `make models`")
    return keeper.ensure("no-redis-region")


def test_a_region_without_redis_serves_all_the_same(no_redis: Lab) -> None:
    tyo = no_redis.city("tyo")
    wait_until(
        lambda: ask(tyo, "identity", edge_force_region="ap").headers.get("edge-served-by") == "nrt-b/0",
        "Tokyo's own worker answers",
        within_s=30,
    )
    answer = ask(tyo, "mlp", edge_force_region="ap", edge_cold="wait")
    assert (answer.status, answer.headers["edge-pop"]) == (200, "nrt")
    assert answer.headers["edge-served-by"] == "nrt-b/0"
    assert str(no_redis.topology.node("nrt-b").v4) in no_redis.origin.stats()["clients"]


def test_what_is_not_there_is_said(no_redis: Lab) -> None:
    rows = [line.split() for line in poplab("status").stdout.splitlines()]
    assert ["ap", "-", "-", "-"] in rows
    assert no_redis.region("us").redis.cli("PING") == "PONG"
    with pytest.raises(KeyError, match="ap has no Redis: its planet says so"):
        _ = no_redis.region("ap").redis
    assert not [process.name for process in no_redis.state.processes if process.name == "redis-ap"]
