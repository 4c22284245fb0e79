"""What `poplab fail --list` and `poplab faults` print. Pure: faults in, lines out."""

import datetime
from collections.abc import Sequence
from typing import Any, Final

from netlab.faults import Fault, Way
from netlab.wanlinks import LinkState

_EXAMPLES: Final = {
    "node": "fra-a",
    "parent": "fra-a/parent",
    "proxy": "fra-a/proxy",
    "weights": "fra-a/weights",
    "worker": "fra-a/worker, fra-a/worker-0",
    "bird": "fra-a/bird, r-fra/bird",
    "redis": "redis/eu",
    "origin": "origin",
    "link": "iad-fra",
}


def ways_text(ways: Sequence[Way]) -> str:
    """Every way to fail, by the kind of its target."""
    lines: list[str] = []
    kind = ""
    width = max(len(way.how) for way in ways)
    for way in ways:
        if way.kind != kind:
            kind = way.kind
            lines += ["", f"{kind}, as in {_EXAMPLES[kind]}"]
        lines.append(f"  {way.how.ljust(width)}  {way.does}")
        lines.append(f"  {' ' * width}  users see: {way.seen}")
        lines.append(f"  {' ' * width}  heal: {way.undo}")
    return "\n".join(lines[1:])


def broken_text(faults: Sequence[Fault], links: Sequence[LinkState], now_s: float) -> str:
    """What is broken, how long, and what takes it back; `now_s` is the wall clock.

    `links` are changed and in no book: `poplab link` and `poplab partition` did it.
    """
    if not faults and not links:
        return "nothing is broken on purpose"
    lines = []
    for fault in faults:
        lines.append(f"{fault.target}  {fault.how}  since {_clock(fault.at_s)}, {now_s - fault.at_s:.0f} s")
        lines.append(f"  {fault.way.does}")
        lines.append(f"  users see: {fault.way.seen}")
        lines.append(f"  undo it with `{fault.remedy}`")
    for link in links:
        lines.append(f"link from {link.origin} to {link.to}: {link.text()}")
        lines.append(f"  undo it with `poplab link {link.origin} {link.to} --mend`")
    return "\n".join(lines)


def fault_values(fault: Fault) -> dict[str, Any]:
    """A fault as plain values, for --json."""
    return {
        "target": fault.target,
        "kind": fault.kind,
        "how": fault.how,
        "at": _clock(fault.at_s),
        "at_s": fault.at_s,
        "does": fault.way.does,
        "seen": fault.way.seen,
        "undo": fault.way.undo,
        "passes": fault.way.passes,
        "command": fault.remedy,
    }


def _clock(at_s: float) -> str:
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).isoformat(timespec="seconds")
