"""A port of a router's bridge that swallows frames in silence, or forwards them again.

One rtnetlink request by hand: pyroute2 takes half a second to import and sends RTM_NEWLINK, which
bridges ignore. It refuses to know who is behind the port.
"""

import fcntl
import os
import socket
import struct
from typing import Final

from netlab import netns
from netlab.clock import wait_until

# linux/rtnetlink.h, linux/netlink.h, linux/if_link.h, linux/if_bridge.h
_RTM_SETLINK, _REQUEST_ACK, _AF_BRIDGE = 19, 0x1 | 0x4, 7
_IFLA_PROTINFO, _NESTED, _IFLA_BRPORT_STATE = 12, 0x8000, 1
_DISABLED, _FORWARDING = 0, 3
_SIOCGIFFLAGS, _IFF_RUNNING = 0x8913, 0x40  # netdevice(7)
_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_TIMEOUT_S: Final = 2.0


def request(index: int, *, carries: bool) -> bytes:
    """The message that sets the port's state. Pure. Source: rtnetlink(7), and `bridge link set`."""
    state = struct.pack("=HHB3x", 5, _IFLA_BRPORT_STATE, _FORWARDING if carries else _DISABLED)
    body = _LINK.pack(_AF_BRIDGE, 0, index, 0, 0)
    body += struct.pack("=HH", 4 + len(state), _IFLA_PROTINFO | _NESTED) + state
    return _HEADER.pack(_HEADER.size + len(body), _RTM_SETLINK, _REQUEST_ACK, 1, 0) + body


def exists(space: str, interface: str) -> bool:
    """Whether a namespace has an interface of that name."""

    def look() -> bool:
        return interface in {name for _, name in socket.if_nameindex()}

    return netns.inside(space, look)


def wait_until_running(space: str, interface: str, within_s: float = 5.0) -> None:
    """Until its carrier has arrived: the kernel takes up to a second to tell. Raises DeadlineMissed."""

    def running() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
            answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sH14x", interface.encode(), 0))
        return bool(struct.unpack("16sH14x", answer)[1] & _IFF_RUNNING)

    wait_until(lambda: netns.inside(space, running), f"{interface} has its carrier", within_s=within_s)


def set_port(router: str, port: str, *, carries: bool) -> None:
    """Let a port forward, or drop every frame both ways; its carrier stays up. Raises OSError."""

    def ask() -> bytes:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as kernel:
            kernel.settimeout(_TIMEOUT_S)
            kernel.send(request(socket.if_nametoindex(port), carries=carries))
            return kernel.recv(4096)

    code = -int(struct.unpack_from("=i", netns.inside(router, ask), _HEADER.size)[0])
    if code:
        raise OSError(code, f"{port} in {router}: {os.strerror(code)}")
