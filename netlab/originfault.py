"""Ways in which an object store can fail on purpose, and how often it still must.

Pure: rules in, the next fault out. Knows object names and counts; refuses to know HTTP,
files and clocks.
"""

from typing import Literal, get_args

import msgspec

Kind = Literal["5xx", "stall", "drip", "cut", "corrupt", "200-to-range"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_RULES = 64
MAX_COUNT = 1_000_000


class BadFaultError(ValueError):
    """The fault can't be set; the text says which field and what to write."""


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """Fail the next `count` requests for names under `path_prefix`.

    5xx: 503 before anything. stall: half the body, then silence for `stall_s`. drip: the
    body at `drip_bps` bytes per second. cut: half the body, then the connection closes.
    corrupt: one byte in the middle is flipped. 200-to-range: the Range is ignored.
    All but 5xx befall GET only, and 200-to-range only a GET with a Range.
    """

    kind: Kind
    path_prefix: str = ""
    count: int = 1
    stall_s: float = 60.0
    drip_bps: int = 20_000


class Faults:
    """The rules in force, oldest first; of two that fit a request the newer one befalls it."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []

    def add(self, text: bytes) -> Fault:
        """Take a rule as JSON; `BadFaultError` says what is wrong with it."""
        try:
            fault = msgspec.json.decode(text, type=Fault)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadFaultError(f"{error}; kinds are {', '.join(KINDS)}") from error
        if not 1 <= fault.count <= MAX_COUNT:
            raise BadFaultError(f"count is {fault.count}; write 1 to {MAX_COUNT}")
        if not 0 < fault.stall_s <= 3600:
            raise BadFaultError(f"stall_s is {fault.stall_s}; write up to 3600 seconds")
        if fault.drip_bps < 1:
            raise BadFaultError(f"drip_bps is {fault.drip_bps}; write 1 byte per second or more")
        if len(self._rules) >= MAX_RULES:
            raise BadFaultError(f"{MAX_RULES} faults are set already; DELETE them first")
        self._rules.append(fault)
        return fault

    def clear(self, kind: str = "") -> None:
        """Behave from now on; with a kind, as far as that kind goes."""
        self._rules = [rule for rule in self._rules if kind not in ("", rule.kind)]

    def take(self, name: str, *, get: bool, ranged: bool) -> Fault | None:
        """The fault that befalls this request, used up by one; None for an honest answer."""
        for rule in reversed(self._rules):
            fits = rule.kind == "5xx" or (get and (ranged or rule.kind != "200-to-range"))
            if fits and name.startswith(rule.path_prefix):
                rule.count -= 1
                if rule.count == 0:
                    self._rules.remove(rule)
                return rule
        return None

    def listed(self) -> list[dict[str, object]]:
        """The rules in force with what is left of their counts."""
        return [msgspec.structs.asdict(rule) for rule in self._rules]
