"""Sets of real Redis servers on loopback that decide among themselves which one is the master.

A master with two replicas that three sentinels watch, and a cluster of three masters with a
replica each. Every server has the users of a region's Redis, see tests.support.redis. They
refuse to know what nodes keep there.
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from netlab.clock import wait_until
from tests.support.redis import RedisServer, acl

_ADMIN = "the-tests-themselves"
#: A master is given up after so long. A member that is stopped by a busy machine must not seem dead.
GIVEN_UP_MS = 2_000


def free_port() -> int:
    """A port that was free a moment ago, and so was the one of its cluster bus."""
    while True:
        with socket.socket() as one, socket.socket() as bus:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            if port + 10_000 > 65_535:
                continue
            with contextlib.suppress(OSError):
                bus.bind(("127.0.0.1", port + 10_000))
                return port


class Member:
    """One process."""

    def __init__(self, folder: Path, name: str, *lines: str, sentinel: bool = False) -> None:
        self.port = free_port()
        self._conf = folder / f"{name}.conf"
        self.home = folder / name
        self.home.mkdir()
        common = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.home}", f"logfile {self.home}/log"]
        self._conf.write_text("\n".join([*common, *lines]) + "\n")
        self._command = ["redis-server", str(self._conf), *(["--sentinel"] if sentinel else [])]
        user = {} if sentinel else {"username": "admin", "password": _ADMIN}
        self.admin: Any = redis.Redis("127.0.0.1", self.port, protocol=2, socket_timeout=5, **user)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(self._command)
        wait_until(self.answers, f"{self._conf.stem} answers", within_s=10)

    def answers(self) -> bool:
        try:
            return bool(self.admin.ping())
        except redis.ConnectionError:
            return False

    def is_master(self) -> bool:
        try:
            return bool(self.admin.role()[0] == b"master")
        except redis.RedisError:
            return False

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP: connections stay and nothing answers; SIGCONT: it goes on."""
        assert self.process is not None, "it does not run"
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self.admin.close()


def _served(region: str, nodes: tuple[str, ...]) -> list[str]:
    """What is in the configuration of each server that keeps the region's index."""
    return [
        'save ""',
        "appendonly no",
        "maxmemory 256mb",
        "repl-diskless-sync-delay 0",
        "user default off",
        f"user admin on >{_ADMIN} ~* &* +@all",
        f"masterauth {_ADMIN}",
        "masteruser admin",
        *(f"user {acl(region, node, RedisServer.password(node))}" for node in nodes),
    ]


class RedisSet:
    """Servers of one region, one of which is the master; `place` is what nodes are told, `watchers` are sentinels."""

    def __init__(
        self, region: str, servers: list[Member], place: dict[str, Any], watchers: Sequence[Member] = ()
    ) -> None:
        self.prefix = f"wc:{{{region}}}:"
        self.servers = servers
        self.watchers = watchers
        self.place = place

    def key(self, name: str) -> str:
        return self.prefix + name

    @property
    def master(self) -> Member:
        """The one that takes writes of the region's keys now; an AssertionError while there is none."""
        for server in self.servers:
            with contextlib.suppress(redis.RedisError):
                if server.is_master():
                    server.admin.exists(self.key("epoch"))
                    return server
        raise AssertionError("no server is the region's master")

    def kill_master(self) -> Member:
        killed = self.master
        killed.kill()
        return killed

    def wait_until_led_by_another(self, than: Member, within_s: float = 20.0) -> Member:
        """Until there is a master that is not `than`."""

        def led() -> bool:
            with contextlib.suppress(AssertionError):
                return self.master is not than
            return False

        wait_until(led, "another server is the region's master", within_s=within_s)
        return self.master


@contextlib.contextmanager
def _folder() -> Iterator[tuple[Path, list[Member]]]:
    """A place for servers; those put into the list are gone afterwards."""
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server on the PATH")
    made: list[Member] = []
    with tempfile.TemporaryDirectory(prefix="edgepop-redis-") as name:
        try:
            yield Path(name), made
        finally:
            for member in made:
                member.kill()


@contextlib.contextmanager
def alone(region: str, nodes: tuple[str, ...]) -> Iterator[RedisSet]:
    """One server on a port, for nodes whose children are other users than the tests."""
    with _folder() as (folder, made):
        made.append(Member(folder, "server-0", *_served(region, nodes)))
        made[0].start()
        yield RedisSet(region, made, {"url": f"redis://{made[0].address}"})


@contextlib.contextmanager
def sentinel_set(region: str, nodes: tuple[str, ...]) -> Iterator[RedisSet]:
    """A master, two replicas and three sentinels that call it by the region's name."""
    with _folder() as (folder, made):
        lines = _served(region, nodes)
        servers = [Member(folder, "server-0", *lines)]
        servers += [
            Member(folder, f"server-{number}", *lines, f"replicaof 127.0.0.1 {servers[0].port}")
            for number in (1, 2)
        ]
        watch = [
            f"sentinel monitor {region} 127.0.0.1 {servers[0].port} 2",
            f"sentinel auth-user {region} admin",
            f"sentinel auth-pass {region} {_ADMIN}",
            f"sentinel down-after-milliseconds {region} {GIVEN_UP_MS}",
            f"sentinel failover-timeout {region} 6000",
        ]
        sentinels = [Member(folder, f"sentinel-{number}", *watch, sentinel=True) for number in range(3)]
        made += [*servers, *sentinels]
        for member in made:
            member.start()

        def whole() -> bool:
            known = [one.admin.sentinel_master(region) for one in sentinels]
            return all((one["num-slaves"], one["num-other-sentinels"]) == (2, 2) for one in known)

        wait_until(whole, "the sentinels know all servers and each other", within_s=20)
        place = {"sentinels": tuple(one.address for one in sentinels), "master": region}
        yield RedisSet(region, servers, place, sentinels)


@contextlib.contextmanager
def cluster(region: str, nodes: tuple[str, ...]) -> Iterator[RedisSet]:
    """Three masters that share the slots, and a replica of each."""
    if shutil.which("redis-cli") is None:
        pytest.skip("needs redis-cli on the PATH, to make a cluster")
    with _folder() as (folder, made):
        lines = [*_served(region, nodes), "cluster-enabled yes", f"cluster-node-timeout {GIVEN_UP_MS}"]
        made += [Member(folder, f"server-{number}", *lines) for number in range(6)]
        for member in made:
            member.start()
        addresses = [member.address for member in made]
        options = ["--cluster-replicas", "1", "--cluster-yes", "--user", "admin", "--pass", _ADMIN]
        told = subprocess.run(
            ["redis-cli", "--no-auth-warning", "--cluster", "create", *addresses, *options],
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert told.returncode == 0, told.stdout + told.stderr
        wait_until(
            lambda: (
                all(_info(one)["cluster_state"] == "ok" for one in made)
                and sum(one.is_master() for one in made) == 3
            ),
            "the cluster is whole: three masters, three replicas",
            within_s=20,
        )
        yield RedisSet(region, made, {"cluster": tuple(addresses[:3])})


def _info(member: Member) -> Any:
    return member.admin.execute_command("CLUSTER INFO")
