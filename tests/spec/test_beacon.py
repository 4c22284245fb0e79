"""Beacons as bytes: what is refused, and differences that add up."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.fleet.beacon import (
    MAX_BYTES,
    MAX_GONE,
    MAX_MODELS,
    Bad,
    NeedWhole,
    Why,
    apply,
    decode_checked,
    delta,
    encode,
    fitted,
    tidy,
)
from edge.policy.facts import ModelBeacon, OnDevice, Rates, State, Tier, WorkerBeacon
from edge.wire.meshcalls import BeaconNews
from tests.support.beacons import beacon, beacons, digest

NESTED = b"\x81\xa4deep" + b"\x91" * 50_000 + b"\xc0"
PLAIN = msgspec.msgpack.decode(encode(beacon()))


def raw(**changes):
    """A beacon as a map, with fields of any type."""
    return msgspec.msgpack.encode(PLAIN | changes)


def worker(**changes):
    return {"workers": [{"state": "up", "soft_limit": 4, "hard_limit": 8} | changes]}


def on(index=0, **times):
    return {"models": {digest(1): {"tier": "disk", "workers": {index: times}}}}


POISON = [
    ("more than 256 KiB", b"\x00" * (MAX_BYTES + 1), Why.SIZE),
    ("no bytes", b"", Why.SCHEMA),
    ("cut in the middle", encode(beacon())[:-20], Why.SCHEMA),
    ("two beacons in one", encode(beacon()) * 2, Why.SCHEMA),
    ("a number instead of a map", b"\x07", Why.SCHEMA),
    ("nested 50,000 deep in a field that is not known", NESTED, Why.SCHEMA),
    ("a key that is no UTF-8", b"\x81\xa1\xff\x01", Why.SCHEMA),
    ("a seq that is text", raw(seq="1"), Why.SCHEMA),
    ("models that are a list", raw(models=[1, 2]), Why.SCHEMA),
    ("a state that does not exist", raw(**worker(state="great")), Why.SCHEMA),
    ("another node's name", raw(node="iad-a"), Why.NODE),
    ("a pop with a line break", raw(pop="fra\n"), Why.NAME),
    ("a region of 33 characters", raw(region="r" * 33), Why.NAME),
    ("a version of 65 characters", raw(version="1" * 65), Why.TEXT),
    ("a provider with an escape sequence", raw(provider="\x1b[2J"), Why.TEXT),
    ("a device with a NUL", raw(**worker(device="cpu\0"), models={}), Why.TEXT),
    ("blobs at a name instead of an address", raw(blobs="evil.example:80"), Why.ADDRESS),
    ("seq 0", raw(seq=0), Why.ORDER),
    ("a negative boot", raw(boot=-1), Why.ORDER),
    ("a seq of 2^62", raw(seq=2**62), Why.ORDER),
    ("65 workers", raw(workers=worker()["workers"] * 65), Why.COUNT),
    (
        "4,097 models",
        raw(models={digest(i): {} for i in range(3_000)} | {f"{i:x}": {} for i in range(1_200)}),
        Why.COUNT,
    ),
    ("4,097 round trips", raw(rtts_ms={f"n{i}": 1.0 for i in range(4_097)}), Why.COUNT),
    ("a model that is no digest", raw(models={"../../etc/passwd": {}}), Why.DIGEST),
    ("a digest in capitals", raw(models={"A" * 64: {}}), Why.DIGEST),
    ("demand for no digest", raw(demand={"": 1.0}), Why.DIGEST),
    ("a round trip to no name", raw(rtts_ms={"": 1.0}), Why.NAME),
    ("soft above hard", raw(**worker(soft_limit=9)), Why.LIMIT),
    ("a soft limit of 0", raw(**worker(soft_limit=0)), Why.LIMIT),
    ("a hard limit of ten million", raw(**worker(hard_limit=10_000_000)), Why.LIMIT),
    ("NaN queued", raw(**worker(queued_ms=math.nan), models={}), Why.NUMBER),
    ("minus one in flight", raw(**worker(in_flight=-1), models={}), Why.NUMBER),
    ("2^64 - 1 bytes", raw(**worker(device_bytes=2**64 - 1), models={}), Why.NUMBER),
    ("an infinite ETA", raw(**on(eta_ms=math.inf)), Why.NUMBER),
    ("a negative service time", raw(**on(service_ms=-1.0)), Why.NUMBER),
    ("a load of a thousand years", raw(**on(load_ms=3e13)), Why.NUMBER),
    ("less than nothing on a device", raw(**on(device_bytes=-1)), Why.NUMBER),
    ("NaN demand", raw(demand={digest(1): math.nan}), Why.NUMBER),
    ("an infinite round trip", raw(rtts_ms={"iad-a": math.inf}), Why.NUMBER),
    ("a rate of zero", raw(rates={"load": 0.0}), Why.NUMBER),
    ("a model on a worker that does not exist", raw(**on(2)), Why.WORKER),
    ("a model on worker -1", raw(**on(-1)), Why.WORKER),
]


@pytest.mark.parametrize(("_", "body", "why"), POISON, ids=[row[0] for row in POISON])
def test_poison_is_refused_with_its_rule(_, body, why):
    bad = decode_checked(body, expect_node="fra-a")
    assert isinstance(bad, Bad), bad
    assert bad.why is why, bad
    assert 0 < len(bad.text) < 300
    assert bad.text.isprintable()


@given(st.binary(max_size=400))
def test_no_bytes_raise(body):
    assert isinstance(decode_checked(body, expect_node="fra-a"), Bad)


@given(st.data())
def test_no_damage_to_a_good_one_raises(data):
    body = bytearray(encode(beacon()))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    decode_checked(bytes(body), expect_node="fra-a")


@given(beacons(5))
def test_what_is_written_is_read(one):
    assert decode_checked(encode(one), expect_node="fra-a") == one


def test_fields_of_a_newer_version_are_ignored():
    assert decode_checked(raw(moon_phase={"x": [1, 2]}), expect_node="fra-a") == beacon()


@given(beacons(5), beacons(9))
def test_the_old_one_and_the_difference_make_the_new_one(old, new):
    news, body = delta(old, new)
    assert apply(old, news, body, expect_node="fra-a") == new


def test_a_heartbeat_is_small():
    old, new = beacon(200), beacon(200, seq=2)
    news, body = delta(old, new)
    assert (news, len(body) < 512) == (BeaconNews(base=1), True), len(body)


def test_a_difference_that_loses_a_great_many_models_is_told_whole():
    old, new = beacon(MAX_GONE + 2, demand={}), beacon(1, seq=2)
    news, body = delta(old, new)
    assert news == BeaconNews()
    assert apply(old, news, body, expect_node="fra-a") == new


@pytest.mark.parametrize(
    ("last", "news"),
    [
        (None, BeaconNews(base=1)),
        (beacon(seq=2), BeaconNews(base=1)),
        (beacon(seq=1, boot=6), BeaconNews(base=1)),
    ],
    ids=["nothing was told before", "one was lost between", "of another boot"],
)
def test_a_difference_to_something_else_asks_for_a_whole_one(last, news):
    assert apply(last, news, encode(beacon(seq=3)), expect_node="fra-a") == NeedWhole()


REFUSED_DELTAS = [
    ("that goes back in time", BeaconNews(base=1), beacon(seq=1), Why.ORDER),
    (
        "that adds up to too many models",
        BeaconNews(base=1),
        beacon(0, seq=2),
        Why.COUNT,
    ),
    (
        "whose models are on a worker that is gone",
        BeaconNews(base=1),
        beacon(0, seq=2, workers=()),
        Why.WORKER,
    ),
]


@pytest.mark.parametrize(("_", "news", "told", "why"), REFUSED_DELTAS, ids=[row[0] for row in REFUSED_DELTAS])
def test_a_difference_is_refused(_, news, told, why):
    many = {digest(10_000 + i): ModelBeacon() for i in range(2_700)}
    last = beacon() if why is not Why.COUNT else beacon(0)
    if why is Why.COUNT:
        last = msgspec.structs.replace(last, models=many)
        told = msgspec.structs.replace(
            told, models={digest(i): ModelBeacon() for i in range(MAX_MODELS - 2_699)}
        )
    bad = apply(last, news, encode(told), expect_node="fra-a")
    assert isinstance(bad, Bad), bad
    assert bad.why is why, bad


def test_zeros_are_not_told():
    tidied = tidy(beacon(demand={digest(1): 0.0, digest(2): 1.0}, rtts_ms={"iad-a": 0.0}))
    assert (tidied.demand, tidied.rtts_ms) == ({digest(2): 1.0}, {})
    assert tidy(tidied) is tidied


def test_a_node_with_more_than_others_take_tells_what_is_on_its_devices():
    on_device = {digest(i): ModelBeacon(Tier.DISK, {0: OnDevice(0, 1.0, 1.0, 1.0)}) for i in range(100)}
    on_disk = {digest(1_000 + i): ModelBeacon(Tier.DISK) for i in range(5_000)}
    whole = beacon(0, workers=(WorkerBeacon(State.UP, 1, 1),), rates=Rates())
    whole = msgspec.structs.replace(whole, models=on_disk | on_device)
    told = fitted(whole)
    assert len(encode(told)) <= MAX_BYTES
    assert on_device.items() <= told.models.items()
    assert len(told.models) > 2_000
    assert isinstance(decode_checked(encode(told), expect_node="fra-a"), type(told))
    assert fitted(beacon(200)) == beacon(200)
