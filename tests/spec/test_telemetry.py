"""Names and labels of metrics are frozen: dashboards read them. And the numbers add up."""

from prometheus_client.parser import text_string_to_metric_families

from edge.telemetry import MAX_MODEL_LABELS, MAX_WHERE_LABELS, Metrics

NAMES = {
    "edge_announced": {()},
    "edge_beacons": {("outcome", "peer")},
    "edge_build_info": {("node", "pop", "version")},
    "edge_cache_bytes": {("tier",)},
    "edge_cache_evictions": {("tier",)},
    "edge_cache_limit_bytes": {("tier",)},
    "edge_cache_resident_bytes": {("tier",)},
    "edge_child_exits": {("role",)},
    "edge_connections": {()},
    "edge_dropped": {("reason",)},
    "edge_endpoint_up": {("served_by",)},
    "edge_forwarded": {("model", "outcome")},
    "edge_host_undersized": {()},
    "edge_hydration_bytes": {("source",)},
    "edge_hydration_estimate_error_ratio": {("source",)},
    "edge_hydration_failures": {("reason",)},
    "edge_hydration_seconds": {("model", "source")},
    "edge_in_flight": {("served_by",)},
    "edge_index_up": {()},
    "edge_loop_blocked": {("where",)},
    "edge_peer_rtt_seconds": {("peer",)},
    "edge_peer_standing": {("peer", "standing")},
    "edge_quarantined": {("source", "why")},
    "edge_queue_depth": {()},
    "edge_request_duration_seconds": {("model", "pop", "route")},
    "edge_requests": {("code", "model", "pop", "route", "served_by")},
    "edge_routing_decisions": {("reason",)},
    "edge_scrub_blobs": {("found",)},
    "edge_scrub_bytes": {()},
    "edge_stage_duration_seconds": {("pop", "stage")},
    "edge_state_age_seconds": {("peer",)},
}


def scraped():
    metrics = Metrics(node="n", pop="p", version="1")
    for seconds in (0.0004, 0.001, 0.02, 99.0):
        metrics.record(served_by="n/0", model="m", route="serve", code=200, seconds=seconds)
    metrics.stages(0.1, 0.2, 0.0, 3.0)
    metrics.decision("warm")
    metrics.drop("deadline")()
    metrics.weights.moved_bytes = {"origin": 5}
    metrics.weights.evictions = {"disk": 1}
    metrics.weights.scrubbed = {"bad": 1}
    metrics.hydrated("m", "origin", 0.2)
    metrics.hydration_failed("no-space")
    metrics.estimated("origin", 0.1)
    metrics.cache_bytes.labels("disk").set(1)
    metrics.cache_limit_bytes.labels("disk").set(2)
    metrics.cache_resident_bytes.labels("host").set(1)
    metrics.in_flight.labels("n/0").set(0)
    metrics.endpoint_up.labels("n/0").set(1)
    metrics.exits.labels("proxy").set(0)
    metrics.forwarded("m", "served")
    metrics.blocked("edge.proxy.door:Door.answer")
    metrics.peer_age.labels("n-b").set(0.1)
    metrics.peer_rtt.labels("n-b").set(0.1)
    metrics.peer_standing.labels("n-b", "good").set(1)
    metrics.beacons.labels("n-b", "accepted").set(1)
    metrics.quarantined.labels("beacon", "schema").set(0)
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {family.name: family for family in families if not family.name.endswith("_created")}


def test_names_and_labels_are_frozen():
    seen = {
        name: {
            tuple(sorted(set(sample.labels) - {"le"}))
            for sample in family.samples
            if not sample.name.endswith("_created")
        }
        for name, family in scraped().items()
    }
    assert seen == NAMES


def test_every_metric_says_what_it_is():
    assert all(family.documentation for family in scraped().values())


def test_of_many_functions_that_block_the_loop_the_last_share_a_label():
    metrics = Metrics(node="n", pop="p", version="1")
    for number in range(MAX_WHERE_LABELS + 10):
        metrics.blocked(f"m:f{number}")
    metrics.blocked("m:f0")
    families = text_string_to_metric_families(metrics.exposition().decode())
    counts = {
        sample.labels["where"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "edge_loop_blocked_total"
    }
    assert (len(counts), counts["m:f0"], counts["other"]) == (MAX_WHERE_LABELS + 1, 2.0, 10.0)


def test_models_of_a_large_catalogue_share_a_label():
    metrics = Metrics(node="n", pop="p", version="1")
    for number in range(MAX_MODEL_LABELS + 10):
        metrics.hydrated(f"m{number}", "origin", 0.2)
    families = text_string_to_metric_families(metrics.exposition().decode())
    counts = {
        sample.labels["model"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "edge_hydration_seconds_count"
    }
    assert (len(counts), counts["m0"], counts[""]) == (MAX_MODEL_LABELS + 1, 1, 10)


def test_a_histogram_adds_up():
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for sample in scraped()["edge_request_duration_seconds"].samples
    }
    assert samples["edge_request_duration_seconds_count", None] == 4
    assert samples["edge_request_duration_seconds_bucket", "0.0005"] == 1
    assert samples["edge_request_duration_seconds_bucket", "0.001"] == 2, "an upper bound is inclusive"
    assert samples["edge_request_duration_seconds_bucket", "0.025"] == 3
    assert samples["edge_request_duration_seconds_bucket", "30.0"] == 3
    assert samples["edge_request_duration_seconds_bucket", "+Inf"] == 4
    assert abs(samples["edge_request_duration_seconds_sum", None] - 99.0214) < 1e-9
