"""A frame of 64 KiB is a train of packets that share one header: how many, how large, and parts of it.

Pure: bytes in, bytes out. A frame starts with a virtio-net header (struct virtio_net_hdr, Virtio
1.3 section 5.1.6), which says into packets of what size the kernel would cut it. `part` does that
cut for some of them: addresses, sequence number, lengths, flags and checksums as `tcp_gso_segment`
of Linux leaves them; checksums over the payload stay for the kernel to fill in, so no payload byte
is read. It refuses to know delays and losses.
"""

import struct
from typing import Final, NamedTuple

VNET_HEADER_BYTES = 10
ETHERNET_HEADER_BYTES = 14

_NEEDS_CSUM: Final = 1
_TCP4, _UDP, _TCP6, _ECN = 1, 5, 4, 0x80
#: Least header, and where its checksum stands.
_TRANSPORTS: Final = {_TCP4: (20, 16), _TCP6: (20, 16), _UDP: (8, 6)}
_VNET: Final = struct.Struct("=BBHHHH")
_IP: Final = VNET_HEADER_BYTES + ETHERNET_HEADER_BYTES
_SMALL_BYTES: Final = ETHERNET_HEADER_BYTES + 20 + 8
_LARGE_BYTES: Final = ETHERNET_HEADER_BYTES + 65_535  # beyond it, lengths stand elsewhere (BIG TCP)
_TCP_FLAGS: Final = 13
_FIN_PSH, _CWR = 0x09, 0x80


class Train(NamedTuple):
    """So many packets of `header_bytes` (Ethernet to transport) and `each_bytes` more, the last of less."""

    packets: int
    header_bytes: int
    each_bytes: int
    payload_bytes: int

    def packet_bytes(self, index: int) -> int:
        """Bytes of that packet on the line, its headers and all."""
        if index < self.packets - 1:
            return self.header_bytes + self.each_bytes
        return self.header_bytes + self.payload_bytes - index * self.each_bytes

    @property
    def line_bytes(self) -> int:
        """Bytes of all of them on the line."""
        return self.packets * self.header_bytes + self.payload_bytes


def train(frame: bytes) -> Train:
    """The packets that a frame (virtio header in front) stands for; one where it can't be cut."""
    size_bytes = len(frame) - VNET_HEADER_BYTES
    if not _SMALL_BYTES <= size_bytes <= _LARGE_BYTES or not frame[1]:  # nearly always: no offload is asked
        return Train(1, 0, size_bytes, size_bytes)
    flags, kind, _, each_bytes, start, offset = _VNET.unpack_from(frame)
    kind &= ~_ECN
    at = VNET_HEADER_BYTES + start
    least_bytes, field = _TRANSPORTS.get(kind, (0, 0))
    if (
        least_bytes
        and flags & _NEEDS_CSUM
        and each_bytes
        and offset == field
        and start >= ETHERNET_HEADER_BYTES + (20 if frame[_IP] >> 4 == 4 else 40)
        and at + least_bytes <= len(frame)
    ):
        transport_bytes = 8 if kind == _UDP else (frame[at + 12] >> 4) * 4
        payload_bytes = size_bytes - start - transport_bytes
        if transport_bytes >= least_bytes and payload_bytes > each_bytes:
            packets = -(-payload_bytes // each_bytes)
            return Train(packets, start + transport_bytes, each_bytes, payload_bytes)
    return Train(1, 0, size_bytes, size_bytes)


def part(frame: bytes, whole: Train, first: int, end: int) -> bytes:
    """The packets `first` to before `end` as a frame of their own."""
    if end - first == whole.packets:
        return frame
    payload_at = VNET_HEADER_BYTES + whole.header_bytes
    payload = frame[payload_at + first * whole.each_bytes : payload_at + end * whole.each_bytes]
    flags, kind, _, each_bytes, start, offset = _VNET.unpack_from(frame)
    head = bytearray(frame[:payload_at])
    if first:
        kind &= ~_ECN
    if end - first == 1:
        kind = each_bytes = 0
    _VNET.pack_into(head, 0, flags, kind, whole.header_bytes, each_bytes, start, offset)
    at = VNET_HEADER_BYTES + start
    segment_bytes = len(head) - at + len(payload)
    if frame[_IP] >> 4 == 4:
        pseudo = _ipv4(head, segment_bytes + at - _IP, first) + segment_bytes
    else:
        struct.pack_into("!H", head, _IP + 4, segment_bytes + at - _IP - 40)
        pseudo = int.from_bytes(head[_IP + 8 : _IP + 40]) + (17 if offset == 6 else 6) + segment_bytes
    if offset == 6:
        struct.pack_into("!H", head, at + 4, segment_bytes)
    else:
        _tcp(head, at, first * whole.each_bytes, is_first=first == 0, is_last=end == whole.packets)
    # The sum of the pseudo header alone: the kernel adds the rest where a frame leaves the machine.
    struct.pack_into("!H", head, at + offset, pseudo % 0xFFFF)
    return bytes(head) + payload


def _ipv4(head: bytearray, total_bytes: int, first: int) -> int:
    """Set length, identification and checksum; returns what addresses and protocol add to a pseudo header."""
    (identification,) = struct.unpack_from("!H", head, _IP + 4)
    struct.pack_into("!HH", head, _IP + 2, total_bytes, (identification + first) & 0xFFFF)
    struct.pack_into("!H", head, _IP + 10, 0)
    header = head[_IP : _IP + (head[_IP] & 0x0F) * 4]
    struct.pack_into("!H", head, _IP + 10, checksum(header))
    return int.from_bytes(head[_IP + 12 : _IP + 20]) + head[_IP + 9]


def _tcp(head: bytearray, at: int, skipped_bytes: int, *, is_first: bool, is_last: bool) -> None:
    (sequence,) = struct.unpack_from("!I", head, at + 4)
    struct.pack_into("!I", head, at + 4, (sequence + skipped_bytes) & 0xFFFFFFFF)
    if not is_last:
        head[at + _TCP_FLAGS] &= ~_FIN_PSH
    if not is_first:
        head[at + _TCP_FLAGS] &= ~_CWR


def checksum(data: bytes | bytearray) -> int:
    """The Internet checksum (RFC 1071): 16-bit ones' complement, by the remainder of one large number."""
    padded = bytes(data) + b"\0" * (len(data) & 1)
    return 0xFFFF - int.from_bytes(padded) % 0xFFFF
