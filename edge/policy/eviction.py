"""Which models leave a device so that another, which a request waits for, fits? Pure.

The least value per byte leaves first: GreedyDual-Size-Frequency (Cherkasova 1998) without its
inflation term, as demand here forgets by itself. A victim is never one that is in use or
pinned, and one that came a moment ago only when nothing else is left. Whether a load is worth
it at all is not asked: somebody waits. For loads nobody waits for see `edge.policy.hydration`.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

MIN_RESIDENT_MS: Final = 30_000.0


class Resident(NamedTuple):
    """One model on a device; `busy` while requests run in it or it is loading.

    `demand_per_s` is requests per second that it answers, `reload_ms` what bringing it back would
    take. With neither known, the one not used for the longest leaves.
    """

    digest: str
    device_bytes: int
    used_at_ms: float
    busy: bool
    demand_per_s: float = 0.0
    reload_ms: float = 0.0
    pinned: bool = False
    resident_since_ms: float = 0.0


def rank(resident: Resident) -> tuple[float, float]:
    """Lower leaves first: ms of waiting per second and byte, then the time of the last use."""
    value = resident.demand_per_s * resident.reload_ms / max(1, resident.device_bytes)
    return value, resident.used_at_ms


def plan(
    residents: Sequence[Resident],
    *,
    need_bytes: int,
    budget_bytes: int,
    now_ms: float | None = None,
    min_resident_ms: float = MIN_RESIDENT_MS,
) -> tuple[str, ...] | None:
    """Digests to unload so that `need_bytes` fit; () when they fit now; None when they can't.

    Without `now_ms` no resident counts as new. No victim is named without which it would fit too.
    """
    if need_bytes > budget_bytes:
        return None
    free_bytes = budget_bytes - sum(resident.device_bytes for resident in residents)
    victims: list[Resident] = []
    for resident in sorted(
        (r for r in residents if not r.busy and not r.pinned),
        key=lambda r: (now_ms is not None and now_ms - r.resident_since_ms < min_resident_ms, rank(r)),
    ):
        if free_bytes >= need_bytes:
            break
        free_bytes += resident.device_bytes
        victims.append(resident)
    if free_bytes < need_bytes:
        return None
    for resident in reversed(victims.copy()):
        if free_bytes - resident.device_bytes >= need_bytes:
            free_bytes -= resident.device_bytes
            victims.remove(resident)
    return tuple(resident.digest for resident in victims)
