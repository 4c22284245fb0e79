"""Of each model: what is where on this node, why it is held, when it was last used, how far a fetch is.

Joins the books of the devices with what the weight store tells. Pure: books in, rows out.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from edge.policy.facts import Tier
from edge.proxy.device import Book, Entry, Stage
from edge.proxy.models import Resolved
from edge.wire import calls

MIN_RATE: Final = 1.0


def whereabouts(
    books: Mapping[str, Book],
    held: Mapping[str, tuple[Tier, int]],
    state: calls.WeightsState,
    named: Mapping[str, Resolved],
    now_ms: float,
) -> list[dict[str, Any]]:
    """One row per model of which anything is here, what was used last in front.

    `books` by worker; `held` what lies whole on the disk, with its bytes; `named` what the catalogue
    says of a digest.
    """
    stored = {model.digest: model for model in state.models}
    coming = {fetch.digest: fetch for fetch in state.fetching}
    stays: dict[str, list[tuple[str, Entry]]] = {}
    for worker, book in books.items():
        for entry in book.entries():
            stays.setdefault(entry.digest, []).append((worker, entry))
    there = {
        digest for digest, one in stored.items() if one.disk_bytes or one.holds or one.pinned or one.kept
    }
    rows = [
        _row(
            digest,
            stays.get(digest, []),
            held.get(digest),
            stored.get(digest),
            coming.get(digest),
            named.get(digest),
            now_ms,
        )
        for digest in {*held, *there, *coming, *stays}
    ]
    return sorted(rows, key=lambda row: (_used(row), row["model"], row["version"]))


def _used(row: Mapping[str, Any]) -> float:
    return float("inf") if row["used_s_ago"] is None else row["used_s_ago"]


def _row(
    digest: str,
    stays: list[tuple[str, Entry]],
    held: tuple[Tier, int] | None,
    stored: calls.StoredModel | None,
    coming: calls.Fetching | None,
    named: Resolved | None,
    now_ms: float,
) -> dict[str, Any]:
    entries = [entry for _, entry in stays]
    name = named.model if named is not None else stored.model if stored is not None else ""
    version = named.version if named is not None else stored.version if stored is not None else ""
    known_bytes = named.weights_bytes if named is not None else 0
    return {
        "model": name or next((entry.model for entry in entries), ""),
        "version": version,
        "digest": digest,
        "tier": _tier(entries, held, stored, coming),
        "bytes": held[1] if held is not None else stored.total_bytes if stored is not None else known_bytes,
        "disk_bytes": held[1] if held is not None else stored.disk_bytes if stored is not None else 0,
        "device_bytes": sum(entry.device_bytes for entry in entries),
        "in_use": sum(entry.in_use for entry in entries),
        "used_s_ago": _used_s_ago(entries, stored, now_ms),
        "why": _why(stays, stored, coming, named),
        "devices": [
            {"worker": worker, "stage": str(entry.stage), "bytes": entry.device_bytes, "in_use": entry.in_use}
            for worker, entry in stays
        ],
        "fetch": _fetch(coming),
    }


def _tier(
    entries: Iterable[Entry],
    held: tuple[Tier, int] | None,
    stored: calls.StoredModel | None,
    coming: calls.Fetching | None,
) -> str:
    """How near it is; "partial" where only some of its blobs are here."""
    if any(entry.stage in (Stage.RESIDENT, Stage.LEAVING) for entry in entries):
        return str(Tier.DEVICE)
    if held is not None:
        return str(held[0])
    if stored is not None and stored.disk_bytes == stored.total_bytes:
        return str(Tier.HOST if stored.holds else Tier.DISK)
    return "fetching" if coming is not None else "partial"


def _used_s_ago(entries: list[Entry], stored: calls.StoredModel | None, now_ms: float) -> float | None:
    """Since a request used it, or somebody held it; None: not since the node was started."""
    if any(entry.in_use for entry in entries):
        return 0.0
    times_ms = [max(0.0, now_ms - entry.used_at_ms) for entry in entries]
    if stored is not None and stored.held_ms_ago is not None and not entries:
        times_ms.append(stored.held_ms_ago)
    return round(min(times_ms) / 1000.0, 1) if times_ms else None


def _why(
    stays: list[tuple[str, Entry]],
    stored: calls.StoredModel | None,
    coming: calls.Fetching | None,
    named: Resolved | None,
) -> list[str]:
    """Why it is kept, the strongest reason first; the last ones may go when room is needed."""
    why = [f"used by {entry.in_use} on {worker}" for worker, entry in stays if entry.in_use]
    if stored is not None and stored.pinned:
        why.append("pinned")
    if stored is not None and stored.kept:
        why.append("kept by the catalogue")
    for worker, entry in stays:
        if entry.stage is not Stage.RESIDENT:
            why.append(f"{entry.stage} on {worker}")
        elif not entry.in_use:
            why.append(f"on {worker}")
    others = (stored.holds if stored is not None else 0) - sum(
        entry.held_on is not None for _, entry in stays
    )
    if others > 0:
        why.append(f"held by {others} others")
    if coming is not None and not stays:
        why.append("being fetched")
    if not why:
        why.append("cache" if named is not None else "in no catalogue: gc lets it go")
    return why


def _fetch(coming: calls.Fetching | None) -> dict[str, Any] | None:
    if coming is None:
        return None
    left = coming.total_bytes - coming.done_bytes
    known = coming.bytes_per_s >= MIN_RATE
    return {
        "bytes": coming.done_bytes,
        "of_bytes": coming.total_bytes,
        "bytes_per_s": round(coming.bytes_per_s),
        "eta_s": round(left / coming.bytes_per_s, 1) if known else None,
        "sources": dict(coming.sources),
    }
