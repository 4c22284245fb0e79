"""Every listening socket of a node, opened once and kept for the parent's whole life.

A child is handed the descriptors; when it dies its successor gets the same ones, and
clients wait in the backlog meanwhile. What is spoken on them is not known here.
"""

import asyncio
import errno
import fcntl
import ipaddress
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from edge import clock
from edge.config import NodeConfig, host_port

#: The kernel caps it at net.core.somaxconn.
BACKLOG: Final = 4096
#: How long a parent waits for an address that the children of a killed predecessor still hold.
BIND_PATIENCE_S: Final = 5.0
BIND_RETRY_S: Final = 0.1
#: From linux/in.h and linux/in6.h; this Python has no names for them.
IP_FREEBIND, IPV6_FREEBIND = 15, 78
#: Between nodes, segments fit a packet of 1280 bytes, the least that IPv6 allows: some path between two POPs
#: carries less than both ends think and tells nobody, and then a large packet is lost again and again. The
#: listener says it for both ends (RFC 9293, 3.7.1: the MSS option).
MESH_SEGMENT_BYTES: Final = 1280 - 40 - 20


class ListenError(Exception):
    """A listening socket can't be opened; the text names the setting, the address and the way out.

    `missing_right` is True when it is a right that is missing.
    """

    def __init__(self, message: str, *, missing_right: bool = False) -> None:
        super().__init__(message)
        self.missing_right = missing_right


@dataclass
class Listeners:
    """The open sockets by plane."""

    public: list[socket.socket] = field(default_factory=list)
    mesh: socket.socket | None = None
    admin: list[socket.socket] = field(default_factory=list)
    weights: socket.socket | None = None
    blobs: socket.socket | None = None
    workers: list[socket.socket] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)

    def close(self) -> None:
        """Close all and remove the sockets' files."""
        for path in self.paths:
            path.unlink(missing_ok=True)
        for opened in (*self.public, self.mesh, *self.admin, self.weights, self.blobs, *self.workers):
            if opened is not None:
                opened.close()


async def open_listeners(config: NodeConfig, *, root: bool) -> Listeners:
    """All sockets of the node, or none. Raises ListenError; waits up to 5 s for a busy address.

    Call it with run_dir claimed: files of sockets that lie there are taken for a dead predecessor's.
    """
    opened = Listeners()
    patient_until_s = clock.now_s() + BIND_PATIENCE_S
    run_dir = Path(config.run_dir)

    def unix(name: str, mode: int, owner: tuple[int, int]) -> socket.socket:
        path = run_dir / name
        listener = _unix(path, mode, owner if root else None)
        opened.paths.append(path)
        return listener

    async def tcp(setting: str, address: str, *, free: bool = False, mesh: bool = False) -> socket.socket:
        listener = await _patiently(lambda: _tcp(setting, address, free=free), patient_until_s)
        if mesh:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, MESH_SEGMENT_BYTES)
        return listener

    try:
        for index, address in enumerate(config.public.listen):
            opened.public.append(await tcp(f"public.listen.{index}", address, free=True))
        if config.mesh is not None:
            opened.mesh = await tcp("mesh.listen", config.mesh.listen, mesh=True)
        if config.weights.blobs:
            opened.blobs = await tcp("weights.blobs", config.weights.blobs, mesh=True)
        proxy = config.users.proxy
        opened.admin.append(unix("admin.sock", 0o660, (0, proxy)))
        if config.admin.listen:
            opened.admin.append(await tcp("admin.listen", config.admin.listen))
        opened.weights = unix("weights.sock", 0o600, (proxy, proxy))
        for index in range(len(config.workers)):
            opened.workers.append(unix(f"worker-{index}.sock", 0o600, (proxy, proxy)))
    except BaseException:
        opened.close()
        raise
    return opened


class _BusyError(ListenError):
    """Somebody else listens there; it may pass."""


async def _patiently(bind: Callable[[], socket.socket], until_s: float) -> socket.socket:
    while True:
        try:
            return bind()
        except _BusyError:
            if clock.now_s() >= until_s:
                raise
        await asyncio.sleep(BIND_RETRY_S)


def _tcp(setting: str, address: str, *, free: bool) -> socket.socket:
    """A listener; `free` binds an address that the machine may not have yet, as an anycast one."""
    host, port = host_port(address)
    version = ipaddress.ip_address(host).version
    listener = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version == 6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if free and version == 6:
            listener.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        elif free:
            listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _explain(setting, address, error) from error
    return listener


def _explain(setting: str, address: str, error: OSError) -> ListenError:
    at = f"{setting}: can't listen on {address}: "
    if error.errno == errno.EADDRINUSE:
        return _BusyError(f"{at}another program does; stop it (ss -ltnp shows it) or write another port")
    if error.errno in (errno.EACCES, errno.EPERM):
        right = "ports below 1024 take root or CAP_NET_BIND_SERVICE"
        return ListenError(f"{at}{right}; or write a higher port", missing_right=True)
    if error.errno == errno.EADDRNOTAVAIL:
        return ListenError(f"{at}no interface of this machine has it; write one that `ip addr` shows")
    return ListenError(f"{at}{error.strerror}")


def _unix(path: Path, mode: int, owner: tuple[int, int] | None) -> socket.socket:
    """A listener at a path, never connectable by more than it says: the umask closes it until then."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.setblocking(False)
        listener.bind(str(path))
        listener.listen(BACKLOG)
        if owner is not None:
            os.chown(path, *owner)
        path.chmod(mode)
    except OSError as error:
        listener.close()
        raise ListenError(f"run_dir: can't listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return listener


def claim_run_dir(run_dir: Path) -> IO[str]:
    """The node's directory, ours alone while the returned file is open.

    Raises ListenError when a parent already runs there.
    """
    try:
        run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        run_dir.chmod(0o755)
        lock = (run_dir / "lock").open("w")
    except OSError as error:
        raise ListenError(
            f"run_dir: can't use {run_dir}: {error.strerror}; write a directory that this user may create",
            missing_right=error.errno in (errno.EACCES, errno.EPERM),
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ListenError(
            f"run_dir: a node already runs in {run_dir}; stop it, or write another run_dir"
        ) from error
    return lock
