"""Who is told that a packet was too big, and in which words."""

import struct

import pytest

from netlab.wantoobig import too_big
from tests.support.wanframes import FOUR, ONE_MAC, OTHER_MAC, SIX, UDP, frame, ones

BODY = bytes(1400)


def test_ipv4_is_told_the_mtu_by_its_destination() -> None:
    raw = frame(BODY)
    answer = too_big(raw, 1280)
    assert answer is not None
    assert answer[:10] == bytes(10)
    assert answer[10:24] == ONE_MAC + OTHER_MAC + b"\x08\x00"
    ip, icmp = answer[24:44], answer[44:]
    assert ones(ip) == ones(icmp) == 0xFFFF
    assert ip[12:20] == raw[40:44] + raw[36:40], "addresses change places"
    assert struct.unpack_from("!H", ip, 2)[0] == len(ip) + len(icmp) <= 576
    assert (icmp[0], icmp[1], struct.unpack_from("!H", icmp, 6)[0]) == (3, 4, 1280)
    assert icmp[8:] == raw[24 : 24 + 548]


def test_ipv6_is_told_the_mtu_by_its_destination() -> None:
    raw = frame(BODY, addresses=SIX)
    answer = too_big(raw, 1280)
    assert answer is not None
    ip, icmp = answer[24:64], answer[64:]
    assert ip[8:40] == raw[48:64] + raw[32:48]
    assert ones(ip[8:40] + struct.pack("!II", len(icmp), 58) + icmp) == 0xFFFF
    assert (icmp[0], icmp[1], struct.unpack_from("!I", icmp, 4)[0]) == (2, 0, 1280)
    assert len(ip) + len(icmp) == struct.unpack_from("!H", ip, 4)[0] + 40 <= 1280
    assert icmp[8:] == raw[24 : 24 + 1232]


def changed(raw: bytes, at: int, to: bytes) -> bytes:
    return raw[:at] + to + raw[at + len(to) :]


@pytest.mark.parametrize(
    ("sentence", "raw"),
    [
        ("IPv4 that may be fragmented", frame(BODY, fragment=0)),
        ("a later fragment", frame(BODY, fragment=0x4003)),
        ("ICMP over IPv4", changed(frame(BODY), 33, b"\1")),
        ("ICMP over IPv6", changed(frame(BODY, addresses=SIX), 30, b"\x3a")),
        ("to a group", changed(frame(BODY, protocol=UDP), 10, b"\xff" * 6)),
        ("what is no IP", changed(frame(BODY), 22, b"\x88\xcc")),
        ("what is too short for a packet", frame(b"", addresses=FOUR)[:60]),
    ],
)
def test_nobody_is_told(sentence: str, raw: bytes) -> None:
    assert too_big(raw, 1280) is None, sentence
