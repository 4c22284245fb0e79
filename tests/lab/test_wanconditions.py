"""Conditions on real frames: TCP with offload on the senders meets losses, rates and holes per packet."""

import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netlab.clock import now_s, wait_until
from tests.support.wanworld import World, running

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root: run the tests with sudo"),
]

THERE, BACK = ("w-a", "w-b"), ("w-b", "w-a")


@pytest.fixture(scope="module")
def whole_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(f"epc{os.getpid()}", tmp_path_factory.mktemp("wan")) as made:
        yield made


@pytest.fixture
def world(whole_world: World) -> Iterator[World]:
    """Every test begins and ends with the planet's own conditions."""
    whole_world.reset(THERE, BACK)
    yield whole_world
    whole_world.reset(THERE, BACK)


def grown(before: dict[str, Any], after: dict[str, Any], name: str) -> int:
    return int(after[name] - before[name])


def transfer(world: World, size_bytes: int, address: str = "10.77.0.2", within_s: float = 60) -> float:
    """Seconds that so many bytes take from a to b; they arrive whole."""
    pattern = bytes(range(256)) * 4096
    with world.listen("b", address) as server:
        client, _ = world.dial("a", server)
        taken, _ = server.accept()
        with client, taken:
            taken.settimeout(within_s)
            client.settimeout(within_s)
            began_s = now_s()
            sender = threading.Thread(target=send, args=(client, pattern, size_bytes))
            sender.start()
            got = 0
            while chunk := taken.recv(1 << 18):
                at = got % len(pattern)
                assert chunk == (pattern + pattern)[at : at + len(chunk)], f"byte {got} or after it is wrong"
                got += len(chunk)
            took_s = now_s() - began_s
            sender.join()
    assert got == size_bytes
    return took_s


def send(client: socket.socket, pattern: bytes, size_bytes: int) -> None:
    for at in range(0, size_bytes, len(pattern)):
        client.sendall(pattern[: min(len(pattern), size_bytes - at)])
    client.shutdown(socket.SHUT_WR)


def datagrams(world: World, count: int, within_s: float = 5.0) -> list[int]:
    """Numbers of the datagrams that came of so many sent from a to b, in the order of arrival."""
    ear = world.inside("b", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    mouth = world.inside("a", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with ear, mouth:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        ear.bind(("10.77.0.2", 5056))
        mouth.connect(("10.77.0.2", 5056))
        before = world.pair(*THERE)
        for number in range(count):
            mouth.send(number.to_bytes(4))

        def settled() -> bool:
            after = world.pair(*THERE)
            return grown(before, after, "packets") + grown(before, after, "dropped") >= count

        wait_until(settled, f"{count} datagrams met their fate", within_s=within_s)
        came = []
        while select.select([ear], [], [], 0)[0]:
            came.append(int.from_bytes(ear.recv(64)))
        return came


@pytest.mark.parametrize("address", ["10.77.0.2", "fd77::2"])
def test_loss_is_of_packets_though_the_sender_offloads(world: World, address: str) -> None:
    world.set(*THERE, loss=0.02)
    before = world.pair(*THERE)
    transfer(world, 24 << 20, address)
    after = world.pair(*THERE)
    lost = after["dropped_by"]["loss"] - before["dropped_by"].get("loss", 0)
    packets = grown(before, after, "packets") + lost
    assert packets > (24 << 20) / 1448
    assert 0.6 * 0.02 < lost / packets < 1.5 * 0.02, f"{lost} of {packets}"
    assert grown(before, after, "frames") < packets / 2, "the sender's offload is on"


def test_loss_in_one_direction_leaves_the_other_alone(world: World) -> None:
    world.set(*THERE, loss=1.0)
    assert datagrams(world, 50) == []
    world.reset(THERE)
    world.set(*BACK, loss=1.0)
    assert datagrams(world, 50) == list(range(50))


def test_a_flow_gets_its_rate(world: World) -> None:
    world.set(*THERE, rate_bps=40_000_000, one_way_ms=5)
    before = world.pair(*THERE)
    took_s = transfer(world, 6 << 20)
    after = world.pair(*THERE)
    bps = grown(before, after, "bytes") * 8 / took_s
    assert bps <= 1.1 * 40_000_000, "a rate is a bound on any machine"
    assert bps >= 0.5 * 40_000_000
    assert grown(before, after, "bytes") > 6 << 20, "every packet's own headers are counted"


def test_what_waits_for_a_rate_waits_no_longer_than_the_bound(world: World) -> None:
    """1000 bytes at 8 Mbit/s take 1 ms: a hundred may wait, of three hundred the rest is dropped."""
    world.set(*THERE, rate_bps=8_000_000)
    mouth = world.inside("a", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    before = world.pair(*THERE)
    began_s = now_s()
    with mouth:
        for _ in range(300):
            mouth.sendto(bytes(958), ("10.77.0.2", 5057))

        def dropped() -> int:
            return int(world.pair(*THERE)["dropped_by"].get("queue", 0)) - before["dropped_by"].get(
                "queue", 0
            )

        wait_until(
            lambda: dropped() + grown(before, world.pair(*THERE), "packets") >= 300, "all met", within_s=5
        )
    allowed = 101 + (now_s() - began_s) * 1000
    assert 100 <= 300 - dropped() <= allowed


def test_jitter_varies_the_delay_and_keeps_the_order(world: World) -> None:
    world.set(*THERE, one_way_ms=20, jitter_ms=15)
    assert datagrams(world, 400) == list(range(400))
    with world.listen("b", "10.77.0.2") as server:
        took = []
        for _ in range(12):
            client, one_ms = world.dial("a", server)
            client.close()
            took.append(one_ms)
    assert min(took) >= 5
    assert max(took) - min(took) > 4


def test_reordered_packets_come_behind_later_ones_and_are_counted(world: World) -> None:
    world.set(*THERE, reorder=0.2)
    before = world.pair(*THERE)
    came = datagrams(world, 400)
    assert sorted(came) == list(range(400))
    behind = sum(number < max(came[:at], default=-1) for at, number in enumerate(came))
    assert 20 <= behind <= 160
    counted = grown(before, world.pair(*THERE), "reordered")
    assert behind <= counted <= behind + 10, "neighbour discovery and the like may be among them"
    world.reset(THERE)
    assert datagrams(world, 400) == list(range(400))


def test_a_flow_survives_jitter_and_reordering(world: World) -> None:
    world.set(*THERE, one_way_ms=3, jitter_ms=2, reorder=0.01, loss=0.001)
    transfer(world, 8 << 20)
    assert world.pair(*THERE)["reordered"] > 0


def deaf(world: World, address: str) -> bool:
    """Whether of 200 kB nothing comes through, though the handshake does."""
    with world.listen("b", address) as server:
        client, _ = world.dial("a", server)
        taken, _ = server.accept()
        with client, taken:
            client.setblocking(False)
            client.send(bytes(200_000))
            return select.select([taken], [], [], 0.7)[0] == []


@pytest.mark.parametrize("address", ["10.77.0.2", "fd77::2"])
def test_a_small_mtu_is_told_and_a_silent_one_is_a_hole(world: World, address: str) -> None:
    forget_mtu(world)
    before = world.pair(*THERE)
    world.set(*THERE, mtu_bytes=1280, mtu_silent=True)
    assert deaf(world, address)
    assert world.pair(*THERE)["dropped_by"]["mtu"] > before["dropped_by"].get("mtu", 0)
    world.set(*THERE, mtu_silent=False)
    transfer(world, 1 << 20, address, within_s=10)
    forget_mtu(world)


def forget_mtu(world: World) -> None:
    """What a learned about the way to b."""
    for family in ("-4", "-6"):
        world.ip("a", family, "route", "flush", "cache")


def test_lifted_conditions_leave_a_fast_link(world: World) -> None:
    world.set(*THERE, loss=0.01, rate_bps=50_000_000)
    transfer(world, 1 << 20)
    said = world.ask(op="reset", **{"from": THERE[0]}, to=THERE[1])
    assert said == {
        "ok": True,
        "from": "w-a",
        "to": "w-b",
        "cut": False,
        "one_way_ms": 0.0,
        "differs": {},
    }
    before = world.pair(*THERE)
    transfer(world, 32 << 20)
    after = world.pair(*THERE)
    assert grown(before, after, "dropped") == 0
    assert grown(before, after, "bytes") / grown(before, after, "frames") > 3000, "frames are cut still"
    assert grown(before, after, "packets") > grown(before, after, "frames")


HOSTILE = [
    ("a loss in words", b'{"op":"set","from":"w-a","to":"w-b","loss":"much"}\n', b"write a number"),
    ("a loss past one", b'{"op":"set","from":"w-a","to":"w-b","loss":1.5}\n', b"write 0 to 1"),
    ("no number", b'{"op":"set","from":"w-a","to":"w-b","jitter_ms":NaN}\n', b"jitter_ms is nan"),
    ("a rate of one bit", b'{"op":"set","from":"w-a","to":"w-b","rate_bps":1}\n', b"write 8000 to"),
    ("a huge rate", b'{"op":"set","from":"w-a","to":"w-b","rate_bps":1e308}\n', b"rate_bps is 1e+308"),
    ("an MTU of nothing", b'{"op":"set","from":"w-a","to":"w-b","mtu_bytes":-5}\n', b"write 576 to"),
    ("half of it wrong", b'{"op":"set","from":"w-a","to":"w-b","loss":0.5,"mtu_bytes":1}\n', b"write 576 to"),
    ("unknown conditions", b'{"op":"set","from":"w-a","to":"w-b","__class__":1}\n', b"is no condition"),
    ("a pair of one", b'{"op":"reset","from":"w-a","to":"w-a"}\n', b"no pair from"),
]


@pytest.mark.parametrize(("sentence", "line", "words"), HOSTILE)
def test_hostile_wishes_change_nothing(world: World, sentence: str, line: bytes, words: bytes) -> None:
    assert words in world.raw(line), sentence
    assert world.pair(*THERE)["differs"] == {}
    with world.listen("b", "10.77.0.2") as server:
        world.dial("a", server)[0].close()


def test_the_control_file_is_root_s_own(world: World) -> None:
    assert Path(world.control).stat().st_mode & 0o077 == 0
