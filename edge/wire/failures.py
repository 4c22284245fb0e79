"""A failure on the wire, and the pulse that travels with it. Pure.

What a peer tells is checked here, at the door: text is cut and made printable, times are
clamped, a pulse with impossible numbers is dropped. It does not know who failed or what
follows from it.
"""

import math
from typing import Final

import msgspec

from edge.errors import EdgeError, Reason, Source
from edge.policy.facts import Pulse

MAX_MESSAGE_CHARS: Final = 500
MAX_RETRY_AFTER_S: Final = 3600
#: What no queue, load or execution takes: 11 days.
MAX_PULSE_MS: Final = 1e9
MAX_PULSE_IN_FLIGHT: Final = 1_000_000
MAX_WORKERS: Final = 1000


class Failed(msgspec.Struct, omit_defaults=True):
    """Head of an ERROR frame."""

    reason: str
    message: str
    source: str = "internal"
    retryable: bool = False
    retry_after_s: float | None = None
    pulse: Pulse | None = None


class _Core(msgspec.Struct):
    """What is kept of a failure whose other fields can't be read."""

    reason: str
    message: str = ""


class UpstreamError(EdgeError):
    """A failure as the other side told it, with the load of the worker that refused, if told."""

    pulse: Pulse | None = None


#: What a head that our encoder did not write can end in: bad msgpack, a key that is no text, deep nesting.
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_encoder: Final = msgspec.msgpack.Encoder()
_failures: Final = msgspec.msgpack.Decoder(Failed)
_cores: Final = msgspec.msgpack.Decoder(_Core)
_REASONS: Final = {str(reason): reason for reason in Reason}
_SOURCES: Final = {str(source): source for source in Source}


def encode_failure(error: EdgeError, pulse: Pulse | None = None) -> bytes:
    """The head of an ERROR frame. `pulse` is the load of the worker that was asked."""
    return _encoder.encode(
        Failed(
            str(error.reason),
            _printable(error.message),
            str(error.source),
            error.retryable,
            error.retry_after_s,
            pulse,
        )
    )


def decode_failure(raw: bytes) -> UpstreamError:
    """An error as the peer raised it; unknown reasons become PROTOCOL, so that none is invented here."""
    try:
        failed = _failures.decode(raw)
    except UNREADABLE as error:
        failed = _core_of(raw, error)
    told = UpstreamError(
        _REASONS.get(failed.reason, Reason.PROTOCOL),
        _printable(failed.message),
        source=_SOURCES.get(failed.source, Source.UPSTREAM),
        retryable=failed.retryable,
        retry_after_s=_sane_seconds(failed.retry_after_s),
    )
    told.pulse = sane_pulse(failed.pulse)
    return told


def sane_pulse(pulse: Pulse | None) -> Pulse | None:
    """The pulse, or None when one of its numbers can't be: not finite, negative, or absurdly large."""
    if pulse is None:
        return None
    if not (
        pulse.boot >= 0
        and pulse.seq >= 0
        and 0 <= pulse.worker < MAX_WORKERS
        and 0 <= pulse.in_flight <= MAX_PULSE_IN_FLIGHT
        and 0.0 <= pulse.queued_ms < MAX_PULSE_MS
    ):
        return None
    model = pulse.model
    if model is not None and not (
        0.0 <= model.eta_ms < MAX_PULSE_MS
        and 0.0 <= model.service_ms < MAX_PULSE_MS
        and 0.0 <= model.cost_ms < MAX_PULSE_MS
        and 0.0 <= model.load_ms < MAX_PULSE_MS
        and model.device_bytes >= 0
    ):
        return None
    return pulse


def _core_of(raw: bytes, why: Exception) -> Failed:
    """A field that can't be read costs that field, not the reason for which a request failed."""
    try:
        core = _cores.decode(raw)
    except UNREADABLE:
        text = f"unreadable error from upstream: {why}"
        return Failed(str(Reason.PROTOCOL), text, str(Source.UPSTREAM))
    return Failed(core.reason, core.message, str(Source.UPSTREAM))


def _sane_seconds(told: float | None) -> int | None:
    if told is None or not math.isfinite(told) or told < 0.0:
        return None
    return min(math.ceil(told), MAX_RETRY_AFTER_S)


def _printable(message: str) -> str:
    """At most MAX_MESSAGE_CHARS, without control characters: it becomes a header and a log line."""
    short = message[:MAX_MESSAGE_CHARS]
    return short if short.isprintable() else "".join(filter(str.isprintable, short))
