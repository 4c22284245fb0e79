"""Round trips by ICMP echo: the far kernel answers, this one stamps the arrival, nobody's scheduling is in it."""

import select
import socket
import struct
from typing import Final

from netlab.clock import now_s, wall_s
from netlab.wantrain import checksum

SO_TIMESTAMPNS: Final = 35
_IDENTIFIER: Final = 0x6570
_STAMP: Final = struct.Struct("qq")


def open_socket() -> socket.socket:
    """To be made in the namespace that measures."""
    ping = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    ping.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    ping.setblocking(False)
    return ping


def round_trips_ms(
    ping: socket.socket, address: str, count: int, every_s: float, patience_s: float
) -> list[float]:
    """Sorted RTTs of those of `count` echoes that came back, one sent each `every_s`."""
    ping.connect((address, 0))
    sent_s: dict[int, float] = {}
    took_ms: list[float] = []
    next_s = now_s()
    end_s = next_s + count * every_s + patience_s
    while len(took_ms) < count and (now := now_s()) < end_s:
        if len(sent_s) < count and now >= next_s:
            number = len(sent_s)
            head = struct.pack("!BBHHH", 8, 0, 0, _IDENTIFIER, number)
            sent_s[number] = wall_s()
            ping.send(head[:2] + struct.pack("!H", checksum(head)) + head[4:])
            next_s += every_s
            continue
        wait_s = (next_s if len(sent_s) < count else end_s) - now
        if select.select([ping], [], [], max(wait_s, 0))[0]:
            raw, ancillary, _, _ = ping.recvmsg(256, 64)
            kind, _, _, identifier, number = struct.unpack_from("!BBHHH", raw, (raw[0] & 15) * 4)
            if kind == 0 and identifier == _IDENTIFIER and number in sent_s:
                seconds, nanoseconds = _STAMP.unpack_from(ancillary[0][2])
                took_ms.append((seconds + nanoseconds / 1e9 - sent_s[number]) * 1000)
    return sorted(took_ms)
