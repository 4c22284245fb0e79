"""Somebody on a POP's LAN vanishes without a word: a port of the router's bridge swallows every frame.

One rtnetlink request by hand: pyroute2 takes half a second to import and sends RTM_NEWLINK, which
bridges ignore. It refuses to know who vanishes, and who misses them.
"""

import fcntl
import os
import socket
import struct
from typing import Final

from netlab import apply, names, netns
from netlab.clock import wait_until
from netlab.steps import Drop, Sysctl, Up, Veth

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


def vanish(router: str, who: str) -> None:
    """Nothing reaches `who` and nothing comes from it. Raises OSError, ApplyError, DeadlineMissed."""
    make_ready(router, who)
    set_port(router, names.node_port(who), carries=False)


def make_ready(router: str, who: str) -> None:
    """All that takes time before `who` vanishes. Raises OSError, ApplyError, DeadlineMissed."""
    holder = _holder(router, who)
    if not exists(router, holder.name):
        # A bridge whose last port is off loses its carrier, and BIRD would know at once.
        ends = (holder.name, holder.peer)
        mute = [Sysctl(router, f"net.ipv6.conf.{end}.disable_ipv6", "1") for end in ends]
        apply.carry_out([holder, *mute, Up(router, holder.peer)])
    wait_until_running(router, holder.name)


def reappear(router: str, who: str) -> None:
    """`who` is on the LAN again. Raises OSError, ApplyError."""
    set_port(router, names.node_port(who), carries=True)
    holder = _holder(router, who)
    if exists(router, holder.name):
        apply.carry_out([Drop(holder)])


def _holder(router: str, who: str) -> Veth:
    """A cable from the bridge to nowhere, which holds its carrier up."""
    mac = "02:ed:9e:fa:00:0{}"
    return Veth(router, f"h-{who}", mac.format(1), router, f"k-{who}", mac.format(2), master="lan")


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
