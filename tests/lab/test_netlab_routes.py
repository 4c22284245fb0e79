"""Anycast on one machine: who is served where, and what poplab says about it."""

import json
import signal
import subprocess

import pytest

from netlab import names
from netlab.clock import wait_until
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


@pytest.mark.parametrize("family", FAMILIES)
def test_this_machine_is_a_user(network: Lab, family: int) -> None:
    link = network.topology.host
    assert network.host.source(family) == str(link.host4 if family == 4 else link.host6)
    assert network.host.get("/pop", family=family).pop == "iad"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_this_machine_answers_to_somebody_inside_stays_inside(network: Lab, family: int) -> None:
    node, link = network.topology.node("fra-a"), network.topology.host
    to, source = (node.v4, link.host4) if family == 4 else (node.v6, link.host6)
    way = subprocess.run(
        ["ip", "route", "get", str(to), "from", str(source)], capture_output=True, text=True, check=True
    )
    assert f"dev {names.HOST_LINK} " in way.stdout


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
