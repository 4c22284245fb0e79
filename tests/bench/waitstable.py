"""Rounds of a death -> one row -> Markdown. Pure, but for the topology that it asks for distances.

A row is missed when one round took longer than promised, or no answer came; it is void when so many frames
left late meanwhile that the times say more about the machine.
"""

import statistics
from collections.abc import Sequence
from typing import Any

from netlab.lab import Lab
from netlab.wanwatch import Seen
from tests.support.deaths import Death
from tests.support.waits import FAMILIES, Round, Waited


def summary(lab: Lab, death: Death, rounds: Sequence[Round]) -> dict[str, Any]:
    """Median and worst per family, in ms, and what the WAN did."""
    crossed = Seen(sum(one.crossed.frames for one in rounds), sum(one.crossed.late for one in rounds))
    row: dict[str, Any] = {
        "event": death.name,
        "sentence": death.sentence,
        "bound_ms": death.bound_ms,
        "rtt_ms": death.rtt_ms(lab),
        "allowed_ms": death.allowed_ms(lab),
        "missed": 0,
        "frames": crossed.frames,
        "late": crossed.late,
        "void": crossed.void,
    }
    for family in FAMILIES:
        seen = [one for each in rounds for one in each.waits if one.family == family]
        row[f"v{family}"] = _family(seen)
        row["missed"] += sum(one.after_ms is None or one.after_ms > row["allowed_ms"] for one in seen)
    return row


def _family(seen: Sequence[Waited]) -> dict[str, Any]:
    after = [one.after_ms for one in seen]
    return {
        "rounds_ms": [None if ms is None else round(ms, 1) for ms in after],
        "median_ms": median(after),
        "worst_ms": worst(after),
        "back_median_ms": median([one.back_ms for one in seen]),
        "refused": sum(one.refused for one in seen),
        "attempts": [one.attempts for one in seen],
    }


def median(times: Sequence[float | None]) -> float | None:
    """Of those that came."""
    came = [ms for ms in times if ms is not None]
    return round(statistics.median(came), 1) if came else None


def worst(times: Sequence[float | None]) -> float | None:
    """None where one did not come."""
    came = [ms for ms in times if ms is not None]
    return round(max(came), 1) if came and len(came) == len(times) else None


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| event | v4 median / worst, ms | v6 median / worst, ms | bound + 2 RTT, ms | back, v4 / v6 median, ms | late frames |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{_ms(row[f]['median_ms'])} / {_ms(row[f]['worst_ms'])}" for f in ("v4", "v6")]
        bound = f"{row['bound_ms']:.0f} + 2 x {row['rtt_ms']:.0f}" + (" **missed**" if row["missed"] else "")
        backs = [row[f]["back_median_ms"] for f in ("v4", "v6")]
        back = " / ".join(f"{ms:.0f}" for ms in backs if ms is not None)
        lines.append(f"| {row['sentence']} | {' | '.join([*cells, bound, back, _late(row)])} |")
    return "\n".join(lines)


def flap_table(row: dict[str, Any]) -> str:
    """Markdown: median and worst of the flaps."""
    lines = [
        "| event | | failed, median / worst | the POP changed, median / worst | late frames |",
        "|---|---|---|---|---|",
    ]
    for family in ("v4", "v6"):
        seen = row[family]
        failed = f"{seen['failed_median']:.1%} / {seen['failed_worst']:.1%}"
        changed = f"{seen['changes_median']} / {seen['changes_worst']} times"
        lines.append(
            f"| {row['sentence']}, {row['rounds']} times | {family} | {failed} | {changed} | {_late(row)} |"
        )
    return "\n".join(lines)


def _late(row: dict[str, Any]) -> str:
    return f"{row['late']} of {row['frames']}" + (", void" if row["void"] else "")


def _ms(value: float | None) -> str:
    return "none came" if value is None else f"{value:.0f}"
