"""What a node tells its operator: metrics, its state, its models.

Each answer is put together when it is asked for; nothing here is on a request's path.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from edge.config import NodeConfig
from edge.errors import EdgeError
from edge.fleet.snapshot import Fleet
from edge.http.server import FrontDoor
from edge.policy.facts import State
from edge.proxy.models import Models
from edge.proxy.upstream import Upstream
from edge.telemetry import Metrics
from edge.wire import calls
from edge.wire.dial import Dialer


class Report:
    """Reads the parts of a proxy; changes nothing but the gauges that a scrape sets."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        version: str,
        fleet: Fleet,
        front: FrontDoor,
        models: Models,
        upstream: Upstream,
        store: Dialer,
        metrics: Metrics,
        ask_parent: Callable[[calls.Head], Awaitable[object]],
    ) -> None:
        self._config = config
        self._version = version
        self._fleet = fleet
        self._front = front
        self._models = models
        self._upstream = upstream
        self._store = store
        self._metrics = metrics
        self._ask_parent = ask_parent

    async def scrape(self) -> bytes:
        """The metrics page, its gauges set now."""
        metrics = self._metrics
        metrics.queue_depth.set(self._fleet.waiting)
        metrics.connections.set(self._front.statistics().connections)
        for endpoint in self._fleet.endpoints.values():
            metrics.in_flight.labels(endpoint.name).set(endpoint.in_flight)
            metrics.endpoint_up.labels(endpoint.name).set(endpoint.state is State.UP)
        for name, worker in self._upstream.workers.items():
            metrics.cache_bytes.labels(f"device:{name}").set(worker.used_bytes)
        with contextlib.suppress(EdgeError):
            weights = (await self._store.shared().request(calls.Status(), timeout_s=2.0)).head
            if isinstance(weights, calls.WeightsState):
                metrics.cache_bytes.labels("disk").set(weights.disk_used_bytes)
                metrics.cache_bytes.labels("host").set(weights.host_used_bytes)
                metrics.cache_limit_bytes.labels("disk").set(weights.disk_bytes)
                metrics.cache_limit_bytes.labels("host").set(weights.host_bytes)
        with contextlib.suppress(EdgeError):
            tree = await self._ask_parent(calls.Tree())
            if isinstance(tree, calls.TreeState):
                metrics.announced.set(tree.announcement == "announced")
                for child in tree.children:
                    metrics.exits.labels(child.role).set(child.exits)
        return metrics.exposition()

    async def state(self) -> object:
        """One JSON document: who this is, its tree, its endpoints, its store, its models."""
        config = self._config
        state: dict[str, Any] = {
            "schema_version": 1,
            "version": self._version,
            "node": config.node,
            "pop": config.pop,
            "region": config.region,
            "front_door": self._front.statistics()._asdict(),
            "waiting": self._fleet.waiting,
            "endpoints": [
                {
                    "name": e.name,
                    "home": e.home,
                    "state": str(e.state),
                    "in_flight": e.in_flight,
                    "soft_limit": e.soft_limit,
                    "hard_limit": e.hard_limit,
                    "service_ms": round(e.service_ms, 3),
                    "warm": sorted(e.warm),
                }
                for e in self._fleet.endpoints.values()
            ],
            "origin_up": self._models.origin_up,
            "catalogue_epoch": self._models.catalogue.epoch if self._models.catalogue else None,
        }
        with contextlib.suppress(EdgeError):
            state["weights"] = (await self._store.shared().request(calls.Status(), timeout_s=2.0)).head
        with contextlib.suppress(EdgeError):
            state["tree"] = await self._ask_parent(calls.Tree())
        return state

    async def model_list(self) -> object:
        """Every model of the catalogue and where it lies at this node."""
        catalogue = self._models.catalogue
        names = sorted(catalogue.models) if catalogue is not None else []
        rows = []
        for name in names:
            version, digest = self._models.resolve(name, "")
            warm = [e.name for e in self._fleet.endpoints.values() if digest in e.warm]
            rows.append({"model": name, "version": version, "digest": digest, "on_device": warm})
        return {"schema_version": 1, "models": rows}
