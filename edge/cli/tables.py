"""What the longer documents of a node look like to people. Pure: documents in, text out.

A field that a node of another version does not tell is a dash. `edge.cli.show` draws tables.
"""

from typing import Any, Final

from edge.cli.show import text

_CANDIDATE: Final = {
    "endpoint": "endpoint",
    "score_ms": "score",
    "net_ms": "net",
    "queue_ms": "queue",
    "cold_ms": "cold",
    "exec_ms": "exec",
    "price_ms": "price",
    "in_flight": "in flight",
    "age_ms": "age",
    "standing": "standing",
    "why_not": "why not",
}
_ENDPOINT: Final = ("name", "region", "state", "standing", "rtt_ms", "in_flight", "soft_limit", "hard_limit")
_PEER: Final = (
    "node", "pop", "region", "standing", "rtt_ms", "age_ms", "version", "announced", "workers", "in_flight",
    "last_error",
)  # fmt: skip


def explained(document: dict[str, Any]) -> str:
    """A request's story, or a dry run: a line per decision, and below it its candidates. Times in ms."""
    steps = document.get("decisions")
    if steps is None:
        return f"{document.get('model')} version {document.get('version')}, now\n{_decided(document)}"
    head = (
        f"{document.get('request_id')}: {document.get('model')} version {document.get('version')}, "
        f"status {document.get('status')} by {document.get('served_by') or 'nobody'} "
        f"in {document.get('took_ms')} ms, {document.get('waited_ms')} of them waiting, "
        f"{document.get('executions')} executions\n"
    )
    return head + "".join(_decided(step) for step in steps)


def _decided(step: dict[str, Any]) -> str:
    decision = step.get("decision", {})
    line = f"{decision.get('route')}: {decision.get('reason')}"
    if target := decision.get("target"):
        line = f"{decision.get('route')} at {target}: {decision.get('reason')}, {decision.get('score_ms')} ms"
    if decision.get("next"):
        line += f"; next best {decision['next']}, {decision.get('next_ms')} ms"
    if "budget_ms" in decision:
        line += f"; may wait {decision['budget_ms']} ms"
    if decision.get("retry_after_s") is not None:
        line += f"; again after {decision['retry_after_s']} s"
    if "after_ms" in step:
        line = f"after {step['after_ms']} ms {line}"
    if step.get("failed"):
        line += f"; failed: {step['failed']}"
    rows = [
        {shown: row.get(name) for name, shown in _CANDIDATE.items()} for row in step.get("candidates", ())
    ]
    return line + "\n" + (text(rows, "  ") if rows else "  no candidates\n")


def peers(document: dict[str, Any]) -> str:
    """One line per other node, and a note for one whose beacons were refused."""
    rows = document.get("peers", [])
    if not rows:
        return "this node has no peers\n"
    shown = text([{name: row.get(name) for name in _PEER} for row in rows])
    for row in rows:
        bad = row.get("beacons", {}).get("quarantined")
        if bad:
            shown += f"{row.get('node')}: beacons refused: {text(bad).strip()}".replace("\n", ", ") + "\n"
    return shown


def _host(weights: dict[str, Any]) -> str:
    """What is held of the budget, and what of it lies in memory as far as that was measured."""
    told = f"{_mb(weights.get('host_used_bytes'))} of {_mb(weights.get('host_bytes'))}"
    if weights.get("host_resident_bytes") is not None:
        told += f", {_mb(weights['host_resident_bytes'])} in memory"
    if weights.get("host_undersized"):
        told += ", what is read in goes out again: lower weights.host_bytes, or add memory"
    return told


def status(state: dict[str, Any]) -> str:
    """The state in a screen; all of it is in --json."""
    tree, weights = state.get("tree") or {}, state.get("weights") or {}
    shown: dict[str, Any] = {name: state.get(name) for name in ("node", "pop", "region", "version", "phase")}
    shown["announcement"] = tree.get("announcement")
    shown["catalogue epoch"] = state.get("catalogue_epoch")
    shown["origin up"] = state.get("origin_up")
    shown["connections"] = (state.get("front_door") or {}).get("connections")
    shown["waiting"] = state.get("waiting")
    if weights:
        shown["disk"] = f"{_mb(weights.get('disk_used_bytes'))} of {_mb(weights.get('disk_bytes'))}"
        shown["host"] = _host(weights)
        shown["index"] = (weights.get("index") or {}).get("state")
    if tree.get("restarting"):
        shown["restarting"] = tree["restarting"]
    if tree.get("restart_problem"):
        shown["restart problem"] = tree["restart_problem"]
    shown["children"] = tree.get("children")
    shown["endpoints"] = [
        {**{name: row.get(name) for name in _ENDPOINT}, "warm models": len(row.get("warm", ()))}
        for row in state.get("endpoints", ())
    ]
    if state.get("peers"):
        shown["peers"] = [{name: row.get(name) for name in _PEER} for row in state["peers"]]
    return text(shown)


def models(document: dict[str, Any]) -> str:
    """One line per version; digests cut as people write them."""
    rows = [
        {**row, "digest": row["digest"][:12], "bytes": _mb(row.get("bytes"))}
        for row in document.get("models", [])
    ]
    return text(rows) if rows else "this node knows no models: its origin has published none, or is away\n"


_NEAR: Final = ("device", "host", "fetching")


def weights(document: dict[str, Any]) -> str:
    """The store's budgets and the region's index, then a line per model that is here."""
    state = document.get("weights")
    if state is None:
        return text(document)
    shown = {
        key: value for key, value in state.items() if key not in ("models", "fetching") and value is not None
    }
    rows = [_whereabouts(row) for row in document.get("models", ())]
    return text({**shown, "models": rows or "none"})


def near(document: dict[str, Any]) -> str:
    """What is on devices, held or on its way."""
    rows = [_whereabouts(row) for row in nearby(document)]
    return text(rows) if rows else "nothing is on a device, held or being fetched here\n"


def nearby(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of models that are on devices, held or on their way."""
    return [row for row in document.get("models", ()) if row["tier"] in _NEAR]


def _whereabouts(row: dict[str, Any]) -> dict[str, Any]:
    fetch = row.get("fetch")
    shown = {
        "model": row.get("model"),
        "version": row.get("version"),
        "digest": str(row.get("digest"))[:12],
        "tier": row.get("tier"),
        "size": _mb(row.get("bytes")),
        "on device": _mb(row.get("device_bytes")) if row.get("device_bytes") else "-",
        "in use": row.get("in_use"),
        "last used": _ago(row.get("used_s_ago")),
        "why": row.get("why"),
    }
    if fetch:
        left = f", {fetch['eta_s']:.0f} s left" if fetch.get("eta_s") is not None else ""
        sources = ", ".join(f"{_mb(count)} from {source}" for source, count in fetch["sources"].items())
        shown["fetch"] = (
            f"{_mb(fetch['bytes'])} of {_mb(fetch['of_bytes'])}, {_mb(fetch['bytes_per_s'])}/s{left}"
            + (f" ({sources})" if sources else "")
        )
    return shown


def _ago(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return "-"
    if seconds < 1.0:
        return "now"
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds // length_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _mb(size_bytes: Any) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if isinstance(size_bytes, int | float) else "-"
