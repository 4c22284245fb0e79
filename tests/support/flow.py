"""One connection of a user to the anycast address, kept open: what becomes of it when the route moves.

It asks and reads as http.client does and tries nothing twice: what breaks is raised.
"""

import contextlib
import http.client
import socket
from types import TracebackType
from typing import Self

from netlab import netns
from netlab.handles import User

#: What a client sees whose connection nobody knows any more.
BROKEN = (ConnectionResetError, http.client.IncompleteRead, http.client.RemoteDisconnected, BrokenPipeError)


class Flow:
    """A context manager; `small` takes the answer in small bites, so that a large one waits at the node."""

    def __init__(self, user: User, *, family: int = 4, timeout_s: float = 5.0, small: bool = False) -> None:
        kind = socket.AF_INET6 if family == 6 else socket.AF_INET
        self.wire = netns.inside(user.ns, lambda: socket.socket(kind, socket.SOCK_STREAM))
        self.wire.settimeout(timeout_s)
        if small:
            self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        self.wire.connect((user.vip(family), 80))
        self._http = http.client.HTTPConnection(user.vip(family), 80)
        self._http.sock = self.wire
        self._http.auto_open = 0

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
        """The head of the answer; its body is the caller's to read. Raises OSError or HTTPException."""
        words = {name.replace("_", "-"): value for name, value in headers.items()}
        self._http.request("POST" if body else "GET", path, body, words)
        return self._http.getresponse()

    def pop(self) -> str:
        """The POP that answers GET /pop on this connection."""
        with contextlib.closing(self.ask("/pop")) as answer:
            answer.read()
            return answer.headers["edge-pop"]

    def node(self) -> str:
        """The node that answers GET /pop on this connection."""
        with contextlib.closing(self.ask("/pop")) as answer:
            lines = answer.read().decode().splitlines()
        return next(line.removeprefix("node: ") for line in lines if line.startswith("node: "))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
