"""One AF_PACKET port, and a timer the kernel fires in nanoseconds.

Knows Linux: socket options, virtio-net headers, ENETDOWN, sysctls, timerfd. Refuses to
know where a frame goes or when.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from netlab.wantrain import ETHERNET_HEADER_BYTES, VNET_HEADER_BYTES

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
SO_TIMESTAMPNS = 35
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SIOCGIFFLAGS = 0x8913
IFF_UP = 1

RECEIVE_BUFFER_BYTES = 32 << 20
SEND_BUFFER_BYTES = 8 << 20
FRAME_BYTES = 1 << 18
MAX_AGE_NS = 1_000_000_000
"""A stamp older than this is a stepped wall clock, not a slow switch."""

_ANCILLARY_BYTES = 64
_TIMESPEC = struct.Struct("qq")
_HEADERS_BYTES = VNET_HEADER_BYTES + ETHERNET_HEADER_BYTES


class PortError(OSError):
    """The interface can't be opened; the text says which and what to do."""


class Port:
    """An interface of this namespace, opened raw. `gone` is true once the device was deleted."""

    def __init__(self, name: str) -> None:
        """Open `name`; PortError if it does not exist or we may not."""
        self.name = name
        self.up = True
        self.kernel_dropped = 0
        self.last_arrived_ns = 0
        self._buffer = bytearray(FRAME_BYTES)
        self._view = memoryview(self._buffer)
        try:
            self._index = socket.if_nametoindex(name)
            _silence_ipv6(name)
            self._socket = _open(name)
        except OSError as error:
            raise PortError(
                error.errno, f"port {name}: {error.strerror}; create the interface first, run as root"
            ) from error

    def fileno(self) -> int:
        """The socket, for epoll."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; the interface stays."""
        self._socket.close()

    def receive(self, wall_s: Callable[[], float]) -> tuple[bytes, int] | None:
        """One frame (virtio header in front) and its age in ns, by the kernel's stamp; None if none waits.

        Raises OSError(ENETDOWN) once after the interface went down.
        """
        try:
            size, ancillary, flags, _ = self._socket.recvmsg_into([self._buffer], _ANCILLARY_BYTES)
        except BlockingIOError:
            return None
        if size < _HEADERS_BYTES or flags & socket.MSG_TRUNC:
            return b"", 0
        age_ns = 0
        if ancillary:
            seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
            age_ns = int(wall_s() * 1e9) - (seconds * 1_000_000_000 + nanoseconds)
            if not 0 <= age_ns <= MAX_AGE_NS:
                age_ns = 0
        return bytes(self._view[:size]), age_ns

    def send(self, frame: bytes) -> None:
        """Hand a frame (virtio header in front) to the interface; OSError if it is not taken."""
        self._socket.send(frame)

    def count_kernel_drops(self) -> int:
        """Frames the kernel dropped because this process read too slowly, since the port opened."""
        packed = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)  # reading resets it
        self.kernel_dropped += struct.unpack("II", packed)[1]
        return self.kernel_dropped

    def look(self) -> str:
        """What the interface is now: `up`, `down` or `gone` (deleted, or replaced by a namesake)."""
        try:
            if socket.if_nametoindex(self.name) != self._index:
                return "gone"
            request = struct.pack("16sh22x", self.name.encode(), 0)
            flags = struct.unpack("16sh22x", fcntl.ioctl(self._socket, SIOCGIFFLAGS, request))[1]
        except OSError:
            return "gone"
        return "up" if flags & IFF_UP else "down"


def _open(name: str) -> socket.socket:
    # Protocol 0 until bound: else it would hear every interface of the namespace in between.
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        port.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        port.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        port.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        ask_for(port, SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        ask_for(port, SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        port.setblocking(False)
        port.bind((name, ETH_P_ALL))
    except OSError:
        port.close()
        raise
    return port


def ask_for(port: socket.socket, force: int, plain: int, size: int) -> None:
    """A buffer of a socket, beyond the system's cap where we may."""
    try:
        port.setsockopt(socket.SOL_SOCKET, force, size)
    except PermissionError:  # rootless: the system's cap holds, bursts may be dropped and are counted
        port.setsockopt(socket.SOL_SOCKET, plain, size)


def _silence_ipv6(name: str) -> None:
    """Keep the kernel on this end from answering neighbour discovery; read back: a write can fail late."""
    path = Path("/proc/sys/net/ipv6/conf") / name / "disable_ipv6"
    if not path.parent.exists():  # a kernel without IPv6 answers nothing
        return
    if path.read_text().strip() != "1":
        path.write_text("1")
        if path.read_text().strip() != "1":
            raise OSError(errno.EPERM, f"{path} stays 0")


class Timer:
    """A timerfd on the monotonic clock (`os.timerfd_create` came with Python 3.13).

    Measured: median 0.3-0.5 ms of added RTT, against 1.1-1.8 with epoll's millisecond timeout.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(1, os.O_NONBLOCK | os.O_CLOEXEC)  # 1: CLOCK_MONOTONIC
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._wish = (ctypes.c_long * 4)()
        self.armed_ns: int | None = None

    def fileno(self) -> int:
        """The descriptor, for epoll."""
        return int(self._fd)

    def arm(self, due_ns: int) -> None:
        """Become readable at `due_ns` (monotonic), unless already armed for then or earlier."""
        if self.armed_ns is not None and self.armed_ns <= due_ns:
            return
        # All zero would disarm; a moment that has passed fires at once.
        self._wish[2], self._wish[3] = divmod(max(due_ns, 1), 1_000_000_000)
        if self._libc.timerfd_settime(self._fd, 1, self._wish, None) < 0:  # 1: TFD_TIMER_ABSTIME
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        self.armed_ns = due_ns

    def fired(self) -> None:
        """Take note that it became readable."""
        self.armed_ns = None
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)
