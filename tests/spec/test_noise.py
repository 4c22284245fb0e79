"""What is news and what is noise."""

import msgspec
import pytest
from hypothesis import given

from edge.fleet.beacon import delta
from edge.fleet.noise import is_noise, steady, worth_telling
from edge.policy.facts import ModelBeacon, OnDevice, State, Tier
from tests.support.beacons import beacon, beacons, digest

CASES = [
    ("a long time that moves by 9 %", 500.0, 545.0, True),
    ("a long time that moves by 11 %", 500.0, 555.0, False),
    ("10 ms that move by 1.9 ms", 10.0, 11.9, True),
    ("10 ms that move by 2.1 ms", 10.0, 12.1, False),
    ("half a millisecond that moves by a third", 0.5, 0.66, True),
    ("half a millisecond that doubles", 0.5, 1.0, False),
    ("half a millisecond that halves", 0.5, 0.25, False),
    ("measured for the first time", 0.0, 0.1, False),
    ("ready now", 0.1, 0.0, False),
    ("nothing", 0.0, 0.0, True),
]


@pytest.mark.parametrize(("_", "told", "now", "noise"), CASES, ids=[row[0] for row in CASES])
def test_noise(_, told, now, noise):
    assert is_noise(told, now) is noise


def model(tier=Tier.DISK, service_ms=20.0, worker=0, **changes):
    return {"models": {digest(1): ModelBeacon(tier, {worker: OnDevice(0.0, service_ms)}, **changes)}}


def workers(**changes):
    one, *rest = beacon().workers
    return {"workers": (msgspec.structs.replace(one, **changes), *rest)}


NEWS = [
    ("nothing", model(), False),
    ("a service time by 1 ms", model(service_ms=21.0), False),
    ("a service time by half", model(service_ms=30.0), True),
    ("a model moved to another worker", model(worker=1), True),
    (
        "what a model takes on its device",
        {"models": {digest(1): ModelBeacon(Tier.DISK, {0: OnDevice(0.0, 20.0, device_bytes=9)})}},
        True,
    ),
    ("a model left the disk", model(tier=Tier.ORIGIN), True),
    ("a model is to be evicted", model(evicting=True), True),
    ("a model is gone", {"models": {}}, True),
    ("draining", model() | {"draining": True}, True),
    ("a worker died", model() | workers(state=State.DOWN), True),
    ("one more in flight, of three", model() | workers(in_flight=4), True),
    ("a millisecond more is queued", model() | workers(queued_ms=42.5), False),
    ("arrivals fade", model() | workers(arrivals_per_s=2.0), False),
    ("a worker less", model() | {"workers": beacon().workers[:1]}, True),
    ("another round trip by 1 ms", model() | {"rtts_ms": {"iad-a": 91.4, "nrt-a": 231.0}}, False),
    ("demand for a model that had none", model() | {"demand": {digest(9): 0.1}}, True),
]


@pytest.mark.parametrize(("_", "changes", "worth"), NEWS, ids=[row[0] for row in NEWS])
def test_what_is_worth_telling(_, changes, worth):
    told = beacon(**model())
    assert worth_telling(told, steady(told, beacon(seq=2, **changes))) is worth


def test_service_times_that_tremble_tell_no_model():
    told = beacon(200)
    trembling = {
        key: ModelBeacon(
            one.tier,
            {w: OnDevice(0.0, on.service_ms * 1.08, on.cost_ms, on.load_ms) for w, on in one.workers.items()},
        )
        for key, one in told.models.items()
    }
    now = steady(told, msgspec.structs.replace(told, seq=2, models=trembling))
    assert now.models == told.models
    assert len(delta(told, now)[1]) < 512


def test_small_steps_that_add_up_are_told_in_the_end():
    """What was told stays what is compared with."""
    told = beacon(**model(service_ms=20.0))
    now = told
    for service_ms in (21.0, 21.9, 22.5):
        now = steady(now, beacon(seq=2, **model(service_ms=service_ms)))
    assert now.models[digest(1)].workers[0].service_ms == 22.5


@given(beacons(1), beacons(2))
def test_what_is_not_noise_is_as_it_is(told, new):
    now = steady(told, new)
    assert (now.workers, now.draining, now.seq) == (new.workers, new.draining, new.seq)
    assert now.models.keys() == new.models.keys()
    for key, one in now.models.items():
        assert (one.tier, one.evicting, one.workers.keys()) == (
            new.models[key].tier,
            new.models[key].evicting,
            new.models[key].workers.keys(),
        )
    for key, rate in now.demand.items():
        assert is_noise(rate, new.demand[key], 0.005) or rate == new.demand[key]
