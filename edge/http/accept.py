"""Accepting: counted before TLS, and calm when file descriptors run out.

The event loops' own servers make a connection known only after its TLS handshake, and asyncio's calls
its exception handler thousands of times a second at EMFILE. This one counts at `accept` and backs off.
"""

import asyncio
import errno
import ipaddress
import socket
from ssl import SSLContext
from typing import Any, Final

from edge.http.connection import RESET_ON_CLOSE, Connection
from edge.http.door import AcceptingDoor

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BACK_OFF_S: Final = 0.1
#: Connections accepted before anything else gets a turn.
_BATCH: Final = 64


def seat_of(client: str) -> str:
    """The source that connections are counted under: an IPv4 address, or the /64 of an IPv6 one."""
    if ":" not in client:
        return client
    try:
        return ipaddress.IPv6Address(client.partition("%")[0]).packed[:8].hex()
    except ValueError:
        return client


class Acceptor:
    """Accepts on one listening socket."""

    def __init__(
        self,
        door: AcceptingDoor,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        ssl: SSLContext | None,
    ) -> None:
        self._door = door
        self._loop = loop
        self._listener = listener
        self._ssl = ssl
        self._retry: asyncio.TimerHandle | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin, or go on after a back-off."""
        self._retry = None
        if not self._stopped:
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._on_ready)

    def stop(self) -> None:
        """Accept no more; the listener stays open, and what waits in its backlog waits on."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._listener)

    def _on_ready(self) -> None:
        for _ in range(_BATCH):
            try:
                conn, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._loop.remove_reader(self._listener)
                self._door.note("out-of-descriptors" if error.errno in _EXHAUSTED else "accept-failed")
                self._retry = self._loop.call_later(_BACK_OFF_S, self.start)
                return
            self._admit(conn, peer)

    def _admit(self, conn: socket.socket, peer: Any) -> None:
        client = peer[0].removeprefix("::ffff:") if isinstance(peer, tuple) else ""
        seat = seat_of(client)
        refusal = self._door.take_seat(seat)
        if refusal is not None and (not self._door.may_explain_refusal() or self._ssl is not None):
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            conn.close()
            self._door.leave_seat(seat)
            self._door.note(refusal.reason)
            return
        conn.setblocking(False)
        work = self._door.run(self._connect(conn, Connection(self._door, self._loop, seat, refusal)))
        work.add_done_callback(self._door.ended)

    async def _connect(self, conn: socket.socket, connection: Connection) -> None:
        handshake_s = None if self._ssl is None else self._door.limits.tls_handshake_timeout_ms / 1000
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection, conn, ssl=self._ssl, ssl_handshake_timeout=handshake_s
            )
        except OSError:  # ssl.SSLError, resets and the handshake's time-out are all of this kind
            self._door.note("tls-handshake")
        finally:
            if not connection.was_made and connection.seat is not None:
                self._door.leave_seat(connection.seat)
                conn.close()
