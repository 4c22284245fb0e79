"""One direction of a link as it is now, and how that is said. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

Value = float | int | bool

_UNITS: Final = ((1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1_000, "kbit/s"), (1, "bit/s"))


class LinkState(msgspec.Struct, frozen=True, kw_only=True):
    """A directed pair of POPs; `differs` has the conditions that are not as on the planet."""

    origin: str
    to: str
    cut: bool
    one_way_ms: float
    planet_one_way_ms: float
    differs: dict[str, Value]

    @property
    def as_planned(self) -> bool:
        """Whether it is as the planet says, in every respect."""
        return not self.cut and not self.differs

    def text(self) -> str:
        """`145 ms, loss 1%`: the delay, and every condition that is on."""
        return ", ".join([f"{self.one_way_ms:g} ms", *_conditions(self.differs), *(["cut"] * self.cut)])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = msgspec.structs.asdict(self)
        return {"from": values.pop("origin"), **values, "text": self.text()}


def link_state(origin: str, to: str, pair: Mapping[str, Any]) -> LinkState:
    """From the fabric's own words about a pair."""
    return LinkState(
        origin=origin,
        to=to,
        cut=pair["cut"],
        one_way_ms=pair["one_way_ms"],
        planet_one_way_ms=pair["planet_one_way_ms"],
        differs=pair["differs"],
    )


def _conditions(differs: Mapping[str, Value]) -> Iterator[str]:
    if "jitter_ms" in differs:
        yield f"jitter {differs['jitter_ms']:g} ms"
    for name in ("loss", "reorder"):
        if name in differs:
            yield f"{name} {differs[name] * 100:g}%"
    if "rate_bps" in differs:
        yield f"at most {rate_text(int(differs['rate_bps']))}"
    if "mtu_bytes" in differs:
        yield f"MTU {differs['mtu_bytes']}" + (", which nobody is told" if differs.get("mtu_silent") else "")


def rate_text(rate_bps: int) -> str:
    """`10 Mbit/s`."""
    size, unit = next((size, unit) for size, unit in _UNITS if rate_bps >= size or size == 1)
    return f"{rate_bps / size:g} {unit}"
