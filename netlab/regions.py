"""A region seen from outside, and its Redis: start it, kill it, freeze it, empty it, ask it.

Each region has one redis-server in the namespace of one of its nodes. It refuses to know what
the index in it means, and how nodes use it.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from netlab import names, netns, redisconf, resp, state, supervise
from netlab.clock import DeadlineMissed, wait_until
from netlab.handles import NodeHandle
from netlab.node import REDIS_PORT, NodeFiles
from netlab.supervise import Process, ProgramFailedError
from netlab.topology import Region, Topology

#: Redis has no rights: it is somebody of its own, as a node's children are.
REDIS_UID: Final = 64_010


def missing() -> str:
    """Why this machine can't run a region's Redis, in one sentence; empty when it can."""
    program = shutil.which("redis-server")
    if program is None:
        return "Redis is not installed: apt-get install redis-server"
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    version = re.search(r"v=(\d+)\.(\d+)", told.stdout)
    if version is None or (int(version[1]), int(version[2])) < redisconf.MIN_VERSION:
        wanted = ".".join(map(str, redisconf.MIN_VERSION))
        return f"the lab needs Redis {wanted} or newer, and redis-server says {told.stdout.strip()[:80]!r}"
    return ""


def process_name(region: str) -> str:
    """What its Redis is called among the lab's programs and logs."""
    return f"redis-{region}"


def write_secret(path: Path, secret: str) -> None:
    """A file that root alone can read. Raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(secret + "\n")


def prepare(topology: Topology, region: Region, homes: Iterable[NodeFiles]) -> None:
    """Write redis.conf and the passwords: the lab's own, and one into the home of each node of the region."""
    home = state.redis_home(region.name)
    home.mkdir(mode=0o755, parents=True)
    passwords = {redisconf.ADMIN: secrets.token_urlsafe(24)}
    write_secret(_admin_password(region.name), passwords[redisconf.ADMIN])
    for files in homes:
        passwords[files.home.name] = secrets.token_urlsafe(24)
        write_secret(files.redis_password, passwords[files.home.name])
    conf = home / "redis.conf"
    conf.write_text(
        redisconf.redis_conf(region.name, topology.node(_node(region)).v4, REDIS_PORT, home, passwords)
    )
    os.chown(conf, 0, REDIS_UID)
    conf.chmod(0o640)


def start(region: Region, env: dict[str, str]) -> Process:
    """Start the region's Redis in the namespace of its node, from the redis.conf that `prepare` wrote."""
    name = process_name(region.name)
    command = ["redis-server", str(state.redis_home(region.name) / "redis.conf")]
    return supervise.start(name, names.node(_node(region)), command, state.log_of(name), env, uid=REDIS_UID)


def _node(region: Region) -> str:
    """The node where a region's Redis runs. Raises KeyError in a region without one."""
    if region.redis is None:
        raise KeyError(f"region {region.name} has no Redis: its planet says so")
    return region.redis


def _admin_password(region: str) -> Path:
    return state.redis_home(region) / "admin.password"


class RedisHandle:
    """A region's Redis. `process` is the one that was started last, alive or not."""

    def __init__(self, topology: Topology, region: Region, process: Process) -> None:
        self.region = region
        self.process = process
        self.address = str(topology.node(_node(region)).v4)
        self.port = REDIS_PORT

    @property
    def pid(self) -> int:
        """Its pid, or what its pid was."""
        return self.process.pid

    def kill(self) -> None:
        """kill -9: whoever connects is refused from now on, and all that it knew is lost."""
        self.signal(signal.SIGKILL)
        wait_until(lambda: not supervise.alive(self.process), f"{self.process.name} is dead", within_s=5)

    def start(self, within_s: float = 10.0) -> None:
        """Start it again, empty, with the users it had; nothing where it lives.

        Raises ProgramFailedError, or KeyError without a lab.
        """
        with state.changing("start a Redis of") as change:
            # Somebody else may have started it since this handle was made.
            self.process = state.process(self.process.name) or self.process
            if supervise.alive(self.process):
                return
            self.process = change(start(self.region, supervise.environment(str(state.ROOT))))
        self.wait_until_answers(within_s)

    def stop(self) -> None:
        """SIGSTOP: connections stay, and nothing is answered until `cont`."""
        self.signal(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT: it goes on where it was stopped."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        if supervise.alive(self.process):
            os.kill(self.process.pid, number)

    def cli(self, *words: str, timeout_s: float = 5.0) -> resp.Value:
        """One command as the lab's own user, who may everything: `cli("FLUSHALL")`.

        Raises resp.RedisError with Redis's own words, OSError where nobody answers.
        """
        password = _admin_password(self.region.name).read_text(encoding="utf-8").strip()
        return self.cli_as(redisconf.ADMIN, password, *words, timeout_s=timeout_s)

    def cli_as(self, user: str, password: str, *words: str, timeout_s: float = 5.0) -> resp.Value:
        """One command as somebody else. Raises as `cli`."""
        wire = netns.inside(names.node(_node(self.region)), _socket)
        with wire:
            wire.settimeout(timeout_s)
            wire.connect((self.address, self.port))
            return resp.ask(wire, user, password, words)

    def configured(self, name: str) -> str:
        """What its redis.conf says of a setting; empty where it says nothing."""
        lines = (state.redis_home(self.region.name) / "redis.conf").read_text(encoding="utf-8").splitlines()
        return next((line.partition(" ")[2] for line in lines if line.partition(" ")[0] == name), "")

    def wait_until_answers(self, within_s: float) -> None:
        """Until it answers PING. Raises ProgramFailedError with the end of its log."""

        def answers() -> bool:
            try:
                return self.cli("PING", timeout_s=1.0) == "PONG"
            except (OSError, resp.RedisError):
                return False

        def check() -> None:
            if not supervise.alive(self.process):
                raise self._failed("ended")

        try:
            wait_until(answers, f"{self.process.name} answers", within_s=within_s, check=check)
        except DeadlineMissed as missed:
            raise self._failed(f"did not answer within {within_s:.0f} s") from missed

    def _failed(self, how: str) -> ProgramFailedError:
        end = supervise.tail(self.process.log)
        return ProgramFailedError(f"{self.process.name} {how}; its log ends:\n{end}")

    def status(self) -> dict[str, Any]:
        """What `poplab status` says about it."""
        stat = supervise.read_stat(self.process.pid) if supervise.alive(self.process) else None
        return {
            "node": self.region.redis,
            "address": f"{self.address}:{self.port}",
            "pid": self.process.pid,
            "state": "down" if stat is None else "stopped" if stat.state in "Tt" else "up",
        }


def _socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


class RegionHandle:
    """The nodes of a region together, and the Redis that they share."""

    def __init__(
        self, topology: Topology, region: Region, nodes: tuple[NodeHandle, ...], process: Process | None
    ) -> None:
        self.topology = topology
        self.region = region
        self.name = region.name
        self.nodes = nodes
        self._process = process

    @property
    def redis(self) -> RedisHandle:
        """The region's Redis. Raises KeyError in a lab without one."""
        if self._process is None:
            raise KeyError(f"{self.name} has no Redis: its planet says so, or the lab is bare")
        return RedisHandle(self.topology, self.region, self._process)

    def status(self) -> dict[str, Any]:
        """What `poplab status` says about it; `redis` is None where there is none."""
        return {"region": self.name, "redis": self.redis.status() if self._process else None}
