"""Speak TCP and HTTP from inside a namespace, with the time each step took.

A socket belongs to the namespace of the thread that made it, so one process can be a user in
every city at once. It refuses to know whom it talks to and what an answer should say.
"""

import http.client
import socket
from typing import Any, Final

import msgspec

from netlab import names, netns
from netlab.clock import now_ms

MAX_ANSWER_BYTES: Final = 64 << 20


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP response. Header names are lower-case; `connect_ms` is the TCP handshake alone."""

    status: int
    headers: dict[str, str]
    body: bytes
    connect_ms: float
    total_ms: float

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)

    @property
    def lines(self) -> dict[str, str]:
        """`name: value` lines of the body, as GET /pop answers."""
        pairs = (line.split(":", 1) for line in self.text.splitlines() if ":" in line)
        return {name.strip(): value.strip() for name, value in pairs}

    @property
    def pop(self) -> str:
        """The POP where the request entered."""
        return self.headers.get("edge-pop") or self.lines.get("pop", "")

    @property
    def node(self) -> str:
        """The node where the request entered, as GET /pop says."""
        return self.lines.get("node", "")


def stream(ns: str, family: int) -> socket.socket:
    """A TCP socket for a thread that stands in `ns`; the host's is bound to the lab's cable.

    So nothing for the anycast address can leave by the host's default route when the lab goes down
    in between. Raises OSError where there is no cable.
    """
    wire = socket.socket(family, socket.SOCK_STREAM)
    if ns == names.HOST:
        try:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, names.HOST_LINK.encode())
        except OSError:
            wire.close()
            raise
    return wire


def connect(ns: str, address: str, port: int, timeout_s: float) -> tuple[socket.socket, float]:
    """A connected TCP socket of that namespace, and how long the handshake took in ms. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    wire = netns.inside(ns, lambda: stream(ns, family))
    try:
        wire.settimeout(timeout_s)
        started_ms = now_ms()
        wire.connect((address, port))
    except BaseException:
        wire.close()
        raise
    return wire, now_ms() - started_ms


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask_unix(
    path: str, method: str, target: str, *, body: bytes | None = None, timeout_s: float = 5.0
) -> Answer:
    """One HTTP request over a UNIX socket. Raises OSError or http.client.HTTPException."""
    return _exchange(_UnixConnection(path, timeout_s), method, target, body, {}, now_ms(), 0.0)


def request(
    ns: str,
    address: str,
    method: str,
    path: str,
    *,
    port: int = 80,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout_s: float = 10.0,
) -> Answer:
    """One request on a connection of its own. Raises OSError or http.client.HTTPException."""
    started_ms = now_ms()
    wire, connect_ms = connect(ns, address, port, timeout_s)
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    connection.sock = wire
    return _exchange(connection, method, path, body, headers or {}, started_ms, connect_ms)


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    started_ms: float,
    connect_ms: float,
) -> Answer:
    try:
        connection.request(method, path, body, {"Connection": "close"} | headers)
        response = connection.getresponse()
        data = response.read(MAX_ANSWER_BYTES)
    finally:
        connection.close()
    return Answer(
        status=response.status,
        headers={name.lower(): value for name, value in response.getheaders()},
        body=data,
        connect_ms=connect_ms,
        total_ms=now_ms() - started_ms,
    )
