"""Handles for scripts and tests: a city's user, a node's processes, a POP, this machine as a user.

A test reads as a sentence with them: `lab.city("ber").wait_until_served_by("ams", within_ms=2500)`.
They act on the lab from outside, as users and accidents do; they know nothing of how it is made.
"""

import http.client
import os
import signal
import socket
import statistics
import subprocess
from pathlib import Path
from typing import Any, Final

import msgspec

from netlab import birdctl, names, netns, probe, state, supervise, watch
from netlab.clock import DeadlineMissed, wait_until
from netlab.probe import Answer
from netlab.supervise import Process
from netlab.topology import City, Node, Pop, Topology

#: Programs in a node's namespace that popctl did not start.
_GUESTS: Final = ("bird", "redis", "visitor")
#: How long one attempt to connect may take before it is tried again.
ATTEMPT_S = 1.0


class User:
    """Somebody who calls the anycast address from a namespace."""

    def __init__(self, topology: Topology, ns: str, name: str) -> None:
        self.topology = topology
        self.ns = ns
        self.name = name

    def vip(self, family: int) -> str:
        """The anycast address; `family` is 4 or 6."""
        return str(self.topology.vip4 if family == 4 else self.topology.vip6)

    def get(self, path: str, *, family: int = 4, timeout_s: float = 10.0, **headers: str) -> Answer:
        """GET from the anycast address; `edge_session="x"` becomes the header Edge-Session."""
        return self.request("GET", path, family=family, timeout_s=timeout_s, headers=_headers(headers))

    def post(
        self, path: str, body: bytes | str, *, family: int = 4, timeout_s: float = 30.0, **headers: str
    ) -> Answer:
        """POST to the anycast address."""
        data = body.encode() if isinstance(body, str) else body
        words = _headers(headers)
        return self.request("POST", path, body=data, family=family, timeout_s=timeout_s, headers=words)

    def request(self, method: str, path: str, *, family: int = 4, **rest: Any) -> Answer:
        """One request on a connection of its own. Raises OSError or http.client.HTTPException."""
        return probe.request(self.ns, self.vip(family), method, path, **rest)

    def connect(self, *, family: int = 4, timeout_s: float = 5.0) -> socket.socket:
        """A TCP connection to the anycast address, for speaking raw bytes."""
        return probe.connect(self.ns, self.vip(family), 80, timeout_s)[0]

    def connect_ms(self, *, family: int = 4, times: int = 20) -> float:
        """Median time of a TCP handshake with the anycast address."""
        seen = []
        for _ in range(times):
            wire, took_ms = probe.connect(self.ns, self.vip(family), 80, 5.0)
            wire.close()
            seen.append(took_ms)
        return statistics.median(seen)

    def served_by(self, *, family: int = 4) -> str:
        """The POP that answers GET /pop now, or what went wrong in parentheses."""
        try:
            return self.get("/pop", family=family, timeout_s=ATTEMPT_S).pop
        except (OSError, http.client.HTTPException) as error:
            return f"({type(error).__name__})"

    def wait_until_served_by(self, pop: str, *, within_ms: float, family: int = 4) -> float:
        """How many ms passed until a whole answer to GET /pop came from `pop`. Raises DeadlineMissed."""
        line = f"\npop: {pop}\n".encode()

        def wanted(answer: bytes) -> bool:
            return line in answer.replace(b"\r\n", b"\n")

        seen = watch.watch(self.ns, self.vip(family), 80, "/pop", wanted, within_ms / 1000)
        if seen.after_s is None:
            raise DeadlineMissed(
                f"{self.name} was not served by {pop} within {within_ms:.0f} ms (IPv{family}); "
                f"last of {seen.attempts} answers: {seen.last}"
            )
        return seen.after_s * 1000


def _headers(words: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-").title(): value for name, value in words.items()}


class CityHandle(User):
    """A user in a city."""

    def __init__(self, topology: Topology, city: City) -> None:
        super().__init__(topology, names.city(city.name), city.name)
        self.city = city


class HostHandle(User):
    """This machine as a user. Refuses to speak when the way to the VIP is not the lab's."""

    def __init__(self, topology: Topology) -> None:
        super().__init__(topology, names.HOST, "this machine")

    def source(self, family: int = 4) -> str:
        """The address that the kernel would use towards the VIP; nothing is sent."""
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with socket.socket(kind, socket.SOCK_DGRAM) as wire:
            wire.connect((self.vip(family), 80))
            return str(wire.getsockname()[0])

    def request(self, method: str, path: str, *, family: int = 4, **rest: Any) -> Answer:
        """As for any user, after a look at the route."""
        self._check(family)
        return super().request(method, path, family=family, **rest)

    def connect(self, *, family: int = 4, timeout_s: float = 5.0) -> socket.socket:
        """As for any user, after a look at the route."""
        self._check(family)
        return super().connect(family=family, timeout_s=timeout_s)

    def _check(self, family: int) -> None:
        link = self.topology.host
        wanted = str(link.host4 if family == 4 else link.host6)
        if (source := self.source(family)) != wanted:
            way = f"the way to {self.vip(family)}"
            raise ConnectionError(f"{way} is not the lab's (source {source}, not {wanted})")


class Member(msgspec.Struct, frozen=True):
    """One process of a node: what it is there for, its pid, and its name (`worker-0`)."""

    role: str
    pid: int
    name: str = ""


class NodeHandle:
    """A node's processes, seen and hit from outside."""

    def __init__(self, topology: Topology, node: Node, parent: Process | None) -> None:
        self.topology = topology
        self.node = node
        self.name = node.name
        self.ns = names.node(node.name)
        self.home = state.node_home(node.name)
        self._parent = parent

    def members(self) -> list[Member]:
        """Every living process of the node: parent, proxy, weights, worker, ... BIRD, a Redis."""
        parent = self._started
        found = supervise.find({netns.inode(self.ns)}, known=[parent] if parent is not None else [])
        members = [_member(pid, parent.pid if parent is not None else 0) for pid in sorted(found)]
        return [member for member in members if member is not None]

    def pids(self, *roles: str) -> list[int]:
        """Pids of these roles or names; without any, of the node but its BIRD, its Redis and visitors."""

        def wanted(member: Member) -> bool:
            return bool({member.role, member.name} & set(roles)) if roles else member.role not in _GUESTS

        return [member.pid for member in self.members() if wanted(member)]

    def kill(self, *roles: str) -> list[int]:
        """kill -9 these (`parent`, `proxy`, `worker`, `worker-0`, ...); without any, the node."""
        return self.signal(signal.SIGKILL, *roles)

    def signal(self, number: signal.Signals, *roles: str) -> list[int]:
        """Send a signal to the processes of these roles, and say who got it; SIGCONT thaws after SIGSTOP."""
        hit = []
        for pid in self.pids(*roles):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue  # it ended since it was seen
            hit.append(pid)
        return hit

    @property
    def up(self) -> bool:
        """Whether its parent lives."""
        parent = self._started
        return parent is not None and supervise.alive(parent)

    def end(self) -> None:
        """kill -9 of whatever is left of it, and wait until nothing is. Raises DeadlineMissed."""

        def gone() -> bool:
            return not self.kill()  # again and again: a parent may have started a child meanwhile

        wait_until(gone, f"{self.name} is dead", within_s=5)

    def restart(self, within_s: float = 30.0, **environment: str) -> "NodeHandle":
        """Start the node again after it was killed. Raises ProgramFailedError, or KeyError without a lab."""
        ready = self.home / "run" / "ready"
        with state.changing("restart a node of") as change:
            remembered = state.read()
            program = remembered.program if remembered is not None else ()
            ready.unlink(missing_ok=True)
            command = [*program, "-c", str(self.home / "node.yaml")]
            env = supervise.environment(str(state.ROOT)) | environment
            process = change(supervise.start(self.name, self.ns, command, state.log_of(self.name), env))
        supervise.wait_until_ready(process, ready, within_s)
        return NodeHandle(self.topology, self.node, process)

    def redis_password(self) -> str:
        """What it logs into its region's Redis with."""
        return (self.home / "redis.password").read_text(encoding="utf-8").strip()

    def get(self, path: str, *, timeout_s: float = 10.0) -> Answer:
        """GET from the node's unicast address, from its own router."""
        router = names.router(self.node.pop)
        return probe.request(router, str(self.node.v4), "GET", path, timeout_s=timeout_s)

    @property
    def admin_socket(self) -> Path:
        """Where its operator asks."""
        return self.home / "run" / "admin.sock"

    def admin(self, method: str, path: str) -> Answer:
        """One request to the operator's plane over the node's own UNIX socket."""
        return probe.ask_unix(str(self.admin_socket), method, path)

    def withdraw(self) -> None:
        """Stop attracting clients, as `popctl withdraw` does."""
        self._told("/edge/withdraw")

    def announce(self) -> None:
        """Attract clients again, as `popctl announce` does."""
        self._told("/edge/announce")

    def popctl(self, *arguments: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run `popctl` for this node, inside its namespace: `popctl("models", "ls", "--json")`."""
        command = [supervise.python(), "-m", "edge.cli", *arguments, "-c", str(self.home / "node.yaml")]
        env = supervise.environment(str(state.ROOT))
        return netns.inside(
            self.ns,
            lambda: subprocess.run(
                command, env=env, cwd="/", capture_output=True, text=True, timeout=timeout_s, check=False
            ),
        )

    def drain(self) -> None:
        """Finish what runs and take nothing new, as `popctl drain` does."""
        self._commanded("drain")

    def undrain(self) -> None:
        """Take requests again, as `popctl undrain` does."""
        self._commanded("undrain")

    def held(self, order: str) -> bool:
        """Whether its operator's order, "drained" or "withdrawn", still holds."""
        return (self.home / "run" / order).exists()

    def _commanded(self, *arguments: str) -> None:
        done = self.popctl(*arguments)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: popctl {' '.join(arguments)}: {done.stderr.strip()}")

    def _told(self, path: str) -> None:
        answer = self.admin("POST", path)
        if answer.status != 200:
            raise RuntimeError(f"{self.name}: POST {path}: {answer.status} {answer.text}")

    def announced(self) -> list[str]:
        """The anycast addresses that its BIRD sees on the marker now."""
        try:
            lines = birdctl.ask(state.bird_control(self.name), "show route protocol lease")
        except birdctl.BirdError:
            return []
        return [word.split("/")[0] for line in lines for word in line.split()[:1] if "/" in word]

    def status(self) -> dict[str, Any]:
        """What `poplab status` says about it."""
        up = self.up
        ready = up and (self.home / "run" / "ready").exists()
        return {
            "node": self.name,
            "address": str(self.node.v4),
            "ingress": self.node.ingress,
            "workers": self.node.workers,
            "state": "ready" if ready else "starting" if up else "down",
            "announced": self.announced() if self.node.ingress else [],
        }

    @property
    def _started(self) -> Process | None:
        """Its parent as it was started last, by whomever."""
        return state.process(self.name) or self._parent


class PopHandle:
    """The nodes of a POP together."""

    def __init__(self, pop: Pop, nodes: tuple[NodeHandle, ...]) -> None:
        self.pop = pop
        self.nodes = nodes

    @property
    def ingress(self) -> tuple[NodeHandle, ...]:
        """The nodes that announce."""
        return tuple(handle for handle in self.nodes if handle.node.ingress)

    def withdraw(self) -> None:
        """Every ingress node stops attracting clients."""
        for node in self.ingress:
            node.withdraw()

    def announce(self) -> None:
        """Every ingress node attracts clients again."""
        for node in self.ingress:
            node.announce()


def _member(pid: int, parent: int) -> Member | None:
    """What a process is there for, by its command line; None when it is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        if f"{names.VISITOR}=".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return Member("visitor", pid)
    except OSError:
        return None
    role = "parent" if pid == parent else _role(words)
    # popctl's children say whose they are: --of fra-a/worker-0
    of = words[words.index("--of") + 1] if "--of" in words[:-1] else ""
    return Member(role, pid, of.partition("/")[2] or role)


def _role(words: list[str]) -> str:
    if "bird" in Path(words[0]).name:
        return "bird"
    if Path(words[0]).name.startswith("redis-server"):
        return "redis"
    if "edge.parent.child" in words:
        return words[words.index("edge.parent.child") + 1]
    if "edge.parent.guard" in words:
        return "guard"
    return Path(words[0]).name
