"""What a directed pair should be like: delay, jitter, loss, reorder, rate, MTU.

Pure: `Conditions` is one frozen wish per direction, `changed` reads a wish from outside and
refuses what can't be, naming the value and what to write instead. It refuses to know who carries
frames, and how.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

MAX_ONE_WAY_MS = 60_000.0
MAX_JITTER_MS: Final = 10_000.0
MIN_RATE_BPS: Final = 8_000
MAX_RATE_BPS: Final = 100_000_000_000
MIN_MTU_BYTES: Final = 576
MAX_MTU_BYTES: Final = 65_535

QUEUE_MS: Final = 100.0
"""How long a packet may wait for a limited rate: what comes when the queue is that full is dropped."""
MIN_QUEUE_BYTES: Final = 24 << 10
"""But so much may always wait, or a slow link would drop what one TCP sends at once (16 packets)."""
HELD_MS: Final = 5.0
"""A packet picked for `reorder` leaves so much after its time: those behind it overtake."""


class ConfigError(ValueError):
    """The wish can't be served; the text names the value and what to write instead."""


class Conditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One direction between two ports. Everything but the delay is off at 0.

    `jitter_ms` varies each packet's delay evenly by up to that much both ways and keeps the order;
    only `reorder` (the ratio of packets held back by HELD_MS) changes it. `loss` is a ratio, of
    packets, drawn for each alone. `rate_bps` counts Ethernet frames without preamble, and queues at
    most QUEUE_MS. An IP packet larger than `mtu_bytes` is dropped and its sender told by ICMP, or
    not when `mtu_silent`. Below 1280 it is a hole for IPv6, told or not: no sender goes below that
    (RFC 8200 section 5, RFC 8201 section 4).
    """

    one_way_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    rate_bps: int = 0
    mtu_bytes: int = 0
    mtu_silent: bool = False

    @property
    def per_packet(self) -> bool:
        """Whether anything is asked that is a matter of packets: then no frame may pass as a whole."""
        return bool(self.jitter_ms or self.loss or self.reorder or self.rate_bps or self.mtu_bytes)

    @property
    def queue_ns(self) -> int:
        """How long a packet may wait for the rate."""
        return max(round(QUEUE_MS * 1e6), serial_ns(MIN_QUEUE_BYTES, self.rate_bps))


FIELDS: Final = Conditions.__struct_fields__
_RANGES: Final = {
    "jitter_ms": (0.0, MAX_JITTER_MS, "milliseconds"),
    "loss": (0.0, 1.0, "a ratio, 0.01 for one packet in a hundred"),
    "reorder": (0.0, 1.0, "a ratio, 0.01 for one packet in a hundred"),
    "rate_bps": (MIN_RATE_BPS, MAX_RATE_BPS, "bits per second, or 0 for no bound"),
    "mtu_bytes": (MIN_MTU_BYTES, MAX_MTU_BYTES, "bytes of an IP packet, or 0 for no bound"),
}


def serial_ns(size_bytes: int, rate_bps: int) -> int:
    """How long so many bytes take at that rate; 0 without a rate."""
    return size_bytes * 8_000_000_000 // rate_bps if rate_bps else 0


def one_way_ns(value_ms: float, where: str) -> int:
    """Milliseconds to nanoseconds; `ConfigError` outside 0..MAX_ONE_WAY_MS."""
    if not (math.isfinite(value_ms) and 0 <= value_ms <= MAX_ONE_WAY_MS):
        raise ConfigError(f"{where}: {value_ms} ms is not a delay; write 0 to {MAX_ONE_WAY_MS:.0f}")
    return round(value_ms * 1e6)


def changed(base: Conditions, wishes: Mapping[str, Any]) -> Conditions:
    """`base` with these fields instead. Raises ConfigError; then nothing of it counts."""
    if not wishes:
        raise ConfigError(f"nothing to set; write one of {', '.join(FIELDS)}")
    return msgspec.structs.replace(base, **{name: _checked(name, value) for name, value in wishes.items()})


def differing(now: Conditions, planet: Conditions) -> dict[str, float | int | bool]:
    """The fields that are not as on the planet, with their values now."""
    return {name: getattr(now, name) for name in FIELDS if getattr(now, name) != getattr(planet, name)}


def _checked(name: str, value: object) -> float | int | bool:
    if name not in FIELDS:
        raise ConfigError(f"{name[:40]!r} is no condition; there are {', '.join(FIELDS)}")
    if name == "mtu_silent":
        if not isinstance(value, bool):
            raise ConfigError(f"mtu_silent is {str(value)[:40]!r}; write true or false")
        return value
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError(f"{name} is {str(value)[:40]!r}; write a number")
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise ConfigError(f"{name} is too large; write a number that fits")
    if name == "one_way_ms":
        one_way_ns(value, name)
        return float(value)
    low, high, unit = _RANGES[name]
    if value != 0 and not low <= value <= high:
        raise ConfigError(f"{name} is {value}; write {low:g} to {high:.12g}: {unit}")
    if name in ("rate_bps", "mtu_bytes"):
        if value != int(value):
            raise ConfigError(f"{name} is {value}; write a whole number: {unit}")
        return int(value)
    return float(value)
