"""A node that announces in a network namespace of its own, and a look at what the kernel carries there."""

import contextlib
import ctypes
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge.weights.manifest import Catalogue, encode_catalogue
from netlab.clock import now_ms, wait_until
from tests.support.node import Node, open_directory, running_node

V4, V6 = "198.51.100.1", "fd5e:ed9e::1"
CLONE_NEWNET = 0x40000000
ANNOUNCE = f"announce: {{interface: ann0, addresses: [{V4}, '{V6}']}}\n"
PUBLIC = f"public:\n  listen: ['{V4}:80', '[{V6}]:80']\n"
libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(namespace: int) -> Iterator[None]:
    """This thread, and what it starts, in another network namespace."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        assert libc.setns(namespace, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0
        os.close(home)


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def scratch() -> Iterator[int]:
    """A namespace of our own with a marker interface; it is gone with its last process."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    assert libc.unshare(CLONE_NEWNET) == 0
    try:
        fd = os.open("/proc/self/ns/net", os.O_RDONLY)
        ip("link", "set", "lo", "up")
        ip("link", "add", "ann0", "type", "veth", "peer", "name", "ann0-peer")
        ip("link", "set", "ann0", "up")
        ip("link", "set", "ann0-peer", "up")
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0
        os.close(home)
    yield fd
    os.close(fd)


def addresses(namespace: int) -> dict[str, dict[str, object]]:
    """What ann0 carries, link-local aside."""
    with inside(namespace):
        (link,) = json.loads(ip("-j", "address", "show", "dev", "ann0"))
    return {info["local"]: info for info in link["addr_info"] if info["scope"] == "global"}


class Watch:
    """The VIPs as the kernel of the namespace has them, read without starting a program."""

    def __init__(self, pid: int) -> None:
        self._net = Path(f"/proc/{pid}/net")

    def seen(self) -> frozenset[str]:
        v4 = V4 in (self._net / "fib_trie").read_text()
        v6 = "fd5eed9e000000000000000000000001" in (self._net / "if_inet6").read_text()
        return frozenset([V4] * v4 + [V6] * v6)

    def both(self, *, within_s: float) -> float:
        return self._until(frozenset([V4, V6]), within_s)

    def none(self, *, within_s: float) -> float:
        """Milliseconds until both are gone."""
        return self._until(frozenset(), within_s)

    def _until(self, wanted: frozenset[str], within_s: float) -> float:
        started_ms = now_ms()
        wait_until(
            lambda: self.seen() == wanted,
            f"the VIPs are {set(wanted) or 'gone'}",
            within_s=within_s,
            every_s=0.002,
        )
        return now_ms() - started_ms

    def stays_away(self, for_ms: float) -> None:
        started_ms = now_ms()
        wait_until(
            lambda: self.seen() or now_ms() - started_ms > for_ms, "time passes", within_s=30, every_s=0.005
        )
        assert not self.seen()

    def stays_there(self, for_ms: float) -> None:
        """Fails when one of them goes meanwhile."""
        started_ms, whole = now_ms(), frozenset([V4, V6])
        wait_until(
            lambda: self.seen() != whole or now_ms() - started_ms > for_ms,
            "time passes",
            within_s=30,
            every_s=0.002,
        )
        assert self.seen() == whole


@contextlib.contextmanager
def announcing(
    namespace: int, *, workers: Sequence[str] = (), extra: str = ""
) -> Iterator[tuple[Node, Watch]]:
    """A node, ready and announced; what `Watch` sees outlives it."""
    with contextlib.ExitStack() as stack:
        # A catalogue without models: a proxy that finds none would wait for it.
        origin = stack.enter_context(open_directory())
        (origin / "catalog.json").write_bytes(encode_catalogue(Catalogue(epoch=1, models={})))
        with inside(namespace):
            node = stack.enter_context(
                running_node(origin=f"file://{origin}/", workers=workers, extra=ANNOUNCE + PUBLIC + extra)
            )
        holder = subprocess.Popen(
            ["nsenter", f"--net=/proc/{node.process.pid}/ns/net", "sleep", "300"], start_new_session=True
        )
        stack.callback(holder.wait)
        stack.callback(holder.kill)
        inode = Path(f"/proc/{node.process.pid}/ns/net").readlink()
        wait_until(lambda: Path(f"/proc/{holder.pid}/ns/net").readlink() == inode, "entered", within_s=5)
        watch = Watch(holder.pid)
        watch.both(within_s=20)
        yield node, watch
