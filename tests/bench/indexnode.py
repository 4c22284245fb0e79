"""Warm requests of a real node while its region's Redis is up, killed and frozen.

One connection, one model on the device. In every round each state is measured in turn, beginning
with another one; a state begins as the fault strikes, so that its first answers are in it.
"""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, NamedTuple

from edge.clock import now_ms
from netlab.ca import issue, write_ca
from netlab.clock import wait_until
from tests.support.node import ROOT, STORE, Node, config_text, open_directory
from tests.support.ports import free_port
from tests.support.redis import RedisServer
from tests.support.redissets import RedisSet, alone

NODE: Final = "one-a"
REGION: Final = "us"
BODY: Final = json.dumps({"input": [[1.0] * 16]}).encode()
STATES: Final = ("up", "killed", "frozen")


class Wrong(RuntimeError):  # noqa: N818 -- it is named after what happened to the run
    """An answer that must not be, or a node that did not come back."""


class Point(NamedTuple):
    """One state in one round: milliseconds per answer."""

    state: str
    round: int
    p50_ms: float
    p99_ms: float


@contextlib.contextmanager
def node_with_index(servers: RedisSet) -> Iterator[Node]:
    """`popctl serve` with a mesh, a blob server and the index."""
    with open_directory() as directory:
        ca = write_ca(directory / "ca")
        certificate, key = issue(ca, NODE, ["127.0.0.1"], directory)
        password = directory / "redis.password"
        password.write_text(RedisServer.password(NODE))
        port = free_port()
        mesh = (
            f"mesh:\n  listen: 127.0.0.1:{free_port()}\n  ca: {ca.path}\n"
            f"  certificate: {certificate}\n  key: {key}\n"
        )
        text = config_text(directory, NODE, port, origin=f"file://{STORE}/", region=REGION, extra=mesh)
        index = {**servers.place, "user": NODE, "password_file": str(password)}
        shared = f"weights:\n  blobs: 127.0.0.1:{free_port()}\n  index: {json.dumps(index)}\n"
        config = directory / "node.yaml"
        config.write_text(text.replace("weights:\n", shared, 1))
        log = directory / "log"
        command = [str(Path(sys.executable).with_name("popctl")), "serve", "-c", str(config)]
        with log.open("wb") as sink:
            process = subprocess.Popen(command, stdout=sink, stderr=sink, cwd=ROOT, start_new_session=True)
        node = Node(directory, NODE, port, process, log)
        try:
            ready = directory / "run" / "ready"
            wait_until(lambda: ready.exists() or process.poll() is not None, "ready", within_s=40)
            if process.poll() is not None:
                raise Wrong(f"the node ended:\n{node.log_text[-3000:]}")
            yield node
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(10)


def is_up(node: Node) -> bool:
    """Does its store see the index?"""
    return bool(node.admin("/edge/weights").json["weights"]["index"].get("state") == "up")


def asked(node: Node, count: int) -> list[float]:
    """Milliseconds of each of `count` warm requests over one connection. Raises Wrong."""
    took = []
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    with contextlib.closing(connection):
        for _ in range(count):
            begun_ms = now_ms()
            connection.request("POST", "/run/identity", BODY)
            answer = connection.getresponse()
            body = answer.read()
            took.append(now_ms() - begun_ms)
            if answer.status != 200 or answer.getheader("edge-residency") != "device":
                raise Wrong(f"{answer.status} from {answer.getheader('edge-residency')}: {body[:200]!r}")
    return took


def rounds(count: int, requests: int, say: Callable[[str], None]) -> list[Point]:
    """All points. Raises Wrong."""
    with alone(REGION, (NODE,)) as servers, node_with_index(servers) as node:
        (server,) = servers.servers
        strike: dict[str, Callable[[], None]] = {
            "up": lambda: None,
            "killed": server.kill,
            "frozen": lambda: server.signal(signal.SIGSTOP),
        }
        heal: dict[str, Callable[[], None]] = {
            "up": lambda: None,
            "killed": server.start,
            "frozen": lambda: server.signal(signal.SIGCONT),
        }
        node.request("/run/identity", BODY, {"edge-cold": "wait"})
        asked(node, requests)
        points = []
        for number in range(1, count + 1):
            for state in [*STATES[number % 3 :], *STATES[: number % 3]]:
                wait_until(lambda: is_up(node), "the index is up", within_s=20)
                strike[state]()
                try:
                    took = asked(node, requests)
                finally:
                    heal[state]()
                points.append(Point(state, number, median(took), quantiles(took, n=100)[98]))
            say(f"round {number}/{count}  " + "  ".join(f"{p.state} {p.p50_ms:.2f} ms" for p in points[-3:]))
        return points


def ratios(points: list[Point], state: str, unit: str) -> list[float]:
    """That state beside Redis up, one number per round; `unit` is a field of Point."""
    at: dict[tuple[int, str], Any] = {(point.round, point.state): getattr(point, unit) for point in points}
    numbers = sorted({point.round for point in points})
    return [at[number, state] / at[number, "up"] for number in numbers]
