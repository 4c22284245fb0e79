"""Beacons for tests: one that is well-formed in every field, and many of hypothesis' making."""

from typing import Any

import msgspec
from hypothesis import strategies as st

from edge.policy.facts import Beacon, ModelBeacon, OnDevice, Rates, State, Tier, WorkerBeacon


def digest(number: int) -> str:
    return f"{number:064x}"


def beacon(held: int = 3, **changes: Any) -> Beacon:
    """What fra-a tells: two workers, `held` models of which every second one is on a device."""
    whole = Beacon(
        node="fra-a",
        pop="fra",
        region="eu",
        boot=7,
        seq=1,
        version="0.1.0",
        ingress=True,
        blobs="10.2.0.11:7444",
        provider="hetzner",
        workers=tuple(
            [
                WorkerBeacon(
                    State.UP, 32, 128, in_flight=3, queued_ms=41.5, arrivals_per_s=12.25, device_bytes=2**31
                )
                for _ in range(2)
            ]
        ),
        models={
            digest(number): ModelBeacon(
                Tier.DISK, {number % 2: OnDevice(0.0, 11.5 + number, 3.25, 840.0)} if number % 2 else {}
            )
            for number in range(1, held + 1)
        },
        demand={digest(number): 0.5 * number for number in range(1, held + 1)},
        rtts_ms={"iad-a": 90.5, "nrt-a": 231.0},
        rates=Rates(load=450_000.0, region=90_000.0),
    )
    return msgspec.structs.replace(whole, **changes)


_ms = st.floats(0.0, 1e8)
_positive = st.floats(1e-3, 1e8)
_digests = st.integers(0, 12).map(digest)
_on = st.builds(OnDevice, _ms, _ms, _ms, _ms)
_models = st.dictionaries(
    _digests,
    st.builds(ModelBeacon, st.sampled_from(Tier), st.dictionaries(st.integers(0, 1), _on), st.booleans()),
)
_workers = st.tuples(
    *[st.builds(WorkerBeacon, st.sampled_from(State), st.just(4), st.integers(4, 99), st.integers(0, 9), _ms)]
    * 2
)


def beacons(seq: int) -> st.SearchStrategy[Beacon]:
    """Tidy beacons of one node and boot, few enough models that two of them overlap."""
    return st.builds(
        beacon,
        seq=st.just(seq),
        draining=st.booleans(),
        announced=st.booleans(),
        workers=_workers,
        models=_models,
        demand=st.dictionaries(_digests, _positive),
        rtts_ms=st.dictionaries(st.sampled_from(["iad-a", "iad-b", "nrt-a", "ams-a"]), _positive),
        rates=st.builds(Rates, _positive, _positive, _positive, _positive),
    )
