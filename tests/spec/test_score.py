"""Each term of a score alone, in milliseconds, from numbers that can be checked in the head."""

from typing import Any

import pytest

from edge.policy.facts import Ask, Endpoint, Live, OnDevice, Rates, Snapshot, Standing, State, Tier
from edge.policy.score import (
    FETCH_FIXED_MS,
    FIRST_FLIGHT_BYTES,
    LOAD_FIXED_MS,
    OWN_LINK_BYTES,
    REGION_FIXED_MS,
    SUSPICION_MS,
    cold_ms,
    nearest_source,
    net_ms,
    price_ms,
    queue_ms,
    regions_holding,
    terms,
)

DIGEST = "d" * 64
NOW = 10_000.0
RATES = Rates(load=1_000.0, region=100.0, far=10.0, origin=1.0)


def end(**more: Any) -> Endpoint:
    settings: dict[str, Any] = {
        "name": "fra-a/0", "node": "fra-a", "pop": "fra", "region": "eu", "here": False, "home": False,
        "state": State.UP, "rtt_ms": 90.0, "bytes_per_ms": 1_000.0, "at_ms": NOW, "rates": RATES,
    }  # fmt: skip
    return Endpoint(**{**settings, **more})


def ask(**more: Any) -> Ask:
    settings: dict[str, Any] = {"model": "m", "digest": DIGEST, "deadline_ms": 30_000.0, "body_bytes": 0}
    return Ask(**{**settings, **more})


NETS = [
    ("a round trip", ask(), end(), 90.0),
    ("and the transfer, both ways", ask(body_bytes=4_000, reply_bytes=6_000), end(), 100.0),
    ("slow start: one round trip for each doubling", ask(body_bytes=FIRST_FLIGHT_BYTES + 1), end(bytes_per_ms=1e12), 180.0),
    ("two", ask(body_bytes=2 * FIRST_FLIGHT_BYTES), end(bytes_per_ms=1e12), 270.0),
    ("a link of its own: two more", ask(body_bytes=OWN_LINK_BYTES + 1), end(bytes_per_ms=1e12), 90.0 * (1 + 5 + 2)),
    ("a suspect seems twice as far", ask(), end(standing=Standing.SUSPECT), 180.0),
    ("and never near", ask(), end(rtt_ms=1.0, standing=Standing.SUSPECT), 1.0 + SUSPICION_MS),
]  # fmt: skip


@pytest.mark.parametrize(("_", "wish", "endpoint", "expected"), NETS, ids=[row[0] for row in NETS])
def test_net(_: str, wish: Ask, endpoint: Endpoint, expected: float) -> None:
    assert net_ms(endpoint, wish) == pytest.approx(expected)


QUEUES = [
    ("nothing", end(), None, 0.0),
    ("what it told and what was sent since", end(queued_ms=30.0, live=Live(1, 1, 10.0)), None, 40.0),
    ("two at once", end(queued_ms=30.0, parallel=2.0), None, 15.0),
    ("10 ms ago: it has worked since", end(queued_ms=30.0, at_ms=NOW - 10.0), None, 20.0),
    ("long ago: idle by now", end(queued_ms=30.0, at_ms=NOW - 100.0), None, 0.0),
    ("and others send as much as it works off", end(queued_ms=30.0, at_ms=NOW - 100.0, arrivals_per_s=50.0), None, 30.0),
    ("by what this model costs there", end(queued_ms=30.0, at_ms=NOW - 100.0, arrivals_per_s=50.0), OnDevice(cost_ms=40.0), 130.0),
    ("this node's own counts do not age", end(here=True, queued_ms=30.0, at_ms=NOW - 10.0), None, 30.0),
]  # fmt: skip


@pytest.mark.parametrize(("_", "endpoint", "on", "expected"), QUEUES, ids=[row[0] for row in QUEUES])
def test_queue(_: str, endpoint: Endpoint, on: OnDevice | None, expected: float) -> None:
    assert queue_ms(endpoint, ask(service_ms=20.0), NOW, on) == pytest.approx(expected)


HELD = {DIGEST: Tier.DISK}
LOAD = LOAD_FIXED_MS + 1_000.0
COLDS = [
    ("on the device", end(), OnDevice(), Tier.ORIGIN, 0.0),
    ("the rest of its ETA", end(at_ms=NOW - 30.0), OnDevice(eta_ms=100.0), Tier.ORIGIN, 70.0),
    ("overdue, and its node has not said so", end(at_ms=NOW - 300.0), OnDevice(eta_ms=100.0), Tier.ORIGIN, 1.0),
    ("on the node's disk", end(held=HELD), None, Tier.ORIGIN, LOAD),
    ("after the loads before it", end(held=HELD, loader_wait_ms=7.0), None, Tier.ORIGIN, LOAD + 7.0),
    ("in the region", end(), None, Tier.REGION, LOAD + REGION_FIXED_MS + 10_000.0),
    ("far", end(), None, Tier.FAR, LOAD + FETCH_FIXED_MS + 100_000.0),
    ("at the origin only", end(), None, Tier.ORIGIN, LOAD + FETCH_FIXED_MS + 1_000_000.0),
]  # fmt: skip


@pytest.mark.parametrize(("_", "endpoint", "on", "nearest", "expected"), COLDS, ids=[row[0] for row in COLDS])
def test_cold(_: str, endpoint: Endpoint, on: OnDevice | None, nearest: Tier, expected: float) -> None:
    assert cold_ms(endpoint, ask(weights_bytes=1_000_000), NOW, on, nearest) == pytest.approx(expected)


def test_a_model_of_unknown_size_is_not_taken_for_a_small_one() -> None:
    assert cold_ms(end(), ask(), NOW, None, Tier.REGION) > 600_000.0


def test_price_is_of_the_bytes_that_leave_the_region() -> None:
    world = Snapshot(now_ms=NOW, endpoints=(), region="us", ms_per_usd=1_000.0, usd_per_gib=0.5)
    wish = ask(body_bytes=1 << 29, reply_bytes=1 << 29)
    assert price_ms(end(), wish, world) == pytest.approx(500.0)
    assert price_ms(end(region="us"), wish, world) == 0.0
    assert terms(end(), wish, world, Tier.ORIGIN).price == pytest.approx(500.0)
    free = Snapshot(now_ms=NOW, endpoints=(), region="us", usd_per_gib=0.5)
    assert terms(end(), wish, free, Tier.ORIGIN).price == 0.0


@pytest.mark.parametrize(
    ("on", "expected_ms"),
    [(OnDevice(service_ms=8.0), 12.0), (OnDevice(), 30.0), (None, 30.0)],
    ids=["as measured there", "not measured there: as anywhere", "not there: as anywhere"],
)
def test_exec_is_the_service_time_of_a_body_of_this_size(on: OnDevice | None, expected_ms: float) -> None:
    endpoint = end(models={DIGEST: on} if on is not None else {})
    found = terms(
        endpoint, ask(service_ms=20.0, exec_factor=1.5), Snapshot(now_ms=NOW, endpoints=()), Tier.ORIGIN
    )
    assert found.exec == pytest.approx(expected_ms)


def test_this_node_is_no_way_away() -> None:
    found = terms(end(here=True), ask(body_bytes=1 << 20), Snapshot(now_ms=NOW, endpoints=()), Tier.ORIGIN)
    assert found.net == 0.0


def test_weights_come_from_the_nearest_disk() -> None:
    world = Snapshot(now_ms=NOW, endpoints=(end(held=HELD), end(region="us"), end(region="ap", held=HELD)))
    holding = regions_holding(DIGEST, world)
    assert holding == {"eu", "ap"}
    assert nearest_source("eu", holding) is Tier.REGION
    assert nearest_source("us", holding) is Tier.FAR
    assert nearest_source("us", frozenset()) is Tier.ORIGIN
