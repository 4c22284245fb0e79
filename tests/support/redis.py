"""A real redis-server of the tests' own, on a UNIX socket, and everything that may befall it.

Configured as a region's Redis is: nothing persists, no default user, one user per node
that may do what `edge.weights.index` says and no more. `admin` may do everything.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis

from edge import clock

READS = "scan type getrange pttl hget hlen hgetall hstrlen scard sscan xrange xread xinfo|stream"
WRITES = "set del pexpire hset hdel sadd srem spop xadd"
COMMANDS = f"eval eval_ro evalsha evalsha_ro {READS} {WRITES}".split()
_ADMIN = "the tests themselves"
_START_S = 10.0


def acl(region: str, node: str, password: str) -> str:
    """The ACL rule of one node, as in `user <this>`."""
    prefix = f"wc:{{{region}}}:"
    own = ("epoch", "ev", "loc:*", "lease:*", "have:*", "node:*", f"alive:{node}")
    keys = " ".join([f"%R~{prefix}*", *(f"~{prefix}{key}" for key in own)])
    return f"{node} on >{password} resetchannels {keys} -@all {' '.join('+' + name for name in COMMANDS)}"


class Place(Protocol):
    """Somewhere a node finds the region's Redis, in the words of `weights.index`."""

    place: dict[str, Any]


class RedisServer:
    """One server in a directory of its own. Its data is gone whenever it is started, save after `restore`."""

    def __init__(self, region: str, nodes: tuple[str, ...]) -> None:
        self.region = region
        self.prefix = f"wc:{{{region}}}:"
        self._dir = Path(tempfile.mkdtemp(prefix="edgepop-redis-"))
        self.socket = self._dir / "s"
        self.url = f"unix://{self.socket}"
        #: Where nodes are told to look for it, in the words of `weights.index`.
        self.place: dict[str, Any] = {"url": self.url}
        users = [f"user {acl(region, node, self.password(node))}" for node in nodes]
        config = [
            "port 0",
            f"unixsocket {self.socket}",
            f"dir {self._dir}",
            'save ""',
            "appendonly no",
            "maxmemory 256mb",
            "maxmemory-policy noeviction",
            "proto-max-bulk-len 4mb",
            "logfile redis.log",
            "user default off",
            f"user admin on #{_sha256(_ADMIN)} ~* &* +@all",
            *users,
        ]
        (self._dir / "redis.conf").write_text("\n".join(config) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.admin = redis.Redis(
            unix_socket_path=str(self.socket),
            username="admin",
            password=_ADMIN,
            protocol=2,
            socket_timeout=10,
        )

    @staticmethod
    def password(node: str) -> str:
        return f"secret-of-{node}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def key(self, name: str) -> str:
        return self.prefix + name

    # --- its life

    def start(self) -> None:
        """Empty, or as the dump says that `restore` laid in its way; and answering."""
        self._process = subprocess.Popen(["redis-server", str(self._dir / "redis.conf")])
        deadline = clock.now_s() + _START_S
        while True:
            try:
                self.admin.ping()
            except redis.ConnectionError:
                assert self._process.poll() is None, (self._dir / "redis.log").read_text()
                assert clock.now_s() < deadline, f"redis-server does not answer within {_START_S} s"
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.01)
            else:
                return

    def kill(self) -> None:
        """SIGKILL: its connections break, its data is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.admin.close()
        self.socket.unlink(missing_ok=True)
        (self._dir / "dump.rdb").unlink(missing_ok=True)

    def dump(self) -> None:
        """Keep a copy of all that it knows, for a later `restore`."""
        self.admin.save()
        (self._dir / "dump.rdb").rename(self._dir / "kept.rdb")

    def restore(self) -> None:
        """Killed, and started again with what `dump` kept."""
        self.kill()
        shutil.copy(self._dir / "kept.rdb", self._dir / "dump.rdb")
        self.start()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._dir)

    # --- what may befall it

    def freeze(self) -> None:
        """Connections stay and new ones are accepted by the kernel, but nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def flush(self) -> None:
        self.admin.flushall()

    def flush_scripts(self) -> None:
        self.admin.script_flush()

    def read_only(self, yes: bool) -> None:
        """A replica of a master that is nowhere: it answers reads with what it had."""
        self.admin.execute_command("REPLICAOF", *(("127.0.0.1", "1") if yes else ("NO", "ONE")))

    def denied(self, node: str, *command: str) -> str:
        """What a node's own user is told when it tries that; "" when it was let."""
        client = redis.Redis(
            unix_socket_path=str(self.socket), username=node, password=self.password(node), protocol=2
        )
        with client:
            try:
                client.execute_command(*command)
            except redis.RedisError as error:
                return str(error)
        return ""


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def running(region: str, nodes: tuple[str, ...]) -> Iterator[RedisServer]:
    """A server that is gone afterwards."""
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server on the PATH")
    server = RedisServer(region, nodes)
    try:
        server.start()
        yield server
    finally:
        server.remove()
