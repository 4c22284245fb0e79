"""The front door: listening sockets in, one answer per request out.

`FrontDoor` owns every connection, every handler task and the one timer that keeps all deadlines. It
reads bytes through `connection.py` and knows no route: what a request means is the handler's.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from itertools import cycle
from ssl import SSLContext
from typing import Any, Final, NamedTuple

from edge.clock import now_ms
from edge.errors import EdgeError, Reason, Source
from edge.http.accept import Acceptor, seat_of
from edge.http.connection import Connection
from edge.http.door import Handler
from edge.limits import HttpLimits

#: Refused connections that are told so; beyond them a connection over the cap is reset unheard.
_MAX_REFUSALS: Final = 256
_LONGEST_TICK_MS: Final = 500.0
_SHORTEST_TICK_MS: Final = 10.0


class Statistics(NamedTuple):
    """A moment's view; counters only grow."""

    connections: int
    """Open now."""
    accepted: int
    refused: int
    """Over a connection cap."""
    requests: int
    """Handed to the handler."""
    bad: Mapping[str, int]
    """By reason (`edge.errors.Reason`) or event name: what the door refused or ended by itself."""


class FrontDoor:
    """HTTP/1.1 for `handler` within `limits`.

    `hosts` are the names and addresses (lower case, no brackets) that absolute-form targets may name.
    `on_event` hears one token per refusal or broken connection, for metrics: see `Statistics.bad`.
    """

    def __init__(
        self,
        handler: Handler,
        limits: HttpLimits,
        *,
        hosts: frozenset[str] = frozenset(),
        on_event: Callable[[str], None] | None = None,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.hosts = hosts
        #: Every answer says Connection: close, while new connections are still taken.
        self.lame_duck = False
        self.requests = 0
        self._on_event = on_event
        self._accepted = 0
        self._refused = 0
        self._bad: Counter[str] = Counter()
        self._connections: set[Connection] = set()
        self._per_seat: Counter[str] = Counter()
        self._seats = 0
        self._tasks: set[asyncio.Future[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._acceptors: list[Acceptor] = []
        self._timer: asyncio.TimerHandle | None = None
        self._retry_after_s = cycle((1, 2, 3))
        self._closed = asyncio.Event()
        self._empty = asyncio.Event()
        shortest_ms = min(
            limits.header_timeout_ms,
            limits.body_window_ms,
            limits.idle_timeout_ms,
            limits.write_timeout_ms,
            limits.linger_ms,
        )
        self._tick_s = min(_LONGEST_TICK_MS, max(_SHORTEST_TICK_MS, shortest_ms / 8)) / 1000

    async def serve(self, sockets: list[socket.socket], ssl: SSLContext | None = None) -> None:
        """Accept on bound, listening sockets until `close` is done; the sockets stay the caller's."""
        loop = asyncio.get_running_loop()
        for listener in sockets:
            acceptor = Acceptor(self, loop, listener, ssl)
            self._acceptors.append(acceptor)
            acceptor.start()
        try:
            await self._closed.wait()
        finally:
            if not self._closed.is_set():
                await self.close(0.0)

    async def close(self, drain_s: float, *, lame_duck_s: float = 0.0) -> None:
        """Accept no more, end idle connections, let answers finish for at most `drain_s`, end the rest.

        For `lame_duck_s` idle connections may still ask once more, and are told to close with the
        answer: a connection that is closed under a request on its way loses that request.
        """
        self.lame_duck = True
        for acceptor in self._acceptors:
            acceptor.stop()
        if lame_duck_s > 0:
            await self._wait_until_empty(lame_duck_s)
        self.end_idle()
        if drain_s > 0:
            await self._wait_until_empty(drain_s)
        for connection in list(self._connections):
            connection.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._wait_until_empty(1.0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._closed.set()

    def end_idle(self) -> None:
        """Connections that nobody asks on end now; new ones are taken as before."""
        for connection in list(self._connections):
            connection.drain()

    def protocol_factory(self) -> Connection:
        """A connection of this door for another acceptor; it is counted when it is made."""
        return Connection(self, asyncio.get_running_loop())

    def statistics(self) -> Statistics:
        """What happened so far."""
        return Statistics(
            len(self._connections), self._accepted, self._refused, self.requests, dict(self._bad)
        )

    # -- what connections and acceptors ask of their door --------------------------------------

    def take_seat(self, seat: str) -> EdgeError | None:
        """Count a connection under its source at accept; over a cap it is counted too, and an error."""
        self._accepted += 1
        self._seats += 1
        self._per_seat[seat] += 1
        if self._seats > self.limits.max_connections:
            return EdgeError(Reason.CONNECTIONS, "too many connections", source=Source.INTERNAL)
        if self._per_seat[seat] > self.limits.max_connections_per_client:
            return EdgeError(
                Reason.CONNECTIONS, "too many connections from this source", source=Source.DOWNSTREAM
            )
        return None

    def leave_seat(self, seat: str) -> None:
        """Undo `take_seat`."""
        self._seats -= 1
        left = self._per_seat[seat] - 1
        if left:
            self._per_seat[seat] = left
        else:
            del self._per_seat[seat]
        if not self._seats:
            self._empty.set()

    def may_explain_refusal(self) -> bool:
        """True while connections over a cap are few enough to be answered 503; else they are reset."""
        self._refused += 1
        return self._seats <= self.limits.max_connections + _MAX_REFUSALS

    def opened(self, connection: Connection) -> EdgeError | None:
        """See `door.Door`."""
        self._connections.add(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)
        if connection.seat is not None:
            return connection.refusal
        connection.seat = seat_of(connection.client)
        refusal = self.take_seat(connection.seat)
        if refusal is not None:
            self._refused += 1
        return refusal

    def closed(self, connection: Connection) -> None:
        """See `door.Door`."""
        self._connections.discard(connection)
        if connection.seat is not None:
            self.leave_seat(connection.seat)

    def note(self, event: str) -> None:
        """See `door.Door`."""
        self._bad[event] += 1
        if self._on_event is not None:
            self._on_event(event)

    def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """See `door.Door`; the task ends with the door at the latest."""
        if self._loop is None:
            # Asked once: it is a system call, and this runs for every request.
            self._loop = asyncio.get_running_loop()
        task = self._loop.create_task(work)
        self._tasks.add(task)
        return task

    def ended(self, work: "asyncio.Future[Any]") -> None:
        """See `door.Door`."""
        self._tasks.discard(work)

    def retry_after_s(self) -> int:
        """1, 2, 3 in turn: refused clients come back spread."""
        return next(self._retry_after_s)

    async def _wait_until_empty(self, within_s: float) -> None:
        """Until nobody is here: by seats, since who was just accepted has one before a connection."""
        self._empty.clear()
        if self._seats:
            try:
                async with asyncio.timeout(within_s):
                    await self._empty.wait()
            except TimeoutError:
                return

    def _tick(self) -> None:
        at_ms = now_ms()
        for connection in list(self._connections):
            connection.check_deadlines(at_ms)
        self._timer = (
            asyncio.get_running_loop().call_later(self._tick_s, self._tick) if self._connections else None
        )
