"""Warm requests of a real node while its region's Redis is up, and while it is not as it should be.

One connection, one model on the device. In every round each state is measured in turn, beginning
with another one; a state begins as the fault strikes, so that its first answers are in it, and ends when
the node's index has felt it too.
"""

import contextlib
import http.client
import json
import os
import shutil
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
from tests.support.redissets import Member, RedisSet, alone

NODE: Final = "one-a"
REGION: Final = "us"
BODY: Final = json.dumps({"input": [[1.0] * 16]}).encode()


class Wrong(RuntimeError):  # noqa: N818 -- it is named after what happened to the run
    """An answer that must not be, or a node that did not come back."""


class State(NamedTuple):
    """How Redis is made so, how it is healed, and how the index of a node is seen to have felt it."""

    strike: Callable[[], None]
    heal: Callable[[], None]
    felt: Callable[[Node], bool]


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


def index_of(node: Node) -> dict[str, Any]:
    """What its store tells of the index."""
    told: dict[str, Any] = node.admin("/edge/weights").json["weights"]["index"]
    return told


def is_up(node: Node) -> bool:
    """Does its store see the index?"""
    return bool(index_of(node).get("state") == "up")


def states(server: Member, node: Node) -> dict[str, State]:
    """Everything that befalls the one server, by name. Its dump is as old as this call."""
    server.admin.save()
    kept = (server.home / "dump.rdb").rename(server.home / "kept.rdb")
    epochs = {"": ""}

    def flush() -> None:
        epochs[""] = str(index_of(node)["epoch"])
        server.admin.flushall()

    def restore() -> None:
        epochs[""] = str(index_of(node)["epoch"])
        server.kill()
        shutil.copy(kept, server.home / "dump.rdb")
        server.start()
        (server.home / "dump.rdb").unlink()

    def let_in(password: str) -> None:
        server.admin.execute_command("ACL", "SETUSER", NODE, "resetpass", f">{password}")
        server.admin.execute_command("CLIENT", "KILL", "USER", NODE)

    def nothing() -> None:
        """Nothing strikes, or it heals by itself."""

    def is_down(node: Node) -> bool:
        return not is_up(node)

    def is_another(node: Node) -> bool:
        return is_up(node) and index_of(node)["epoch"] != epochs[""]

    return {
        "up": State(nothing, nothing, is_up),
        "killed": State(server.kill, server.start, is_down),
        "frozen": State(
            lambda: server.signal(signal.SIGSTOP), lambda: server.signal(signal.SIGCONT), is_down
        ),
        "flushed": State(flush, nothing, is_another),
        "read-only": State(
            lambda: server.admin.replicaof("127.0.0.1", "1"),
            lambda: server.admin.replicaof("NO", "ONE"),
            is_down,
        ),
        "wrong password": State(
            lambda: let_in("another"), lambda: let_in(RedisServer.password(NODE)), is_down
        ),
        "old dump": State(restore, nothing, is_another),
    }


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
        node.request("/run/identity", BODY, {"edge-cold": "wait"})
        asked(node, requests)
        wait_until(lambda: is_up(node), "the index is up", within_s=20)
        befalls = states(server, node)
        names = list(befalls)
        points = []
        for number in range(1, count + 1):
            at = number % len(names)
            for name in [*names[at:], *names[:at]]:
                state = befalls[name]
                wait_until(lambda: is_up(node), "the index is up", within_s=20)
                state.strike()
                try:
                    took = asked(node, requests)
                    wait_until(lambda state=state: state.felt(node), f"the index felt: {name}", within_s=20)
                finally:
                    state.heal()
                points.append(Point(name, number, median(took), quantiles(took, n=100)[98]))
            told = "  ".join(f"{point.state} {point.p50_ms:.2f} ms" for point in points[-len(names) :])
            say(f"round {number}/{count}  {told}")
        return points


def ratios(points: list[Point], state: str, unit: str) -> list[float]:
    """That state beside Redis up, one number per round; `unit` is a field of Point."""
    at: dict[tuple[int, str], Any] = {(point.round, point.state): getattr(point, unit) for point in points}
    numbers = sorted({point.round for point in points})
    return [at[number, state] / at[number, "up"] for number in numbers]
