"""Namespaces a, b, c on one segment of a real switch, and a second cable of a and b, which is a wire."""

import ctypes
import json
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from netlab.clock import now_ms

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
LAN = ("a", "b", "c")


def ip(lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True, capture_output=True)


def mac(name: str) -> str:
    return f"02:00:00:00:00:0{1 + LAN.index(name)}"


class World:
    """The scratch namespaces, and the switch that joins them."""

    def __init__(self, prefix: str, directory: Path) -> None:
        self.prefix = prefix
        self.control = directory / "wan.sock"
        self.config = directory / "wan.json"
        self.log = directory / "wan.log"
        self.switch: subprocess.Popen[bytes] | None = None

    def ns(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def build(self) -> None:
        names = [self.ns(name) for name in (*LAN, "w")]
        ip("".join(f"netns add {name}\n" for name in names))
        for number, name in enumerate(LAN, 1):
            self.cable(name, f"w-{name}", "lan", mac(name), f"10.77.0.{number}/24", f"fd77::{number}/64")
        self.cable("a", "x-a", "wire", "02:00:00:00:01:01", "10.78.0.1/24", "fd78::1/64")
        self.cable("b", "x-b", "wire", "02:00:00:00:01:02", "10.78.0.2/24", "fd78::2/64")
        one_way = {f"w-{a}": {f"w-{b}": 0 for b in LAN if b != a} for a in LAN}
        lan = {
            "ports": list(one_way),
            "macs": {f"w-{name}": mac(name) for name in LAN},
            "one_way_ms": one_way,
        }
        wires = [{"a": "x-a", "b": "x-b", "one_way_ms": 0}]
        self.config.write_text(json.dumps({"control": str(self.control), "lan": lan, "wires": wires}))

    def cable(self, name: str, port: str, device: str, address: str, v4: str, v6: str) -> None:
        far, near = self.ns(name), self.ns("w")
        ip(f"link add {device} netns {far} address {address} type veth peer name {port} netns {near}\n")
        for line in (
            f"link set {device} up",
            f"addr add {v4} dev {device}",
            f"addr add {v6} dev {device} nodad",
        ):
            subprocess.run(["ip", "-n", far, *line.split()], check=True, capture_output=True)
        self.link(port, "up")

    def ip(self, name: str, *words: str) -> None:
        subprocess.run(["ip", "-n", self.ns(name), *words], check=True, capture_output=True)

    def link(self, port: str, *verb: str) -> None:
        subprocess.run(
            ["ip", "-n", self.ns("w"), "link", "set", port, *verb], check=True, capture_output=True
        )

    def start(self) -> None:
        with self.log.open("wb") as log:
            self.switch = subprocess.Popen(
                [
                    "ip",
                    "netns",
                    "exec",
                    self.ns("w"),
                    sys.executable,
                    "-m",
                    "netlab.wan",
                    "--config",
                    self.config,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
            )
        assert self.switch.stdout is not None
        assert self.switch.stdout.readline() == b"ready\n", self.log.read_text()

    def stop(self) -> int:
        assert self.switch is not None
        assert self.switch.stdout is not None
        self.switch.send_signal(signal.SIGTERM)
        try:
            return self.switch.wait(5)
        finally:
            self.switch.kill()
            self.switch.wait()
            self.switch.stdout.close()

    def destroy(self) -> None:
        for name in (*LAN, "w"):
            subprocess.run(["ip", "netns", "del", self.ns(name)], check=False, capture_output=True)

    def inside(self, name: str, work: Callable[[], T]) -> T:
        """Run in a thread that lives in the namespace; sockets made there stay there."""

        def body() -> T:
            with Path(f"/run/netns/{self.ns(name)}").open() as handle:
                if LIBC.setns(handle.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return work()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(body).result()

    def listen(self, name: str, address: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return self.inside(name, lambda: socket.create_server((address, 0), family=family, backlog=64))

    def dial(self, name: str, server: socket.socket) -> tuple[socket.socket, float]:
        """A connection from that namespace, and how long its handshake took in ms."""

        def work() -> tuple[socket.socket, float]:
            client = socket.socket(server.family, socket.SOCK_STREAM)
            client.settimeout(10)
            before_ms = now_ms()
            client.connect(server.getsockname())
            return client, now_ms() - before_ms

        return self.inside(name, work)

    def handshake_ms(self, name: str, server: socket.socket, times: int = 20) -> float:
        """Median over `times` connections, after one that pays for neighbour discovery."""
        self.dial(name, server)[0].close()
        took = []
        for _ in range(times):
            client, one_ms = self.dial(name, server)
            client.close()
            took.append(one_ms)
        return statistics.median(took)

    def ask(self, **request: Any) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.raw(json.dumps(request).encode() + b"\n"))
        return said

    def raw(self, line: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as desk:
            desk.settimeout(5)
            desk.connect(str(self.control))
            desk.sendall(line)
            with desk.makefile("rb") as reader:
                return reader.readline()

    def set(self, origin: str, to: str, **wishes: Any) -> None:
        said = self.ask(op="set", **{"from": origin}, to=to, **wishes)
        assert said.get("ok"), said

    def reset(self, *pairs: tuple[str, str]) -> None:
        for origin, to in pairs:
            assert self.ask(op="reset", **{"from": origin}, to=to)["ok"]

    def set_rtt(self, one: str, other: str, rtt_ms: float) -> None:
        for origin, to in ((one, other), (other, one)):
            assert self.ask(op="set", **{"from": origin}, to=to, one_way_ms=rtt_ms / 2)["ok"]

    def pair(self, origin: str, to: str) -> dict[str, Any]:
        return next(p for p in self.ask(op="stats")["pairs"] if (p["from"], p["to"]) == (origin, to))

    def port_state(self, name: str) -> str:
        return str(self.ask(op="stats")["ports"][name]["state"])


@contextmanager
def running(prefix: str, directory: Path) -> Iterator[World]:
    """A world with its switch; the switch must end well, and nothing of it stays."""
    made = World(prefix, directory)
    try:
        made.build()
        made.start()
        yield made
        assert made.stop() == 0, made.log.read_text()
        assert not made.control.exists()
    finally:
        if made.switch is not None and made.switch.poll() is None:
            made.stop()
        made.destroy()
