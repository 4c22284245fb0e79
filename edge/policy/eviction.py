"""Which models leave a device so that another fits? Pure.

A victim is never one that is in use. The first form takes the one not used for the
longest; `rank` is the place where a dearer measure goes.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Resident(NamedTuple):
    """One model on a device; `busy` while requests run in it or it is loading."""

    digest: str
    device_bytes: int
    used_at_ms: float
    busy: bool


def rank(resident: Resident) -> float:
    """Lower leaves first."""
    return resident.used_at_ms


def plan(residents: Sequence[Resident], *, need_bytes: int, budget_bytes: int) -> tuple[str, ...] | None:
    """Digests to unload so that `need_bytes` fit; () when they fit now; None when they can't."""
    if need_bytes > budget_bytes:
        return None
    free_bytes = budget_bytes - sum(resident.device_bytes for resident in residents)
    victims: list[str] = []
    for resident in sorted((r for r in residents if not r.busy), key=rank):
        if free_bytes >= need_bytes:
            break
        free_bytes += resident.device_bytes
        victims.append(resident.digest)
    return tuple(victims) if free_bytes >= need_bytes else None
