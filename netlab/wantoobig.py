"""The answer to a packet that is too big for a link: ICMP "fragmentation needed", or "packet too big".

Pure: a frame in, a frame out (RFC 792 and 1191, RFC 4443 section 3.2). The link has no address of
its own, so the answer bears that of whom the packet was for; Linux believes it, because it quotes
the packet. It refuses to know when to answer.
"""

import struct
from typing import Final

from netlab.wantrain import ETHERNET_HEADER_BYTES, VNET_HEADER_BYTES, checksum

_IP: Final = VNET_HEADER_BYTES + ETHERNET_HEADER_BYTES
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_ICMP, _ICMPV6 = 1, 58
_TTL: Final = 64
_DONT_FRAGMENT: Final = 0x4000
_OFFSET: Final = 0x1FFF
_QUOTED4_BYTES: Final = 548
"""RFC 1812: as much as fits into 576 bytes."""
_QUOTED6_BYTES: Final = 1232
"""RFC 4443: as much as fits into 1280 bytes."""


def too_big(frame: bytes, mtu_bytes: int) -> bytes | None:
    """What its sender is told (virtio header in front), or None where nobody may be told.

    Not told: who sent something else than IP, an ICMP packet, to a group, a later fragment, or an
    IPv4 packet that may be fragmented. (A router would fragment it; this link drops it.)
    """
    if len(frame) < _IP + 40 or frame[VNET_HEADER_BYTES] & 1:
        return None
    kind = frame[_IP - 2 : _IP]
    if kind == _IPV4:
        flags = struct.unpack_from("!H", frame, _IP + 6)[0]
        if frame[_IP + 9] == _ICMP or not flags & _DONT_FRAGMENT or flags & _OFFSET:
            return None
        return _ethernet(frame, _answer4(frame[_IP:], mtu_bytes))
    if kind == _IPV6 and frame[_IP + 6] != _ICMPV6:
        return _ethernet(frame, _answer6(frame[_IP:], mtu_bytes))
    return None


def _ethernet(frame: bytes, packet: bytes) -> bytes:
    to, origin = frame[VNET_HEADER_BYTES : _IP - 8], frame[_IP - 8 : _IP - 2]
    return bytes(VNET_HEADER_BYTES) + origin + to + frame[_IP - 2 : _IP] + packet


def _answer4(packet: bytes, mtu_bytes: int) -> bytes:
    origin, to = packet[12:16], packet[16:20]
    body = struct.pack("!BBHHH", 3, 4, 0, 0, mtu_bytes) + packet[:_QUOTED4_BYTES]
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, _DONT_FRAGMENT, _TTL, _ICMP, 0) + to + origin
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def _answer6(packet: bytes, mtu_bytes: int) -> bytes:
    addresses = packet[24:40] + packet[8:24]
    body = struct.pack("!BBHI", 2, 0, 0, mtu_bytes) + packet[:_QUOTED6_BYTES]
    pseudo = addresses + struct.pack("!II", len(body), _ICMPV6)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, _TTL) + addresses + body
