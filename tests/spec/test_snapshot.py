"""The fleet's books: what is heard, what is sent, what a decision reads of it."""

import msgspec
import pytest

from edge import clock
from edge.fleet.snapshot import Fleet
from edge.policy.facts import (
    Live,
    ModelBeacon,
    OnDevice,
    Pulse,
    Standing,
    State,
    Tier,
    WorkerBeacon,
)
from tests.support.facts import a_beacon, a_node, a_worker

WARM = OnDevice(service_ms=8.0, cost_ms=4.0)


@pytest.fixture
def woken():
    return []


@pytest.fixture
def fleet(woken):
    return Fleet(a_node(), changed=lambda: woken.append(True))


def heard(fleet, beacon, *, rtt_ms=90.0, at_ms=None):
    fleet.linked(beacon.node, True)
    fleet.measured_rtt(beacon.node, rtt_ms)
    fleet.take(beacon, clock.now_ms() if at_ms is None else at_ms)
    fleet.standing(beacon.node, Standing.GOOD)


def named(fleet, name):
    return {e.name: e for e in fleet.current(clock.now_ms()).endpoints}[name]


def test_each_worker_of_each_node_is_an_endpoint_nearest_first(fleet):
    a_worker(fleet)
    two = (WorkerBeacon(State.UP, 32, 128), WorkerBeacon(State.STARTING, 32, 128))
    heard(fleet, a_beacon("nrt-a", "ap"), rtt_ms=160.0)
    heard(fleet, a_beacon("fra-a", workers=two), rtt_ms=90.0)
    heard(fleet, a_beacon("iad-b", "us"), rtt_ms=0.3)
    ends = fleet.current(clock.now_ms()).endpoints
    assert [e.name for e in ends] == ["iad-a/0", "iad-b/0", "fra-a/0", "fra-a/1", "nrt-a/0"]
    assert [(e.here, e.home) for e in ends] == [(True, True), (False, True)] + [(False, False)] * 3
    assert ends[3].state is State.STARTING


def test_a_snapshot_is_shared_until_something_changes_and_never_changed_in_place(fleet):
    worker = a_worker(fleet)
    first = fleet.current(clock.now_ms())
    assert fleet.current(clock.now_ms()).endpoints is first.endpoints
    worker.resident("d1", 10.0)
    second = fleet.current(clock.now_ms())
    assert "d1" in second.endpoints[0].models
    assert "d1" not in first.endpoints[0].models


def test_how_full_a_device_is_and_what_a_model_takes_there_is_told(fleet):
    worker = a_worker(fleet)
    worker.used_bytes = 70
    worker.resident("d1", 10.0, 60)
    worker.learn("d1", 8.0, 1)
    worker.learn("d1", 8.0, 1)
    worker.resident("d1")
    told = fleet.beacon(2, boot=1, version="", announced=False)
    assert told.models["d1"].workers[0] == OnDevice(0.0, 8.0, 8.0, 10.0, 60)
    heard(fleet, a_beacon(workers=told.workers, models=told.models))
    for name in ("iad-a/0", "fra-a/0"):
        end = named(fleet, name)
        assert (end.used_bytes, end.models["d1"].device_bytes) == (70, 60), name


def test_models_of_a_beacon_are_found_at_their_workers_and_on_the_disk_of_the_node(fleet):
    models = {
        "d1": ModelBeacon(Tier.DISK, {0: WARM}),
        "d2": ModelBeacon(Tier.HOST),
        "d3": ModelBeacon(workers={0: WARM}),
    }
    heard(fleet, a_beacon(models=models))
    end = named(fleet, "fra-a/0")
    assert dict(end.models) == {"d1": WARM, "d3": WARM}
    assert dict(end.held) == {"d1": Tier.DISK, "d2": Tier.HOST}


def test_what_was_sent_counts_until_a_beacon_can_have_seen_it(fleet):
    heard(fleet, a_beacon())
    fleet.begin("fra-a/0", 20.0)
    assert named(fleet, "fra-a/0").live == Live(1, 1, 20.0)
    # This one left its node before the request came there.
    fleet.take(a_beacon(seq=2), clock.now_ms())
    assert named(fleet, "fra-a/0").live == Live(1, 1, 20.0)
    later = WorkerBeacon(State.UP, 32, 128, in_flight=1, queued_ms=20.0)
    fleet.take(a_beacon(seq=3, workers=(later,)), clock.now_ms() + 200.0)
    end = named(fleet, "fra-a/0")
    assert (end.live, end.in_flight, end.queued_ms) == (Live(1, 0, 0.0), 1, 20.0)
    fleet.end("fra-a/0", 20.0)
    assert named(fleet, "fra-a/0").live.in_flight == 0


def test_a_reply_brings_newer_state_than_the_last_beacon(fleet):
    heard(fleet, a_beacon(seq=5, models={"d1": ModelBeacon(workers={0: WARM})}))
    fleet.pulse("fra-a", Pulse(boot=1, seq=5, in_flight=7, queued_ms=70.0), "d1", clock.now_ms())
    end = named(fleet, "fra-a/0")
    assert (end.in_flight, end.queued_ms, dict(end.models)) == (7, 70.0, {}), "it said that d1 is gone"


@pytest.mark.parametrize(
    "pulse",
    [
        Pulse(boot=1, seq=4, in_flight=7),
        Pulse(boot=0, seq=99, in_flight=7),
        Pulse(boot=1, seq=9, worker=3, in_flight=7),
        Pulse(boot=1, seq=9, worker=-1, in_flight=7),
    ],
    ids=["older than the beacon", "of an earlier boot", "of no worker", "of no worker either"],
)
def test_a_pulse_that_can_not_be_used_changes_nothing(fleet, pulse):
    heard(fleet, a_beacon(seq=5))
    fleet.pulse("fra-a", pulse, "d1", clock.now_ms())
    assert named(fleet, "fra-a/0").in_flight == 0


def test_waiters_are_woken_by_what_may_help_them_and_not_by_every_beacon(fleet, woken):
    busy = WorkerBeacon(State.UP, 32, 128, in_flight=9)
    heard(fleet, a_beacon(workers=(busy,)))
    woken.clear()
    fleet.take(a_beacon(seq=2, workers=(busy,)), clock.now_ms())
    assert not woken
    fleet.take(a_beacon(seq=3, workers=(msgspec.structs.replace(busy, in_flight=8),)), clock.now_ms())
    assert len(woken) == 1
    fleet.linked("fra-a", False)
    assert len(woken) == 2


def test_who_waits_for_a_worker_of_another_node_to_start_is_woken_when_it_is_up(fleet, woken):
    starting = WorkerBeacon(State.STARTING, 32, 128)
    heard(fleet, a_beacon(workers=(starting,)))
    woken.clear()
    fleet.take(a_beacon(seq=2, workers=(msgspec.structs.replace(starting, state=State.UP),)), clock.now_ms())
    assert len(woken) == 1


def test_a_node_that_drains_is_no_longer_good_whatever_the_link_says(fleet):
    heard(fleet, a_beacon(draining=True))
    assert named(fleet, "fra-a/0").standing is Standing.DRAINING
    fleet.standing("fra-a", Standing.OUT)
    assert named(fleet, "fra-a/0").standing is Standing.OUT


def test_a_forgotten_node_is_gone_and_what_ends_there_later_does_no_harm(fleet):
    heard(fleet, a_beacon())
    fleet.begin("fra-a/0", 20.0)
    fleet.forget("fra-a")
    assert fleet.current(clock.now_ms()).endpoints == ()
    fleet.end("fra-a/0", 20.0)
    fleet.begin("fra-a/0", 20.0)


def test_this_node_s_beacon_tells_devices_disk_load_and_demand(fleet):
    worker = a_worker(fleet)
    worker.resident("d1", 100.0)
    worker.loading("d2", clock.now_ms() + 500.0)
    worker.begin(12.0)
    fleet.held = {"d1": Tier.HOST, "d3": Tier.DISK}
    fleet.evicting = lambda: frozenset({"d1"})
    for _ in range(5):
        fleet.learned.demanded("d3", clock.now_ms())
    told = fleet.beacon(7, boot=3, version="1", announced=True)
    assert (told.boot, told.seq, told.announced) == (3, 7, True)
    assert (told.workers[0].in_flight, told.workers[0].queued_ms) == (1, 12.0)
    assert (told.models["d1"].tier, told.models["d1"].evicting) == (Tier.HOST, True)
    assert told.models["d1"].workers[0].load_ms == 100.0
    assert 400.0 < told.models["d2"].workers[0].eta_ms <= 500.0
    assert told.models["d3"] == ModelBeacon(Tier.DISK)
    assert 0.0 < told.demand["d3"] < 5.0


def test_far_sources_are_linked_nodes_of_other_regions_that_have_it_nearest_first(fleet):
    disk = {"d1": ModelBeacon(Tier.DISK)}
    heard(fleet, a_beacon("nrt-a", "ap", models=disk, blobs="10.4.0.11:7444"), rtt_ms=160.0)
    heard(fleet, a_beacon("fra-a", "eu", models=disk, blobs="10.2.0.11:7444"), rtt_ms=90.0)
    heard(fleet, a_beacon("iad-b", "us", models=disk, blobs="10.1.0.12:7444"), rtt_ms=0.3)
    heard(fleet, a_beacon("syd-a", "au", models=disk), rtt_ms=1.0)
    heard(fleet, a_beacon("ams-a", "eu", models=disk, blobs="10.3.0.11:7444"), rtt_ms=80.0)
    fleet.linked("ams-a", False)
    assert [source.node for source in fleet.far_sources("d1")] == ["fra-a", "nrt-a"]


def test_names_are_unique(fleet):
    worker = a_worker(fleet)
    with pytest.raises(ValueError, match="iad-a/0"):
        fleet.add(worker)


def test_repr_fits_one_line(fleet):
    a_worker(fleet)
    assert repr(fleet) == "<Fleet iad-a/0 up good 0/4; 0 waiting>"
