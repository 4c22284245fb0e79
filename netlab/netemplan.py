"""The WAN by the kernel's netem: which bridges, classes and qdiscs, as lines for `ip` and `tc -batch`.

Pure, written to tc-netem(8), tc-htb(8) and tc-u32(8). UNTESTED with netem itself, which the kernel here
has not: bridges, classes, filters and counters ran with pfifo in its place, and `tc` takes the
parameters. A port's egress has one HTB class per sender, found by source MAC, with a netem
behind each, so that every directed pair has its own. It refuses to know who runs the lines.

netem differs from the switch of ours: jitter may reorder, a reordered packet is sent at once and
needs a delay to overtake anything, and a frame of 64 KiB is one packet to it, so that loss is not
per packet while the senders offload. It has no MTU.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from netlab.wanconditions import QUEUE_MS, Conditions
from netlab.wanfabric import Fabric, Pair, WanConfig

LEAST_LIMIT: Final = 10_000
"""Packets that may wait in one netem; its own default of 1000 drops bulk at 80 ms."""
_PACKET_BITS: Final = 1500 * 8


def bridges(config: WanConfig) -> list[str]:
    """Lines for `ip -batch`: the segment is one bridge, every wire one of two ports."""
    groups = [("lan", config.lan.ports)] if config.lan.ports else []
    groups += [(f"wire{number}", (wire.a, wire.b)) for number, wire in enumerate(config.wires)]
    lines = []
    for name, ports in groups:
        lines += [f"link add {name} type bridge mcast_snooping 0", f"link set {name} up"]
        lines += [f"link set {port} master {name}" for port in ports]
    return lines


def qdiscs(config: WanConfig, fabric: Fabric) -> list[str]:
    """Lines for `tc -batch`: a netem for every directed pair."""
    lines = []
    for to in config.lan.ports:
        lines.append(f"qdisc add dev {to} root handle 1: htb default 0")
        for number, origin in _senders(config, to):
            lines += [
                f"class add dev {to} parent 1: classid 1:{number:x} htb rate 100gbit quantum 60000",
                f"filter add dev {to} parent 1: protocol all prio {number} "
                f"u32 match ether src {config.lan.macs[origin]} classid 1:{number:x}",
            ]
    return lines + [change(config, pair, "add") for pair in fabric.pairs.values()]


def change(config: WanConfig, pair: Pair, verb: str = "change") -> str:
    """The line that makes a pair's netem like its wish."""
    parent, handle = _place(config, pair)
    return f"qdisc {verb} dev {pair.to} {parent} handle {handle} {netem(pair.wish, cut=pair.cut)}"


def netem(wish: Conditions, *, cut: bool) -> str:
    """The qdisc and its parameters."""
    words = [f"netem limit {_limit(wish)} delay {wish.one_way_ms:g}ms"]
    if wish.jitter_ms:
        words.append(f"{wish.jitter_ms:g}ms")
    if cut or wish.loss:
        words.append(f"loss random {100 if cut else wish.loss * 100:g}%")
    if wish.reorder and wish.one_way_ms:
        words.append(f"reorder {wish.reorder * 100:g}%")
    # `change` keeps a rate that it is not told of; 0 lifts it.
    words.append(f"rate {wish.rate_bps}bit")
    return " ".join(words)


def refused(wish: Conditions) -> str:
    """Why netem can't do it; empty where it can."""
    if wish.mtu_bytes:
        return "netem knows no MTU; start the planet with --wan-engine afpacket"
    return ""


def counters(
    config: WanConfig, fabric: Fabric, told: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[Pair, int, int, int]]:
    """(pair, packets, bytes, drops) from what `tc -s -j qdisc show` tells; what lacks a field counts 0."""
    places = {(pair.to, _place(config, pair)[1]): pair for pair in fabric.pairs.values()}
    for row in told:
        pair = places.get((str(row.get("dev")), str(row.get("handle"))))
        if pair is not None and row.get("kind") == "netem":
            yield pair, int(row.get("packets", 0)), int(row.get("bytes", 0)), int(row.get("drops", 0))


def _limit(wish: Conditions) -> int:
    """Packets: what is under way at the rate, and what may wait for it."""
    if not wish.rate_bps:
        return max(LEAST_LIMIT, round(wish.one_way_ms * 1000))
    return max(16, round(wish.rate_bps * (wish.one_way_ms + QUEUE_MS) / 1000 / _PACKET_BITS))


def _senders(config: WanConfig, to: str) -> list[tuple[int, str]]:
    return [(number, port) for number, port in enumerate(config.lan.ports, 2) if port != to]


def _place(config: WanConfig, pair: Pair) -> tuple[str, str]:
    """Parent and handle of the pair's netem on the port where it leaves."""
    if pair.to not in config.lan.ports:
        return "root", "1:"
    number = next(number for number, port in _senders(config, pair.to) if port == pair.origin)
    return f"parent 1:{number:x}", f"{number:x}0:"
