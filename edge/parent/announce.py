"""The anycast addresses as a lease of the kernel: put on with a lifetime, renewed, deleted.

The interface is a marker: a BGP daemon watches it and tells its neighbours which addresses
it carries. Each renewal sets `valid_lft` again, so the kernel removes the addresses of a
parent that is dead or stopped, if late: guard.py is quicker. When to renew is decided in lease.py.

pyroute2 encodes the messages; the socket is ours, since the library's own calls need an event
loop that does not run and the parent's does. Only a node that announces imports it (22 MiB).
"""

import errno
import ipaddress
import os
import socket
import struct
from typing import Final

NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_CREATE = 0x1, 0x4, 0x100, 0x400
NLMSG_ERROR: Final = 2
#: Without it an IPv6 address waits a second or more for duplicate address detection.
IFA_F_NODAD: Final = 0x02
_HEADER: Final = struct.Struct("=IHHII")
_GONE: Final = (errno.EADDRNOTAVAIL, errno.ENODEV)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AnnounceError(Exception):
    """The kernel did not do it; the text says what, why and what to try."""


class Announcer:
    """The addresses of one interface. Every call is a few tens of microseconds and does not wait.

    Raises AnnounceError when the interface is missing or the right to change it.
    """

    def __init__(self, interface: str, addresses: tuple[str, ...], lease_s: int) -> None:
        self._interface = interface
        self._addresses = tuple(ipaddress.ip_address(address) for address in addresses)
        self._lease_s = lease_s
        self._sequence = 0
        self._index()
        # Here, not above: a node that announces nothing does not pay for it.
        from pyroute2.netlink import rtnl
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

        self._rtnl, self._new_message = rtnl, ifaddrmsg
        self._messages: dict[tuple[bool, int, _Address], bytearray] = {}
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.settimeout(1.0)
        self._socket.bind((0, 0))

    def renew(self) -> None:
        """Put the addresses on, or make their lifetimes whole again."""
        index = self._index()
        for address in self._addresses:
            error = self._call(index, address, lease=True)
            if error:
                raise AnnounceError(self._sentence("announce", str(address), error))

    def delete(self) -> None:
        """Take the addresses off; those that are already gone are fine."""
        try:
            index = self._index()
        except AnnounceError:
            return
        failed = ""
        for address in self._addresses:
            error = self._call(index, address, lease=False)
            if error and error not in _GONE:
                failed = self._sentence("withdraw", str(address), error)
        if failed:
            raise AnnounceError(failed)

    def deletions(self) -> tuple[bytes, ...]:
        """The requests that take the addresses off, for guard.py. Raises AnnounceError."""
        index = self._index()
        return tuple(bytes(self._message(index, address, lease=False)) for address in self._addresses)

    def close(self) -> None:
        """Let go of the socket; the addresses stay as they are."""
        self._socket.close()

    def _index(self) -> int:
        try:
            return socket.if_nametoindex(self._interface)
        except OSError as error:
            raise AnnounceError(
                f"announce.interface: there is no interface {self._interface!r}; create it and bring it up, "
                f"as in: ip link add {self._interface} type veth && ip link set {self._interface} up"
            ) from error

    def _sentence(self, verb: str, address: str, error: int) -> str:
        right = "; it takes root or CAP_NET_ADMIN" if error == errno.EPERM else ""
        return f"can't {verb} {address} on {self._interface}: {os.strerror(error)}{right}"

    def _call(self, index: int, address: _Address, *, lease: bool) -> int:
        """One request and its acknowledgement; the kernel's errno, 0 when it was done."""
        message = self._message(index, address, lease=lease)
        self._sequence += 1
        length, kind, flags, _, port = _HEADER.unpack_from(message)
        _HEADER.pack_into(message, 0, length, kind, flags, self._sequence, port)
        try:
            self._socket.send(message)
            while True:
                answer = self._socket.recv(4096)
                _, kind, _, sequence, _ = _HEADER.unpack_from(answer)
                if kind == NLMSG_ERROR and sequence == self._sequence:
                    return -int(struct.unpack_from("=i", answer, _HEADER.size)[0])
        except OSError as error:
            return error.errno or errno.EIO

    def _message(self, index: int, address: _Address, *, lease: bool) -> bytearray:
        """Encoded once per interface index: the library takes most of a millisecond."""
        found = self._messages.get((lease, index, address))
        if found is None:
            packet = self._new_message()
            text, v6 = str(address), address.version == 6
            packet["family"] = socket.AF_INET6 if v6 else socket.AF_INET
            packet["prefixlen"] = address.max_prefixlen
            packet["index"] = index
            packet["attrs"] = [("IFA_LOCAL", text), ("IFA_ADDRESS", text)]
            if lease:
                times = {"ifa_preferred": self._lease_s, "ifa_valid": self._lease_s}
                packet["attrs"].append(("IFA_CACHEINFO", times))
            if lease and v6:
                packet["attrs"].append(("IFA_FLAGS", IFA_F_NODAD))
            packet["header"]["type"] = self._rtnl.RTM_NEWADDR if lease else self._rtnl.RTM_DELADDR
            packet["header"]["flags"] = (
                NLM_F_REQUEST | NLM_F_ACK | (NLM_F_CREATE | NLM_F_REPLACE if lease else 0)
            )
            packet.encode()
            found = self._messages[lease, index, address] = bytearray(packet.data)
        return found
