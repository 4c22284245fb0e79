"""Beacons as bytes: written, read with every check, and told as differences. Pure.

What another node sends is untrusted even though its certificate was checked: a beacon that
breaks one rule is refused whole, as `Bad` with a token for the metric and a sentence for the
log. Whether a readable beacon is newer and believable is `edge.fleet.intake`'s question.

A delta holds all fields but `models`, `demand` and `rtts_ms`; of those it holds changed entries.
A model that is gone is named in the head; demand or a round trip of 0 means that there is none
any more, so a beacon that is told carries no such zeros (see `tidy`).
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from edge.config import host_port
from edge.policy.facts import Beacon, ModelBeacon, Rates, WorkerBeacon
from edge.wire.meshcalls import BeaconNews

MAX_BYTES: Final = 256 * 1024
MAX_WORKERS: Final = 64
#: Also of demand and of round trips.
MAX_MODELS: Final = 4_096
MAX_MS: Final = 1e9
MAX_LIMIT: Final = 1_000_000
#: Boot, sequence and sizes in bytes are below this.
MAX_NUMBER: Final = 2**62
MIN_RATE: Final = 1e-6
MAX_RATE: Final = 1e12
MAX_TEXT: Final = 64
#: Digests that a head has room for (64 KiB); a delta that loses more is told whole.
MAX_GONE: Final = 900

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Beacon)


class Why(StrEnum):
    """Why a beacon was refused: the metric's label."""

    SIZE = "size"
    SCHEMA = "schema"
    NODE = "node"
    NAME = "name"
    TEXT = "text"
    ADDRESS = "address"
    COUNT = "count"
    DIGEST = "digest"
    NUMBER = "number"
    LIMIT = "limit"
    WORKER = "worker"
    ORDER = "order"


class Bad(msgspec.Struct, frozen=True):
    """A refused beacon: the rule it breaks, and a sentence that names the value."""

    why: Why
    text: str


class NeedWhole(msgspec.Struct, frozen=True):
    """A delta whose base is not the beacon we have: ask for a whole one."""


def encode(beacon: Beacon) -> bytes:
    """The body of a `BeaconNews`."""
    return _encoder.encode(beacon)


def tidy(beacon: Beacon) -> Beacon:
    """Without the zeros that a delta could not tell from "gone"."""
    demand = {digest: rate for digest, rate in beacon.demand.items() if rate}
    rtts_ms = {node: ms for node, ms in beacon.rtts_ms.items() if ms}
    if len(demand) == len(beacon.demand) and len(rtts_ms) == len(beacon.rtts_ms):
        return beacon
    return msgspec.structs.replace(beacon, demand=demand, rtts_ms=rtts_ms)


def fitted(beacon: Beacon, max_bytes: int = MAX_BYTES) -> Beacon:
    """A beacon that others will take: past the caps it tells what is on a device before what lies on disk."""
    room = msgspec.structs.replace(
        beacon, models=_first(beacon.models, MAX_MODELS), demand=_most(beacon.demand, MAX_MODELS)
    )
    share = 1.0
    while _at_most_bytes(room) > max_bytes and len(encode(room)) > max_bytes:
        share *= 0.8
        room = msgspec.structs.replace(
            room,
            models=_first(beacon.models, int(len(beacon.models) * share)),
            demand=_most(beacon.demand, int(len(beacon.demand) * share)),
        )
    return room


def _at_most_bytes(beacon: Beacon) -> int:
    """An upper bound of the encoded size that needs no encoding."""
    on_devices = sum([len(model.workers) for model in beacon.models.values()])
    entries = len(beacon.models) + len(beacon.demand) + len(beacon.rtts_ms)
    return 1_024 + 512 * len(beacon.workers) + 128 * entries + 96 * on_devices


def _first(models: dict[str, ModelBeacon], count: int) -> dict[str, ModelBeacon]:
    if len(models) <= count:
        return models
    order = sorted(models, key=lambda digest: (not models[digest].workers, models[digest].tier, digest))
    return {digest: models[digest] for digest in order[:count]}


def _most(demand: dict[str, float], count: int) -> dict[str, float]:
    if len(demand) <= count:
        return demand
    return dict(sorted(demand.items(), key=lambda item: -item[1])[:count])


# --- reading


def decode_checked(raw: bytes, *, expect_node: str) -> Beacon | Bad:
    """A beacon of `expect_node`, or why it is none. Never raises, whatever the bytes."""
    if len(raw) > MAX_BYTES:
        return Bad(Why.SIZE, f"{len(raw)} bytes exceed {MAX_BYTES}")
    try:
        beacon = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Bad(Why.SCHEMA, f"unreadable: {str(error)[:200]}")
    return (
        _bad_names(beacon, expect_node)
        or _bad_counts(beacon)
        or _bad_workers(beacon.workers)
        or _bad_rates(beacon.rates)
        or _bad_models(beacon.models, len(beacon.workers))
        or _bad_maps(beacon)
        or beacon
    )


def _shown(value: Any) -> str:
    """A value of any size, as it fits into a log line."""
    return repr(value[:MAX_TEXT] if isinstance(value, str) else value)[: MAX_TEXT + 16]


def _bad_names(beacon: Beacon, expect_node: str) -> Bad | None:
    if beacon.node != expect_node:
        return Bad(Why.NODE, f"{expect_node} sent a beacon of {_shown(beacon.node)}")
    for what, name in (("pop", beacon.pop), ("region", beacon.region)):
        if not NAME.fullmatch(name):
            return Bad(Why.NAME, f"{what} {_shown(name)} is no name")
    for what, text in (("version", beacon.version), ("provider", beacon.provider)):
        if len(text) > MAX_TEXT or not text.isprintable():
            return Bad(Why.TEXT, f"{what} {_shown(text)} is no short text")
    if beacon.blobs:
        try:
            host_port(beacon.blobs)
        except ValueError:
            return Bad(Why.ADDRESS, f"blobs {_shown(beacon.blobs)} is no host:port")
    for what, number in (("boot", beacon.boot), ("seq", beacon.seq)):
        if not 0 < number < MAX_NUMBER:
            return Bad(Why.ORDER, f"{what} {number} is not above 0 and below 2^62")
    return None


def _bad_counts(beacon: Beacon) -> Bad | None:
    counts = (
        ("workers", len(beacon.workers), MAX_WORKERS),
        ("models", len(beacon.models), MAX_MODELS),
        ("demand", len(beacon.demand), MAX_MODELS),
        ("rtts_ms", len(beacon.rtts_ms), MAX_MODELS),
    )
    for what, count, most in counts:
        if count > most:
            return Bad(Why.COUNT, f"{count} entries of {what} exceed {most}")
    return None


# In all comparisons below NaN is out of bounds: `low <= nan` is false.


def _bad_workers(workers: tuple[WorkerBeacon, ...]) -> Bad | None:
    for index, worker in enumerate(workers):
        if not 1 <= worker.soft_limit <= worker.hard_limit <= MAX_LIMIT:
            limits = f"soft {worker.soft_limit}, hard {worker.hard_limit}"
            return Bad(Why.LIMIT, f"limits of worker {index}: {limits}; 1 <= soft <= hard <= {MAX_LIMIT}")
        numbers: tuple[tuple[str, float, float], ...] = (
            ("in_flight", worker.in_flight, MAX_LIMIT),
            ("queued_ms", worker.queued_ms, MAX_MS),
            ("arrivals_per_s", worker.arrivals_per_s, MAX_MS),
            ("parallel", worker.parallel, MAX_LIMIT),
            ("loader_wait_ms", worker.loader_wait_ms, MAX_MS),
            ("device_bytes", worker.device_bytes, MAX_NUMBER),
            ("used_bytes", worker.used_bytes, MAX_NUMBER),
        )
        for what, number, bound in numbers:
            if not 0 <= number < bound:
                return Bad(Why.NUMBER, f"{what} {number} of worker {index} is out of bounds")
        if len(worker.device) > MAX_TEXT or not worker.device.isprintable():
            return Bad(Why.TEXT, f"device {_shown(worker.device)} of worker {index} is no short text")
    return None


def _bad_rates(rates: Rates) -> Bad | None:
    for what, rate in (
        ("load", rates.load),
        ("region", rates.region),
        ("far", rates.far),
        ("origin", rates.origin),
    ):
        # A rate is divided by: zero is as bad as infinity.
        if not MIN_RATE <= rate < MAX_RATE:
            return Bad(Why.NUMBER, f"rate {what} {rate} is out of bounds")
    return None


def _bad_models(models: Mapping[str, ModelBeacon], workers: int) -> Bad | None:
    is_digest = DIGEST.fullmatch
    for digest, model in models.items():
        if not is_digest(digest):
            return Bad(Why.DIGEST, f"model {_shown(digest)} is no digest")
        for index, on in model.workers.items():
            if not 0 <= index < workers:
                return Bad(Why.WORKER, f"model {digest[:12]} on worker {index} of {workers}")
            if not (
                0.0 <= on.eta_ms < MAX_MS
                and 0.0 <= on.service_ms < MAX_MS
                and 0.0 <= on.cost_ms < MAX_MS
                and 0.0 <= on.load_ms < MAX_MS
                and 0 <= on.device_bytes < MAX_NUMBER
            ):
                return Bad(Why.NUMBER, f"model {digest[:12]} on worker {index}: {on} is out of bounds")
    return None


def _bad_maps(beacon: Beacon) -> Bad | None:
    for digest, rate in beacon.demand.items():
        if not DIGEST.fullmatch(digest):
            return Bad(Why.DIGEST, f"demand for {_shown(digest)}, which is no digest")
        if not 0.0 <= rate < MAX_MS:
            return Bad(Why.NUMBER, f"demand {rate} for {digest[:12]} is out of bounds")
    for node, ms in beacon.rtts_ms.items():
        if not NAME.fullmatch(node):
            return Bad(Why.NAME, f"round trip to {_shown(node)}, which is no name")
        if not 0.0 <= ms < MAX_MS:
            return Bad(Why.NUMBER, f"round trip {ms} to {node} is out of bounds")
    return None


# --- differences


def delta(old: Beacon, new: Beacon) -> tuple[BeaconNews, bytes]:
    """What is to be told to somebody who has `old`; both tidy and of one boot. Whole if that is no more."""
    gone = tuple([digest for digest in old.models if digest not in new.models])
    if len(gone) > MAX_GONE:
        return BeaconNews(), encode(new)
    known = old.models
    body = encode(
        msgspec.structs.replace(
            new,
            models={digest: model for digest, model in new.models.items() if known.get(digest) != model},
            demand=_changed(old.demand, new.demand),
            rtts_ms=_changed(old.rtts_ms, new.rtts_ms),
        )
    )
    if len(body) > MAX_BYTES:
        return BeaconNews(), encode(new)
    return BeaconNews(base=old.seq, gone=gone), body


def _changed(old: dict[str, float], new: dict[str, float]) -> dict[str, float]:
    changed = {key: value for key, value in new.items() if old.get(key) != value}
    for key in old:
        if key not in new:
            changed[key] = 0.0
    return changed


def apply(
    last: Beacon | None, news: BeaconNews, body: bytes, *, expect_node: str
) -> Beacon | Bad | NeedWhole:
    """The beacon that `body` stands for, given the last one of this sender. Never raises."""
    told = decode_checked(body, expect_node=expect_node)
    return told if isinstance(told, Bad) else merged(last, news, told)


def merged(last: Beacon | None, news: BeaconNews, told: Beacon) -> Beacon | Bad | NeedWhole:
    """`apply`, of a body that was read and checked."""
    if news.base == 0:
        return told
    if last is None or last.boot != told.boot or last.seq != news.base:
        return NeedWhole()
    if told.seq <= last.seq:
        return Bad(Why.ORDER, f"a delta from {last.seq} to {told.seq}")
    if len(news.gone) > MAX_MODELS:
        return Bad(Why.COUNT, f"{len(news.gone)} models gone exceed {MAX_MODELS}")
    whole = msgspec.structs.replace(
        told,
        models=_merged_models(last.models, told.models, news.gone),
        demand=_merged(last.demand, told.demand),
        rtts_ms=_merged(last.rtts_ms, told.rtts_ms),
    )
    bad = _bad_counts(whole)
    if bad is None and len(told.workers) < len(last.workers):
        bad = _bad_models(whole.models, len(told.workers))
    return bad or whole


def _merged_models(
    last: dict[str, ModelBeacon], told: dict[str, ModelBeacon], gone: tuple[str, ...]
) -> dict[str, ModelBeacon]:
    """The very same dict when nothing changed, so that others can see that at a glance."""
    if not told and not gone:
        return last
    models = {**last, **told}
    for digest in gone:
        models.pop(digest, None)
    return models


def _merged(last: dict[str, float], told: dict[str, float]) -> dict[str, float]:
    if not told:
        return last
    return {key: value for key, value in {**last, **told}.items() if value}
