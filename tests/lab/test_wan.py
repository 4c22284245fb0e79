"""The switch between real namespaces: a pair is as long as it was asked to be, and nothing is lost."""

import hashlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netlab import wannetem
from netlab.clock import wait_until
from tests.support.wanworld import LAN, ROOT, World, running

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root: run the tests with sudo"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(f"ept{os.getpid()}", tmp_path_factory.mktemp("wan")) as made:
        yield made


ROADS = [
    ("the segment over IPv4", "10.77.0.2", ("w-a", "w-b")),
    ("the segment over IPv6", "fd77::2", ("w-a", "w-b")),
    ("the wire over IPv4", "10.78.0.2", ("x-a", "x-b")),
    ("the wire over IPv6", "fd78::2", ("x-a", "x-b")),
]


CASES = [(*road, rtt_ms) for rtt_ms in (0, 6, 90) for road in ROADS] + [(*ROADS[1], 230)]


@pytest.mark.parametrize(("road", "address", "ends", "rtt_ms"), CASES)
def test_a_handshake_takes_the_wanted_rtt(
    world: World, road: str, address: str, ends: tuple[str, str], rtt_ms: float
) -> None:
    world.set_rtt(*ends, rtt_ms)
    at_most_ms = rtt_ms + max(2.0, 0.05 * rtt_ms)
    with world.listen("b", address) as server:
        seen_ms = [world.handshake_ms("a", server, times=7)]
        # A busy machine makes frames late, and never early.
        while seen_ms[-1] > at_most_ms and len(seen_ms) < 9:
            seen_ms.append(world.handshake_ms("a", server, times=7))
    assert rtt_ms <= min(seen_ms) + 0.05
    assert seen_ms[-1] <= at_most_ms, f"{road}: wanted {rtt_ms} ms, saw {seen_ms}"


def send_all(client: socket.socket, body: bytes) -> None:
    client.sendall(body)
    client.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("rtt_ms", [0, 80])
def test_a_bulk_transfer_arrives_whole(world: World, rtt_ms: float) -> None:
    world.set_rtt("w-a", "w-b", rtt_ms)
    body = os.urandom(1 << 20) * 32
    before = world.pair("w-a", "w-b")
    with world.listen("b", "10.77.0.2") as server:
        client, _ = world.dial("a", server)
        taken, _ = server.accept()
        taken.settimeout(60)
        with client, taken:
            client.settimeout(60)
            sender = threading.Thread(target=lambda: send_all(client, body))
            sender.start()
            digest, size = hashlib.sha256(), 0
            while chunk := taken.recv(1 << 20):
                digest.update(chunk)
                size += len(chunk)
            sender.join()
    after = world.pair("w-a", "w-b")
    assert (size, digest.digest()) == (len(body), hashlib.sha256(body).digest())
    assert after["bytes"] - before["bytes"] >= len(body)
    assert after["dropped"] == before["dropped"]
    assert (after["bytes"] - before["bytes"]) / (after["frames"] - before["frames"]) > 3000, (
        "frames were segmented"
    )


def test_a_delay_may_differ_by_direction(world: World) -> None:
    world.set_rtt("w-a", "w-b", 0)
    world.ask(op="set", **{"from": "w-a"}, to="w-b", one_way_ms=60)
    with world.listen("b", "10.77.0.2") as server:
        assert 60 <= world.handshake_ms("a", server, times=5) < 63
    assert world.pair("w-b", "w-a")["one_way_ms"] == 0


def test_broadcast_reaches_all_and_unicast_one(world: World) -> None:
    def hear(name: str) -> socket.socket:
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ear.bind(("", 5055))
        ear.settimeout(5)
        return ear

    def shout(address: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
            mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            mouth.sendto(address.encode(), (address, 5055))

    world.set_rtt("w-a", "w-b", 0)
    with world.inside("b", lambda: hear("b")) as b, world.inside("c", lambda: hear("c")) as c:
        world.inside("a", lambda: shout("10.77.0.2"))
        world.inside("a", lambda: shout("10.77.0.255"))
        assert b.recv(64) == b"10.77.0.2"
        assert b.recv(64) == c.recv(64) == b"10.77.0.255"


def test_the_switch_itself_answers_nobody(world: World) -> None:
    def ask_for_it() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(0.3)
            try:
                client.connect(("10.77.0.99", 9))
            except TimeoutError:
                return "silence"
            except OSError as error:
                return str(error)
            return "an answer"

    assert world.inside("a", ask_for_it) == "silence"
    for port in (*(f"w-{name}" for name in LAN), "x-a", "x-b"):
        path = f"/proc/sys/net/ipv6/conf/{port}/disable_ipv6"
        assert world.inside("w", Path(path).read_text).strip() == "1"


def test_idle_costs_next_to_nothing(world: World) -> None:
    """Two seconds of silence on its stdout cost at most 40 ms of processor."""
    assert world.switch is not None
    assert world.switch.stdout is not None
    stat = Path(f"/proc/{world.switch.pid}/stat")

    def ticks() -> int:
        fields = stat.read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    assert select.select([world.switch.stdout], [], [], 2.0)[0] == []
    assert (ticks() - before) / os.sysconf("SC_CLK_TCK") <= 0.04


def test_a_port_that_goes_down_comes_back(world: World) -> None:
    world.set_rtt("x-a", "x-b", 0)
    with world.listen("b", "10.78.0.2") as server:
        world.link("x-b", "down")
        wait_until(lambda: world.port_state("x-b") == "down", "x-b is seen down", within_s=5)
        world.link("x-b", "up")
        wait_until(lambda: world.port_state("x-b") == "up", "x-b is seen up", within_s=5)
        assert world.handshake_ms("a", server, times=5) < 20


def test_a_port_that_goes_for_good_is_logged_and_may_be_made_anew(world: World) -> None:
    world.link("x-b", "down")
    wait_until(lambda: world.port_state("x-b") == "down", "x-b is seen down", within_s=5)
    subprocess.run(["ip", "-n", world.ns("w"), "link", "del", "x-b"], check=True)
    wait_until(lambda: world.port_state("x-b") == "gone", "x-b is seen gone", within_s=5)
    assert "port x-b is gone" in world.log.read_text()
    with world.listen("b", "10.77.0.2") as server:
        assert world.handshake_ms("a", server, times=3) < 63
    world.cable("b", "x-b", "wire", "02:00:00:00:01:02", "10.78.0.2/24", "fd78::2/64")
    wait_until(lambda: world.port_state("x-b") == "up", "x-b is back", within_s=5)
    with world.listen("b", "fd78::2") as server:
        assert world.handshake_ms("a", server, times=3) < 20


def test_the_control_socket_bounds_what_it_takes(world: World) -> None:
    assert b"unknown op" in world.raw(b'{"op":"x"}\n')
    assert b"longer than 4096" in world.raw(b"x" * 5000)
    crowd = []
    for _ in range(17):
        desk = socket.socket(socket.AF_UNIX)
        desk.connect(str(world.control))
        crowd.append(desk)
    try:
        crowd[-1].settimeout(5)
        assert b"16 connections are open" in crowd[-1].recv(4096)
    finally:
        for desk in crowd:
            desk.close()
    wait_until(lambda: "pairs" in world.ask(op="stats"), "the desk is free again", within_s=5)


@pytest.mark.parametrize(
    ("sentence", "config", "words"),
    [
        (
            "a port that is not there",
            {"wires": [{"a": "nope0", "b": "nope1", "one_way_ms": 1}]},
            "port nope0",
        ),
        ("a config that is wrong", {"wires": [{"a": "x", "b": "x", "one_way_ms": 1}]}, "x is used twice"),
    ],
)
def test_a_wrong_start_says_why(
    world: World, tmp_path: Path, sentence: str, config: dict[str, Any], words: str
) -> None:
    path = tmp_path / "wan.json"
    path.write_text(json.dumps({"control": str(tmp_path / "s"), **config}))
    command = [
        "ip",
        "netns",
        "exec",
        world.ns("w"),
        sys.executable,
        "-m",
        "netlab.wan",
        "--config",
        str(path),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=20, check=False)
    assert ended.returncode == 1, sentence
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_netem_is_refused_with_the_next_step_where_the_kernel_has_none(world: World, tmp_path: Path) -> None:
    if wannetem.missing() == "":
        pytest.skip("this kernel has netem")
    path = tmp_path / "wan.json"
    path.write_text(world.config.read_text())
    command = [
        "ip",
        "netns",
        "exec",
        world.ns("w"),
        sys.executable,
        "-m",
        "netlab.wannetem",
        "--config",
        str(path),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "this kernel has no netem" in ended.stderr
    assert "--wan-engine afpacket" in ended.stderr
