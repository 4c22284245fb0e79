"""Frames as AF_PACKET hands them over: virtio header, Ethernet, IP, transport, payload."""

import ipaddress
import struct
from typing import NamedTuple

ONE_MAC, OTHER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
FOUR = ("10.0.0.1", "10.0.0.2")
SIX = ("fd00::1", "fd00::2")
TCP, UDP = 6, 17
#: The length of headers in a frame from the kernel is a hint, and often wrong.
HINT_BYTES = 99
FIN, SYN, PSH, ACK, CWR = 0x01, 0x02, 0x08, 0x10, 0x80


def ones(data: bytes) -> int:
    """Ones' complement sum word by word, as the RFC says it."""
    total = 0
    for (word,) in struct.iter_unpack("!H", data + b"\0" * (len(data) % 2)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(addresses: tuple[str, str], protocol: int, size: int) -> bytes:
    packed = b"".join(ipaddress.ip_address(text).packed for text in addresses)
    return packed + (
        struct.pack("!BBH", 0, protocol, size) if len(packed) == 8 else struct.pack("!II", size, protocol)
    )


def frame(
    payload: bytes,
    *,
    addresses: tuple[str, str] = FOUR,
    protocol: int = TCP,
    each: int = 0,
    flags: int = ACK,
    options: bytes = b"",
    ecn: bool = False,
    fragment: int = 0x4000,
) -> bytes:
    """One frame; with `each`, a train of packets of that much payload."""
    if protocol == TCP:
        head = (
            struct.pack("!HHIIBBHHH", 1000, 80, 0xFFFFFF00, 7, (20 + len(options)) << 2, flags, 100, 0, 0)
            + options
        )
        kind, offset = (1 if addresses == FOUR else 4), 16
    else:
        head = struct.pack("!HHHH", 1000, 53, 8 + len(payload), 0)
        kind, offset = 5, 6
    size = len(head) + len(payload)
    head = head[:offset] + struct.pack("!H", ones(pseudo(addresses, protocol, size))) + head[offset + 2 :]
    packed = b"".join(ipaddress.ip_address(text).packed for text in addresses)
    if addresses == FOUR:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0xFFFE, fragment, 64, protocol, 0) + packed
        ip = ip[:10] + struct.pack("!H", 0xFFFF - ones(ip)) + ip[12:]
        ethertype = b"\x08\x00"
    else:
        ip = struct.pack("!IHBB", 6 << 28, size, protocol, 64) + packed
        ethertype = b"\x86\xdd"
    kind = (kind | (0x80 if ecn else 0)) if each else 0
    vnet = struct.pack("=BBHHHH", 1, kind, HINT_BYTES, each, 14 + len(ip), offset)
    return vnet + OTHER_MAC + ONE_MAC + ethertype + ip + head + payload


class Packet(NamedTuple):
    """What a receiver reads from a frame that is one packet or a smaller train."""

    gso: tuple[int, int]
    identification: int
    sequence: int
    flags: int
    payload: bytes


def read(raw: bytes) -> Packet:
    """Take a frame apart and check every length and checksum in it."""
    _, kind, header_bytes, each, start, offset = struct.unpack_from("=BBHHHH", raw)
    ether = raw[10:]
    ip, rest = ether[14:start], ether[start:]
    if ip[0] >> 4 == 4:
        assert ones(ip) == 0xFFFF, "IPv4 header checksum"
        assert struct.unpack_from("!H", ip, 2)[0] == len(ip) + len(rest)
        addresses, protocol = FOUR, ip[9]
        identification = struct.unpack_from("!H", ip, 4)[0]
    else:
        assert struct.unpack_from("!H", ip, 4)[0] == len(rest)
        addresses, protocol, identification = SIX, ip[6], 0
    seed = struct.unpack_from("!H", rest, offset)[0]
    assert seed % 0xFFFF == ones(pseudo(addresses, protocol, len(rest))) % 0xFFFF, (
        "checksum of the pseudo header"
    )
    if protocol == UDP:
        assert struct.unpack_from("!H", rest, 4)[0] == len(rest)
        return Packet((kind, each), identification, 0, 0, rest[8:])
    data_at = (rest[12] >> 4) * 4
    if kind:
        assert header_bytes in (HINT_BYTES, start + data_at)
    return Packet(
        (kind, each), identification, struct.unpack_from("!I", rest, 4)[0], rest[13], rest[data_at:]
    )
