"""Endpoints, asks and worlds as the router sees them: home is iad-b/0, others are far by their round trip."""

from typing import Any

import msgspec

from edge.policy.facts import (
    Ask,
    Endpoint,
    Live,
    OnDevice,
    Snapshot,
    State,
)

DIGEST = "d" * 64
WARM = {DIGEST: OnDevice(service_ms=10.0, cost_ms=10.0)}
LOADING = {DIGEST: OnDevice(eta_ms=40.0)}
NOW = 10_000.0


def at(name: str, *, rtt_ms: float = 0.0, region: str = "us", **more: Any) -> Endpoint:
    """A warm worker of good standing; one of iad is at home, `rtt_ms` 0 there means of this very node."""
    node = name.partition("/")[0]
    pop = node.partition("-")[0]
    settings: dict[str, Any] = {
        "here": rtt_ms == 0.0,
        "home": pop == "iad",
        "state": State.UP,
        "models": WARM,
        "at_ms": NOW,
        "capacity_bytes": 1 << 30,
    }
    return Endpoint(name=name, node=node, pop=pop, region=region, rtt_ms=rtt_ms, **{**settings, **more})


def full(**more: Any) -> dict[str, Any]:
    """At its hard limit."""
    return {"live": Live(128, 128, 1_280.0), **more}


HOME = at("iad-b/0", rtt_ms=0.3)
FRA = at("fra-a/0", rtt_ms=90.0, region="eu")
NRT = at("nrt-a/0", rtt_ms=160.0, region="ap")


def world(*endpoints: Endpoint, **more: Any) -> Snapshot:
    return Snapshot(now_ms=NOW, endpoints=endpoints, pop="iad", region="us", **more)


def ask(**more: Any) -> Ask:
    settings: dict[str, Any] = {
        "model": "minilm",
        "digest": DIGEST,
        "deadline_ms": 30_000.0,
        "body_bytes": 100,
        "weights_bytes": 100_000_000,
    }
    return Ask(**{**settings, **more})


def but(endpoint: Endpoint, **changes: Any) -> Endpoint:
    return msgspec.structs.replace(endpoint, **changes)
