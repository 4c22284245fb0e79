"""Anycast on one machine: who is served where, and what happens when somebody leaves."""

import json
import signal

import pytest

from netlab.clock import wait_until
from netlab.handles import CityHandle
from netlab.lab import Lab
from tests.support.lab import poplab

pytestmark = pytest.mark.lab

CATCHMENT = [("nyc", "iad"), ("ber", "fra"), ("lon", "ams"), ("tyo", "nrt"), ("syd", "nrt")]
FAMILIES = (4, 6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("city", "pop"), CATCHMENT)
def test_each_city_enters_at_its_nearest_pop(network: Lab, city: str, pop: str, family: int) -> None:
    answer = network.city(city).get("/pop", family=family)
    assert (answer.status, answer.pop) == (200, pop)
    at = network.topology.city(city)
    assert answer.lines["client"] == str(at.net4[2] if family == 4 else at.net6[2])
    assert network.topology.node(network.served_by(city)[f"v{family}"]).pop == pop


def felt_ms(user: CityHandle, wanted_ms: float, family: int) -> float:
    """Median handshake of 20; measured again, up to 5 times, while a busy machine makes frames late."""
    seen_ms = 0.0
    for _ in range(5):
        seen_ms = user.connect_ms(family=family)
        if abs(seen_ms - wanted_ms) <= max(2.0, 0.05 * wanted_ms):
            break
    return seen_ms


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("city", [city for city, _ in CATCHMENT])
def test_distance_is_felt(network: Lab, city: str, family: int) -> None:
    rtt_ms = network.topology.city(city).rtt_ms
    seen_ms = felt_ms(network.city(city), rtt_ms, family)
    assert abs(seen_ms - rtt_ms) <= max(2.0, 0.05 * rtt_ms), f"{seen_ms:.2f} ms instead of {rtt_ms:g}"


@pytest.mark.parametrize("family", FAMILIES)
def test_distance_between_pops_is_felt(network: Lab, family: int) -> None:
    """From Berlin by way of Amsterdam, once Frankfurt is gone: access and WAN add up."""
    ber = network.city("ber")
    withdraw(network, "fra-a")
    try:
        ber.wait_until_served_by("ams", within_ms=2500, family=family)
        seen_ms = felt_ms(ber, 16, family)
        assert abs(seen_ms - 16) <= 2.0, f"{seen_ms:.2f} ms instead of 16"
    finally:
        renew(network, "fra-a")
    ber.wait_until_served_by("fra", within_ms=2500, family=family)


def withdraw(lab: Lab, node: str) -> None:
    """The stand-in deletes the address at its next look."""
    (lab.node(node).home / "run" / "withdrawn").touch()


def renew(lab: Lab, node: str) -> None:
    (lab.node(node).home / "run" / "withdrawn").unlink(missing_ok=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_this_machine_is_a_user(network: Lab, family: int) -> None:
    link = network.topology.host
    assert network.host.source(family) == str(link.host4 if family == 4 else link.host6)
    assert network.host.get("/pop", family=family).pop == "iad"


def test_this_machine_moves(network: Lab) -> None:
    routes = []
    for city, pop in (("tyo", "nrt"), ("ber", "fra"), ("nyc", "iad")):
        moved = poplab("move", city)
        assert (moved.returncode, moved.stdout) == (0, ""), moved.stderr
        for family in FAMILIES:
            network.host.wait_until_served_by(pop, within_ms=2000, family=family)
            routes.append(network.host.source(family))
    assert set(routes) == {"203.0.113.253", "fd5e:ed9e:ff::1"}
    assert network.host.get("/pop").lines["client"] == "203.0.113.253"


def test_moving_nowhere_says_where_one_can_move(network: Lab) -> None:
    failed = poplab("move", "tio")
    assert failed.returncode == 4
    assert "did you mean tyo" in failed.stderr


# What happens, the signal (None: the address is deleted), ms until the heir answers.
LOSSES = [
    ("the address is deleted", None, 300 + 500),
    ("the node is killed", signal.SIGKILL, 2500),
    ("the node is stopped", signal.SIGSTOP, 2500),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("number", "within_ms"), [loss[1:] for loss in LOSSES], ids=[loss[0] for loss in LOSSES]
)
def test_a_pop_that_leaves_loses_its_catchment(
    network: Lab, number: signal.Signals | None, within_ms: float, family: int
) -> None:
    node, ber = network.node("fra-a"), network.city("ber")
    assert ber.get("/pop", family=family).pop == "fra"
    if number is None:
        withdraw(network, "fra-a")
    else:
        node.signal(number)
    try:
        ber.wait_until_served_by("ams", within_ms=within_ms, family=family)
        assert node.announced() == []
        assert network.city("nyc").get("/pop").pop == "iad"
    finally:
        renew(network, "fra-a")
        if number == signal.SIGSTOP:
            node.signal(signal.SIGCONT)
        elif number == signal.SIGKILL:
            node.restart(within_s=20)
    ber.wait_until_served_by("fra", within_ms=2500, family=family)


def test_status_tells_the_truth(network: Lab) -> None:
    told = poplab("status", "--json")
    assert told.returncode == 0, told.stderr
    status = json.loads(told.stdout)
    assert status["schema_version"] == 1
    assert status["wan"]["engine"] == "afpacket"
    assert status["host"]["city"] == "nyc"
    assert {c["city"]: c["served_by"]["v6"]["pop"] for c in status["cities"]} == dict(CATCHMENT)
    assert {p["state"] for p in status["processes"]} == {"up"}
    nodes = {n["node"]: n for pop in status["pops"] for n in pop["nodes"]}
    assert {name for name, node in nodes.items() if node["state"] == "ready"} == set(nodes)
    assert nodes["fra-a"]["announced"] == ["198.51.100.1", "fd5e:ed9e::1"]
    assert all(pop["bgp"] == {"up": 8, "of": 8} for pop in status["pops"])
    text = poplab("status").stdout
    assert "ber   fra     8 ms    fra (fra-a)" in text


def test_curl_from_a_city_takes_any_argument_of_curl(network: Lab) -> None:
    done = poplab(
        "curl", "--from", "syd", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://198.51.100.1/pop"
    )
    assert (done.returncode, done.stdout) == (0, "200")
    assert poplab("curl", "--from", "sid", "http://198.51.100.1/").returncode == 4


def test_exec_runs_in_a_place_and_gives_its_exit_code(network: Lab) -> None:
    done = poplab("exec", "iad-b", "--", "sh", "-c", "ip -br -4 addr show eth0; exit 7")
    assert done.returncode == 7
    assert "10.1.0.12/24" in done.stdout
    failed = poplab("exec", "iad-c", "true")
    assert failed.returncode == 4
    assert "no place is called 'iad-c'" in failed.stderr


def test_logs_are_kept_by_name(network: Lab) -> None:
    one = poplab("logs", "wan")
    assert "ready" in one.stdout.splitlines()
    every = poplab("logs")
    assert any(line.startswith("r-iad.bird") and "Started" in line for line in every.stdout.splitlines())
    assert poplab("logs", "wann").returncode == 4


def test_a_second_lab_is_not_started(network: Lab) -> None:
    again = poplab("up")
    assert again.returncode == 0
    assert "runs already" in again.stderr


def test_addresses_of_the_marker_are_leased(network: Lab) -> None:
    """The kernel counts down; without renewal they would be gone in two seconds."""
    node = network.node("nrt-a")
    pids = node.pids()
    node.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: not node.announced(), "the kernel withdrew", within_s=3.5)
        assert node.pids() == pids, "the processes are still there"
    finally:
        node.signal(signal.SIGCONT)
    wait_until(lambda: len(node.announced()) == 2, "it announces again", within_s=2.0)
