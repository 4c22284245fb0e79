"""What a node tells its operator: metrics, its state, its models, its peers.

Each answer is put together when it is asked for; nothing here is on a request's path.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from edge import clock
from edge.errors import EdgeError
from edge.policy.facts import Endpoint, Standing, State
from edge.proxy.parts import Parts
from edge.proxy.whereabouts import whereabouts
from edge.wire import calls, states, treecalls

SCHEMA_VERSION: Final = 1


class Report:
    """Reads the parts of a proxy; changes nothing but the gauges that a scrape sets."""

    def __init__(self, parts: Parts, *, ask_parent: Callable[[calls.Head], Awaitable[object]]) -> None:
        self._parts = parts
        self._ask_parent = ask_parent

    async def scrape(self) -> bytes:
        """The metrics page, its gauges set now."""
        parts = self._parts
        metrics = parts.metrics
        metrics.queue_depth.set(parts.fleet.waiting)
        metrics.connections.set(parts.front.statistics().connections)
        for endpoint in parts.fleet.current(clock.now_ms()).endpoints:
            metrics.in_flight.labels(endpoint.name).set(endpoint.live.in_flight)
            metrics.endpoint_up.labels(endpoint.name).set(endpoint.state is State.UP and endpoint.linked)
        for name, worker in parts.upstream.workers.items():
            metrics.cache_bytes.labels(f"device:{name}").set(worker.used_bytes)
        metrics.weights.evictions["device"] = sum(
            worker.loader.evictions for worker in parts.upstream.workers.values()
        )
        self._scrape_peers()
        weights = await self._weights()
        if weights is not None:
            metrics.weights.evictions["disk"] = weights.evictions
            scrubbed = weights.scrubbed
            metrics.weights.scrubbed_bytes = scrubbed.bytes
            metrics.weights.scrubbed = {"good": scrubbed.blobs - scrubbed.bad, "bad": scrubbed.bad}
            metrics.weights.moved_bytes = dict(weights.sources)
            metrics.cache_bytes.labels("disk").set(weights.disk_used_bytes)
            metrics.cache_bytes.labels("host").set(weights.host_used_bytes)
            if weights.host_resident_bytes is not None:
                metrics.cache_resident_bytes.labels("host").set(weights.host_resident_bytes)
            metrics.host_undersized.set(weights.host_undersized)
            metrics.cache_limit_bytes.labels("disk").set(weights.disk_bytes)
            metrics.cache_limit_bytes.labels("host").set(weights.host_bytes)
            metrics.index_up.set(weights.index.state == "up")
            metrics.quarantined.labels("index", "entry").set(weights.index.refused)
            metrics.quarantined.labels("origin", "blob").set(weights.quarantined)
        with contextlib.suppress(EdgeError):
            tree = await self._ask_parent(treecalls.Tree())
            if isinstance(tree, treecalls.TreeState):
                metrics.announced.set(tree.announcement.startswith("announced"))
                for child in tree.children:
                    metrics.exits.labels(child.role).set(child.exits)
        return metrics.exposition()

    def _scrape_peers(self) -> None:
        metrics, now_ms = self._parts.metrics, clock.now_ms()
        for node, peer in self._parts.peers.peers.items() if self._parts.peers is not None else ():
            age_ms = peer.age_ms(now_ms)
            if age_ms is not None:
                metrics.peer_age.labels(node).set(age_ms / 1000.0)
            if peer.rtt_ms is not None:
                metrics.peer_rtt.labels(node).set(peer.rtt_ms / 1000.0)
            for standing in Standing:
                metrics.peer_standing.labels(node, str(standing)).set(peer.standing is standing)
            counts = peer.statistics
            for outcome in ("accepted", "stale", "doubted", "resyncs"):
                metrics.beacons.labels(node, outcome).set(getattr(counts, outcome))
            metrics.beacons.labels(node, "quarantined").set(sum(counts.quarantined.values()))
            for why, count in counts.quarantined.items():
                metrics.quarantined.labels("beacon", why).set(count)

    async def state(self) -> object:
        """One JSON document: who this is, its tree, its endpoints, its peers, its store, its models."""
        parts, config = self._parts, self._parts.config
        catalogue = parts.models.catalogue
        state: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "version": parts.version,
            "node": config.node,
            "pop": config.pop,
            "region": config.region,
            "phase": str(parts.operate.phase),
            "front_door": parts.front.statistics()._asdict(),
            "waiting": parts.fleet.waiting,
            "endpoints": [_endpoint(e) for e in parts.fleet.current(clock.now_ms()).endpoints],
            "peers": self._peers(),
            "hydration": {
                "started": parts.hydrator.started,
                "loaded": parts.hydrator.loaded,
                "left": dict(parts.hydrator.left),
                "recent": [judged._asdict() for judged in parts.hydrator.recent],
                "expected": [scored._asdict() for scored in parts.estimates.recent],
            },
            "origin_up": parts.models.origin_up,
            "catalogue_epoch": catalogue.epoch if catalogue is not None else None,
        }
        weights = await self._weights()
        if weights is not None:
            state["weights"] = _whole(weights)
        with contextlib.suppress(EdgeError):
            state["tree"] = _whole(await self._ask_parent(treecalls.Tree()))
        return state

    async def peers(self) -> object:
        """Every other node: how it stands, how far it is, how old what it told is."""
        return {"schema_version": SCHEMA_VERSION, "node": self._parts.config.node, "peers": self._peers()}

    def _peers(self) -> list[dict[str, Any]]:
        parts, now_ms = self._parts, clock.now_ms()
        if parts.peers is None:
            return []
        rows = []
        for node, peer in sorted(parts.peers.peers.items()):
            view = parts.fleet.nodes.get(node)
            beacon = view.beacon if view is not None else None
            age_ms = peer.age_ms(now_ms)
            counts = peer.statistics
            rows.append(
                {
                    "node": node,
                    "address": f"{peer.address[0]}:{peer.address[1]}",
                    "pop": beacon.pop if beacon else None,
                    "region": beacon.region if beacon else None,
                    "version": peer.version,
                    "linked": peer.linked,
                    "standing": str(peer.standing) if peer.standing is not None else "unheard",
                    "rtt_ms": _rounded(peer.rtt_ms),
                    "age_ms": _rounded(age_ms),
                    "draining": beacon.draining if beacon else False,
                    "announced": beacon.announced if beacon else False,
                    "workers": len(beacon.workers) if beacon else 0,
                    "in_flight": sum(worker.in_flight for worker in beacon.workers) if beacon else 0,
                    "models": len(beacon.models) if beacon else 0,
                    "beacons": {
                        "accepted": counts.accepted,
                        "stale": counts.stale,
                        "doubted": counts.doubted,
                        "resyncs": counts.resyncs,
                        "quarantined": dict(counts.quarantined),
                        "last_bad": counts.last_bad,
                    },
                    "last_error": peer.dialer.last_error,
                }
            )
        return rows

    async def weights(self) -> object:
        """The weight store as it tells itself, and of each model what is where and why."""
        found = await self._weights()
        if found is None:
            return {"schema_version": SCHEMA_VERSION, "error": "the weight store does not answer"}
        parts = self._parts
        rows = whereabouts(
            {name: worker.book for name, worker in parts.upstream.workers.items()},
            parts.inventory.held,
            found,
            parts.models.by_digest,
            clock.now_ms(),
        )
        told = {"schema_version": SCHEMA_VERSION, "node": parts.config.node, "weights": _whole(found)}
        return {**told, "models": rows}

    async def _weights(self) -> calls.WeightsState | None:
        with contextlib.suppress(EdgeError):
            reply = await self._parts.store.shared().request(calls.Status(), timeout_s=2.0)
            return states.weights_state(reply.head, await reply.whole())
        return None

    async def model_list(self) -> object:
        """Every model of the catalogue and where it lies, as far as this node knows."""
        parts = self._parts
        catalogue = parts.models.catalogue
        rows = []
        endpoints = parts.fleet.current(clock.now_ms()).endpoints
        for name in sorted(catalogue.models) if catalogue is not None else ():
            for version in sorted(catalogue.models[name].versions, key=int) if catalogue is not None else ():
                found = parts.models.resolve(name, version)
                current = parts.models.resolve(name, "").version == version
                on = [(e.name, e.models[found.digest].eta_ms) for e in endpoints if found.digest in e.models]
                rows.append(
                    {
                        "model": name,
                        "version": version,
                        "current": current,
                        "digest": found.digest,
                        "bytes": found.weights_bytes,
                        "confine": sorted(found.confine),
                        "on_device": [name for name, eta_ms in on if eta_ms <= 0.0],
                        "loading": [name for name, eta_ms in on if eta_ms > 0.0],
                        "on_disk": self._on_disk(found.digest),
                    }
                )
        epoch = catalogue.epoch if catalogue is not None else None
        return {"schema_version": SCHEMA_VERSION, "epoch": epoch, "models": rows}

    def _on_disk(self, digest: str) -> list[str]:
        parts = self._parts
        own = [parts.config.node] if digest in parts.fleet.held else []
        return own + sorted(node for node, view in parts.fleet.nodes.items() if digest in view.held)


def _endpoint(e: Endpoint) -> dict[str, Any]:
    return {
        "name": e.name,
        "node": e.node,
        "pop": e.pop,
        "region": e.region,
        "here": e.here,
        "home": e.home,
        "state": str(e.state),
        "standing": str(e.standing),
        "linked": e.linked,
        "rtt_ms": round(e.rtt_ms, 3),
        "in_flight": e.live.in_flight if e.here else e.in_flight + e.live.unseen,
        "soft_limit": e.soft_limit,
        "hard_limit": e.hard_limit,
        "queued_ms": round(e.queued_ms + e.live.unseen_ms, 3),
        "service_ms": {digest: round(on.service_ms, 3) for digest, on in e.models.items()},
        "warm": sorted(digest for digest, on in e.models.items() if on.eta_ms <= 0.0),
    }


def _whole(value: object) -> object:
    """A struct of the wire with all its fields: the wire leaves out defaults, an operator's JSON does not."""
    if isinstance(value, msgspec.Struct):
        return {name: _whole(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    return value


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
