"""What the kernel is told about a mesh connection. UNIX sockets are left as they are.

A peer that vanished without a word (power, a cut cable) must not hold exchanges: the kernel
ends the connection when nothing of it is acknowledged for `USER_TIMEOUT_MS`, and asks when
it is idle. It knows nothing of frames.
"""

import asyncio
import socket
from typing import Final

#: Sent but not acknowledged for so long: the connection is over.
USER_TIMEOUT_MS: Final = 8_000
#: Where the other side may stop reading. Linux counts a window of zero against the user timeout even
#: while the peer answers each probe (with 3 s, a reader that paused was cut off after 3.5 s), so this
#: is above what a slow client is allowed (`public.limits.write_timeout_ms`, 20 s).
PAUSED_USER_TIMEOUT_MS: Final = 45_000
KEEPALIVE_IDLE_S: Final = 4
KEEPALIVE_EVERY_S: Final = 2
KEEPALIVE_PROBES: Final = 3


def tune(transport: asyncio.BaseTransport) -> None:
    """No Nagle, keepalive, and `USER_TIMEOUT_MS`, on a TCP transport, with or without TLS."""
    sock = _tcp_socket(transport)
    if sock is None:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def allow_pauses(transport: asyncio.BaseTransport) -> None:
    """The other side may stop reading for a while: a client of its own reads slowly."""
    sock = _tcp_socket(transport)
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PAUSED_USER_TIMEOUT_MS)


def _tcp_socket(transport: asyncio.BaseTransport) -> socket.socket | None:
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    return sock
