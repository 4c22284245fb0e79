"""Knock again and again from a namespace until the right one answers, and say when that was.

Attempts overlap: a stopped server lets a connection in and never answers, and an attempt that
waits for it must not delay the next. What counts is the *completion* of a whole answer. It
refuses to know who is the right one: `wanted` says.
"""

import selectors
import socket
from collections.abc import Callable
from typing import Final

import msgspec

from netlab import netns, probe
from netlab.clock import now_s

KNOCK_EVERY_S: Final = 0.02
MAX_OPEN: Final = 200
MAX_ANSWER_BYTES: Final = 1 << 16


class Watched(msgspec.Struct, frozen=True):
    """`after_s` is None when the right answer did not come; `last` is what came instead."""

    after_s: float | None
    last: str
    attempts: int
    #: Of the attempts, those that met a closed port.
    refused: int


def watch(
    ns: str,
    address: str,
    port: int,
    path: str,
    wanted: Callable[[bytes], bool],
    within_s: float,
    *,
    every_s: float = KNOCK_EVERY_S,
) -> Watched:
    """Start a GET every few milliseconds until `wanted(answer)`, head and body, holds for a whole one."""
    return netns.inside(ns, lambda: _Watch(ns, address, port, path, wanted, every_s).run(within_s))


class _Watch:
    def __init__(
        self, ns: str, address: str, port: int, path: str, wanted: Callable[[bytes], bool], every_s: float
    ) -> None:
        self._ns = ns
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._to = (address, port)
        host = f"[{address}]" if self._family == socket.AF_INET6 else address
        self._request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        self._wanted = wanted
        self._every_s = every_s
        self._selector = selectors.DefaultSelector()
        self._answers: dict[socket.socket, bytes] = {}
        self._last = "nothing"
        self._attempts = 0
        self._refused = 0

    def run(self, within_s: float) -> Watched:
        started_s = now_s()
        knock_s = started_s
        try:
            while now_s() - started_s <= within_s:
                if now_s() >= knock_s:
                    self._knock()
                    knock_s += self._every_s
                for key, events in self._selector.select(max(0.0, min(knock_s - now_s(), self._every_s))):
                    if self._step(key.data, events):
                        return Watched(now_s() - started_s, self._last, self._attempts, self._refused)
            return Watched(None, self._last, self._attempts, self._refused)
        finally:
            for wire in list(self._answers):
                self._drop(wire)
            self._selector.close()

    def _knock(self) -> None:
        if len(self._answers) >= MAX_OPEN:
            self._drop(next(iter(self._answers)))
        self._attempts += 1
        wire = probe.stream(self._ns, self._family)
        wire.setblocking(False)
        self._answers[wire] = b""
        self._selector.register(wire, selectors.EVENT_WRITE, wire)
        try:
            wire.connect(self._to)
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(wire, error)

    def _step(self, wire: socket.socket, events: int) -> bool:
        """Carry one attempt on; True when it brought the right answer."""
        try:
            if events & selectors.EVENT_WRITE:
                wire.sendall(self._request)  # raises what connect() met
                self._selector.modify(wire, selectors.EVENT_READ, wire)
                return False
            data = wire.recv(65536)
        except OSError as error:
            self._fail(wire, error)
            return False
        self._answers[wire] += data
        if data and len(self._answers[wire]) < MAX_ANSWER_BYTES:
            return False
        answer = self._answers[wire]
        self._drop(wire)
        self._last = answer.decode(errors="replace").strip().replace("\r\n", " | ")[:200] or "an empty answer"
        return self._wanted(answer)

    def _fail(self, wire: socket.socket, error: OSError) -> None:
        self._refused += isinstance(error, ConnectionRefusedError)
        self._last = f"({error.strerror or type(error).__name__})"
        self._drop(wire)

    def _drop(self, wire: socket.socket) -> None:
        del self._answers[wire]
        self._selector.unregister(wire)
        wire.close()
