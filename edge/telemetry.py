"""What a node counts, for a scraper.

Names and labels are frozen by a test: a dashboard that reads them today reads them next
year. Label values are the words of the README; `labels()` is resolved once per tuple and
kept, since resolving it for every request costs more than the rest of the record.
"""

from functools import lru_cache
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

_DURATIONS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0
)  # fmt: skip
STAGES: Final = ("route", "queue", "hydrate", "infer")


class Metrics:
    """All metrics of a proxy. One instance per process, its own registry."""

    def __init__(self, *, node: str, pop: str, version: str) -> None:
        self.registry = CollectorRegistry()
        self._pop = pop
        self._requests = Counter(
            "edge_requests",
            "Requests answered, by route (serve, queue, shed) and HTTP status code.",
            ("pop", "served_by", "model", "route", "code"),
            registry=self.registry,
        )
        self._duration = Histogram(
            "edge_request_duration_seconds",
            "From a complete request head to the answer being written.",
            ("pop", "model", "route"),
            buckets=_DURATIONS_S,
            registry=self.registry,
        )
        self._stage = Histogram(
            "edge_stage_duration_seconds",
            "Where the time of a request went.",
            ("pop", "stage"),
            buckets=_DURATIONS_S,
            registry=self.registry,
        )
        self._decisions = Counter(
            "edge_routing_decisions", "Decisions by reason.", ("reason",), registry=self.registry
        )
        self._dropped = Counter(
            "edge_dropped", "Requests refused or failed, by reason.", ("reason",), registry=self.registry
        )
        self._hydration_bytes = Counter(
            "edge_hydration_bytes",
            "Weight bytes moved, by where they came from.",
            ("source",),
            registry=self.registry,
        )
        self.hydration = Histogram(
            "edge_hydration_seconds",
            "From a cold request to its model being resident on the device.",
            ("model", "source"),
            buckets=_DURATIONS_S,
            registry=self.registry,
        )
        self.cache_bytes = Gauge(
            "edge_cache_bytes", "Bytes of weights, by tier.", ("tier",), registry=self.registry
        )
        self.cache_limit_bytes = Gauge(
            "edge_cache_limit_bytes", "Budget of each tier.", ("tier",), registry=self.registry
        )
        self.queue_depth = Gauge("edge_queue_depth", "Requests waiting at the door.", registry=self.registry)
        self.in_flight = Gauge(
            "edge_in_flight", "Requests running, by endpoint.", ("served_by",), registry=self.registry
        )
        self.endpoint_up = Gauge(
            "edge_endpoint_up", "1 while requests may be sent there.", ("served_by",), registry=self.registry
        )
        self.connections = Gauge(
            "edge_connections", "Open connections of the front door.", registry=self.registry
        )
        self.announced = Gauge(
            "edge_announced", "1 while this node announces the VIP.", registry=self.registry
        )
        self.exits = Gauge(
            "edge_child_exits",
            "How often a child process of this node has died.",
            ("role",),
            registry=self.registry,
        )
        self._child = lru_cache(maxsize=4096)(self._resolve)
        self.decision = lru_cache(maxsize=64)(lambda reason: self._decisions.labels(reason).inc)
        self.drop = lru_cache(maxsize=64)(lambda reason: self._dropped.labels(reason).inc)
        self.moved = lru_cache(maxsize=8)(lambda source: self._hydration_bytes.labels(source).inc)
        self._stages = {stage: self._stage.labels(pop, stage).observe for stage in STAGES}
        build = Gauge(
            "edge_build_info", "1; the labels tell.", ("node", "pop", "version"), registry=self.registry
        )
        build.labels(node, pop, version).set(1)

    def _resolve(self, served_by: str, model: str, route: str, code: int) -> tuple[Any, Any]:
        return (
            self._requests.labels(self._pop, served_by, model, route, str(code)).inc,
            self._duration.labels(self._pop, model, route).observe,
        )

    def record(self, *, served_by: str, model: str, route: str, code: int, seconds: float) -> None:
        """One answered request; `model` is a name of the catalogue or "": labels stay bounded."""
        increment, observe = self._child(served_by, model, route, code)
        increment()
        observe(seconds)

    def stages(self, route_ms: float, queue_ms: float, hydrate_ms: float, infer_ms: float) -> None:
        """The four stages of one served request, in milliseconds."""
        stages = self._stages
        stages["route"](route_ms / 1000.0)
        stages["queue"](queue_ms / 1000.0)
        stages["hydrate"](hydrate_ms / 1000.0)
        stages["infer"](infer_ms / 1000.0)

    def exposition(self) -> bytes:
        """The text a scraper reads."""
        return generate_latest(self.registry)
