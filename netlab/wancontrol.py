"""The switch's control socket: JSON lines over a UNIX socket, answered from the switch's own loop.

`answer` is the whole protocol. Knows pairs, their conditions and counters; refuses to know frames,
ports and timers. Bounded: connections, line length, and a reader that does not read.
"""

import json
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from netlab.wanconditions import ConfigError, changed, differing
from netlab.wanfabric import Fabric, Pair
from netlab.wanport import SO_SNDBUFFORCE, ask_for

MAX_LINE_BYTES = 4096
MAX_CONNECTIONS = 16
ANSWER_BUFFER_BYTES = 1 << 20

Extra = Callable[[], dict[str, Any]]


def answer(line: bytes, fabric: Fabric, extra: Extra) -> dict[str, Any]:
    """Do one request, or answer `{"error"}` and change nothing.

    `{"op":"stats"}`; `{"op":"set","from","to", ...}` with any fields of Conditions, which leaves the
    others as they are; `{"op":"cut","from","to","cut":true}`; `{"op":"reset","from","to"}` as on the
    planet, uncut. `extra` adds the switch's own counters to the stats.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return {"error": 'not JSON; write one object per line, like {"op":"stats"}'}
    op = request.get("op") if isinstance(request, dict) else None
    if op == "stats":
        return stats(fabric) | extra()
    if op == "set":
        return _set(request, fabric)
    if op == "cut":
        return _cut(request, fabric)
    if op == "reset":
        return _reset(request, fabric)
    return {"error": f"unknown op {str(op)[:40]!r}; stats, set, cut and reset exist"}


def stats(fabric: Fabric) -> dict[str, Any]:
    """Counters of every directed pair, and the frames that left late over all of them."""
    pairs = [
        {
            "from": pair.origin,
            "to": pair.to,
            "one_way_ms": pair.wish.one_way_ms,
            "planet_one_way_ms": pair.planet.one_way_ms,
            "differs": differing(pair.wish, pair.planet),
            "cut": pair.cut,
            "frames": pair.frames,
            "packets": pair.packets,
            "bytes": pair.bytes,
            "dropped": pair.dropped,
            "dropped_by": {why.value: count for why, count in pair.dropped_by.items() if count},
            "reordered": pair.reordered,
            "late": pair.late,
        }
        for pair in fabric.pairs.values()
    ]
    return {
        "engine": "afpacket",
        "pairs": pairs,
        "late_total": sum(pair.late for pair in fabric.pairs.values()),
    }


def _set(request: dict[str, Any], fabric: Fabric) -> dict[str, Any]:
    pair = _pair(request, fabric)
    if pair is None:
        return _no_pair(request)
    wishes = {name: value for name, value in request.items() if name not in ("op", "from", "to")}
    try:
        pair.become(changed(pair.wish, wishes))
    except ConfigError as error:
        return {"error": str(error)}
    return _done(pair)


def _reset(request: dict[str, Any], fabric: Fabric) -> dict[str, Any]:
    pair = _pair(request, fabric)
    if pair is None:
        return _no_pair(request)
    pair.cut = False
    pair.become(pair.planet)
    return _done(pair)


def _done(pair: Pair) -> dict[str, Any]:
    wish = pair.wish
    return {
        "ok": True,
        "from": pair.origin,
        "to": pair.to,
        "cut": pair.cut,
        "one_way_ms": wish.one_way_ms,
        "differs": differing(wish, pair.planet),
    }


def _cut(request: dict[str, Any], fabric: Fabric) -> dict[str, Any]:
    pair, wanted = _pair(request, fabric), request.get("cut")
    if pair is None:
        return _no_pair(request)
    if not isinstance(wanted, bool):
        return {"error": f"cut is {str(wanted)[:40]!r}; write true or false"}
    pair.cut = wanted
    return _done(pair)


def _pair(request: dict[str, Any], fabric: Fabric) -> Pair | None:
    origin, to = request.get("from"), request.get("to")
    return fabric.pairs.get((origin, to)) if isinstance(origin, str) and isinstance(to, str) else None


def _no_pair(request: dict[str, Any]) -> dict[str, Any]:
    origin, to = str(request.get("from"))[:40], str(request.get("to"))[:40]
    return {"error": f"no pair from {origin!r} to {to!r}; stats lists them"}


class Control:
    """The listening socket and its connections, driven by the owner's epoll."""

    def __init__(self, path: Path, epoll: select.epoll, respond: Callable[[bytes], dict[str, Any]]) -> None:
        """Listen on `path`; a leftover socket nobody listens on is replaced, anything else is an OSError."""
        self._path = path
        self._epoll = epoll
        self._respond = respond
        self._peers: dict[int, tuple[socket.socket, bytearray]] = {}
        _clear_leftover(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(MAX_CONNECTIONS)
        epoll.register(self._listener, select.EPOLLIN)

    def owns(self, descriptor: int) -> bool:
        """Is this descriptor of epoll one of ours?"""
        return descriptor == self._listener.fileno() or descriptor in self._peers

    def handle(self, descriptor: int) -> None:
        """Something is readable there: accept, or read and answer. Never blocks."""
        if descriptor == self._listener.fileno():
            self._accept()
        else:
            self._read(descriptor)

    def close(self) -> None:
        """Close every connection and remove the socket file."""
        for descriptor in list(self._peers):
            self._drop(descriptor)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:  # it left before we looked
            return
        peer.setblocking(False)
        ask_for(peer, SO_SNDBUFFORCE, socket.SO_SNDBUF, ANSWER_BUFFER_BYTES)
        if len(self._peers) >= MAX_CONNECTIONS:
            _say(peer, {"error": f"{MAX_CONNECTIONS} connections are open already; close one"})
            peer.close()
            return
        self._peers[peer.fileno()] = (peer, bytearray())
        self._epoll.register(peer, select.EPOLLIN)

    def _read(self, descriptor: int) -> None:
        peer, pending = self._peers[descriptor]
        try:
            chunk = peer.recv(MAX_LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._drop(descriptor)
            return
        pending += chunk
        while (end := pending.find(b"\n")) >= 0:
            line = bytes(pending[:end])
            del pending[: end + 1]
            if not _say(peer, self._respond(line)):
                self._drop(descriptor)
                return
        if len(pending) > MAX_LINE_BYTES:
            _say(peer, {"error": f"a line is longer than {MAX_LINE_BYTES} bytes"})
            self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        peer, _ = self._peers.pop(descriptor)
        self._epoll.unregister(descriptor)
        peer.close()


def _say(peer: socket.socket, message: dict[str, Any]) -> bool:
    """Send one line; False where the other end left or does not read."""
    line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    try:
        return peer.send(line) == len(line)
    except OSError:
        return False


def _clear_leftover(path: Path) -> None:
    """Remove a socket file that nobody listens on; a live one makes bind fail, as it should."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
