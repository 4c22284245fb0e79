"""What a node counts, for a scraper.

Names and labels are frozen by a test: a dashboard that reads them today reads them next
year. Label values are the words of the README.

What is counted for every request is kept as plain numbers and handed to the library when
it is scraped: its own counters lock and loop, and five histograms and two counters of them
were 16 % of the proxy's CPU at 32 connections.
"""

from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

_DURATIONS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0
)  # fmt: skip
_ERROR_RATIOS: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
STAGES: Final = ("route", "queue", "hydrate", "infer")
#: Models that have a label of their own in metrics of hydration: each is a dozen series per source.
MAX_MODEL_LABELS: Final = 256
#: Functions that have a label of their own as blockers of the event loop; the rest is "other".
MAX_WHERE_LABELS: Final = 64


class Spread:
    """A histogram as plain numbers: how many fell into each bucket, and their sum in seconds."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(_DURATIONS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """One duration."""
        self.counts[bisect_left(_DURATIONS_S, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, cumulative count) as the text format wants them."""
        total, rows = 0, []
        for bound, count in zip((*_DURATIONS_S, float("inf")), self.counts, strict=True):
            total += count
            rows.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
        return rows


class PerRequest(Collector):
    """What every request adds to, told to the library at a scrape."""

    def __init__(self, pop: str) -> None:
        self._pop = pop
        self.requests: dict[tuple[str, str, str, int], int] = {}
        self.durations: dict[tuple[str, str], Spread] = {}
        self.stages = {stage: Spread() for stage in STAGES}
        self.decisions: dict[str, int] = {}

    def collect(self) -> Iterator[Metric]:
        """The library's view of the numbers now."""
        requests = CounterMetricFamily(
            "edge_requests",
            "Requests answered, by route (serve, queue, shed) and HTTP status code.",
            labels=("pop", "served_by", "model", "route", "code"),
        )
        for (served_by, model, route, code), count in self.requests.items():
            requests.add_metric((self._pop, served_by, model, route, str(code)), count)
        yield requests
        durations = HistogramMetricFamily(
            "edge_request_duration_seconds",
            "From a complete request head to the answer being written.",
            labels=("pop", "model", "route"),
        )
        for (model, route), spread in self.durations.items():
            durations.add_metric((self._pop, model, route), spread.buckets(), spread.sum_s)
        yield durations
        stages = HistogramMetricFamily(
            "edge_stage_duration_seconds", "Where the time of a request went.", labels=("pop", "stage")
        )
        for stage, spread in self.stages.items():
            stages.add_metric((self._pop, stage), spread.buckets(), spread.sum_s)
        yield stages
        decisions = CounterMetricFamily("edge_routing_decisions", "Decisions by reason.", labels=("reason",))
        for reason, count in self.decisions.items():
            decisions.add_metric((reason,), count)
        yield decisions


class OfWeights(Collector):
    """What the weight store counts; set before a scrape. Its own restart begins them anew."""

    def __init__(self) -> None:
        self.moved_bytes: dict[str, int] = {}
        self.evictions: dict[str, int] = {}
        self.scrubbed_bytes = 0
        #: Blobs that were read again, by what they were found to be: good, bad.
        self.scrubbed: dict[str, int] = {}

    def collect(self) -> Iterator[Metric]:
        """The library's view of the numbers now."""
        moved = CounterMetricFamily(
            "edge_hydration_bytes", "Weight bytes moved, by where they came from.", labels=("source",)
        )
        for source, count in self.moved_bytes.items():
            moved.add_metric((source,), count)
        yield moved
        evictions = CounterMetricFamily(
            "edge_cache_evictions",
            "Evictions, by tier: models of a device, files of the disk.",
            labels=("tier",),
        )
        for tier, count in self.evictions.items():
            evictions.add_metric((tier,), count)
        yield evictions
        scrubbed = CounterMetricFamily(
            "edge_scrub_blobs", "Blobs on disk that were read again, by what was found.", labels=("found",)
        )
        for found, count in self.scrubbed.items():
            scrubbed.add_metric((found,), count)
        yield scrubbed
        yield CounterMetricFamily(
            "edge_scrub_bytes", "Bytes of the disk that were read again.", self.scrubbed_bytes
        )


class Metrics:
    """All metrics of a proxy. One instance per process, its own registry."""

    def __init__(self, *, node: str, pop: str, version: str) -> None:
        self.registry = CollectorRegistry()
        self._per_request = PerRequest(pop)
        self._hydrated_models: set[str] = set()
        self.registry.register(self._per_request)
        self.weights = OfWeights()
        self._dropped = Counter(
            "edge_dropped", "Requests refused or failed, by reason.", ("reason",), registry=self.registry
        )
        self.registry.register(self.weights)
        self._hydration = Histogram(
            "edge_hydration_seconds",
            "From a cold request to its model being resident on the device.",
            ("model", "source"),
            buckets=_DURATIONS_S,
            registry=self.registry,
        )
        self._estimate_error = Histogram(
            "edge_hydration_estimate_error_ratio",
            "How wrong it was expected, as a ratio of what a hydration took.",
            ("source",),
            buckets=_ERROR_RATIOS,
            registry=self.registry,
        )
        self._hydration_failures = Counter(
            "edge_hydration_failures",
            "Hydrations that did not end on a device, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.cache_bytes = Gauge(
            "edge_cache_bytes", "Bytes of weights, by tier.", ("tier",), registry=self.registry
        )
        self.cache_resident_bytes = Gauge(
            "edge_cache_resident_bytes",
            "Of edge_cache_bytes of the host tier, what lay in memory when it was measured last.",
            ("tier",),
            registry=self.registry,
        )
        self.host_undersized = Gauge(
            "edge_host_undersized",
            "1 while weights of the host tier go out of memory again soon after they were read in.",
            registry=self.registry,
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
        self.drop = lru_cache(maxsize=64)(lambda reason: self._dropped.labels(reason).inc)
        self._forwarded = Counter(
            "edge_forwarded",
            "Requests that other nodes sent here, by what became of them (served, refused, failed).",
            ("model", "outcome"),
            registry=self.registry,
        )
        self._of_forwarded = lru_cache(maxsize=1024)(
            lambda model, outcome: self._forwarded.labels(model, outcome)
        )
        self.peer_age = Gauge(
            "edge_state_age_seconds", "Age of the newest beacon, by node.", ("peer",), registry=self.registry
        )
        self.peer_rtt = Gauge(
            "edge_peer_rtt_seconds", "Smoothed round trip, by node.", ("peer",), registry=self.registry
        )
        self.peer_standing = Gauge(
            "edge_peer_standing",
            "1 for the standing a node has: good, suspect, draining, out.",
            ("peer", "standing"),
            registry=self.registry,
        )
        self.beacons = Gauge(
            "edge_beacons",
            "Beacons received since the start, by node and what became of them.",
            ("peer", "outcome"),
            registry=self.registry,
        )
        self.quarantined = Gauge(
            "edge_quarantined",
            "State that was refused since the start, by where it came from and why.",
            ("source", "why"),
            registry=self.registry,
        )
        self.index_up = Gauge("edge_index_up", "1 while the region's Redis answers.", registry=self.registry)
        self._blocked = Counter(
            "edge_loop_blocked",
            "Times the event loop did not turn for 100 ms and more, by the function it stood in.",
            ("where",),
            registry=self.registry,
        )
        self._blocked_where: set[str] = set()
        self._stages = tuple(self._per_request.stages[stage].observe for stage in STAGES)
        build = Gauge(
            "edge_build_info", "1; the labels tell.", ("node", "pop", "version"), registry=self.registry
        )
        build.labels(node, pop, version).set(1)

    def hydrated(self, model: str, source: str, seconds: float) -> None:
        """One model came to a device. Of a catalogue of thousands only the first names become labels."""
        if model not in self._hydrated_models:
            if len(self._hydrated_models) >= MAX_MODEL_LABELS:
                model = ""
            self._hydrated_models.add(model)
        self._hydration.labels(model, source).observe(seconds)

    def hydration_failed(self, reason: str) -> None:
        """One did not; `reason` is a word of edge.errors.Reason."""
        self._hydration_failures.labels(reason).inc()

    def estimated(self, source: str, error_ratio: float) -> None:
        """How wrong one was expected; `source` is a word of edge.policy.facts.Tier."""
        self._estimate_error.labels(source).observe(error_ratio)

    def blocked(self, where: str) -> None:
        """The event loop is blocked there, `module:function`. Called by another thread."""
        if where not in self._blocked_where:
            if len(self._blocked_where) >= MAX_WHERE_LABELS:
                where = "other"
            self._blocked_where.add(where)
        self._blocked.labels(where).inc()

    def decision(self, reason: str) -> None:
        """One decision."""
        counts = self._per_request.decisions
        counts[reason] = counts.get(reason, 0) + 1

    def forwarded(self, model: str, outcome: str) -> None:
        """One request of another node; `model` was checked against the catalogue's pattern."""
        self._of_forwarded(model, outcome).inc()

    def record(self, *, served_by: str, model: str, route: str, code: int, seconds: float) -> None:
        """One answered request; `model` is a name of the catalogue or "": labels stay bounded."""
        series = self._per_request
        key = (served_by, model, route, code)
        series.requests[key] = series.requests.get(key, 0) + 1
        spread = series.durations.get((model, route))
        if spread is None:
            spread = series.durations[model, route] = Spread()
        spread.observe(seconds)

    def stages(self, route_ms: float, queue_ms: float, hydrate_ms: float, infer_ms: float) -> None:
        """The four stages of one served request, in milliseconds."""
        route, queue, hydrate, infer = self._stages
        route(route_ms / 1000.0)
        queue(queue_ms / 1000.0)
        hydrate(hydrate_ms / 1000.0)
        infer(infer_ms / 1000.0)

    def exposition(self) -> bytes:
        """The text a scraper reads."""
        return generate_latest(self.registry)
