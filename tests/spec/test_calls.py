"""Heads: what a newer peer adds is ignored, what an older one leaves out has its default."""

import contextlib
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import EdgeError, Reason, Source
from edge.policy.facts import OnDevice, Pulse
from edge.wire import calls, treecalls
from edge.wire.failures import MAX_MESSAGE_CHARS


def test_every_head_survives_the_wire():
    heads = [
        calls.Infer(model="m", version="1", digest="d", oip_json_bytes=7),
        calls.Inferred(queue_ms=1.5, lead=False),
        calls.Status(),
        calls.WorkerState("cpu", "CPUExecutionProvider", 1, 0, models=[calls.LoadedModel("d", "m", "1", 5)]),
        calls.Ensured("disk", 0, 1.0),
        treecalls.TreeState("announced", [treecalls.ChildState("proxy", 1, up=True, exits=0)]),
    ]
    for head in heads:
        assert calls.decode_head(calls.encode_head(head)) == head


def test_an_unknown_field_is_ignored():
    raw = msgspec.msgpack.encode({"op": "unload", "digest": "d", "colour": "blue"})
    assert calls.decode_head(raw) == calls.Unload("d")


def test_a_missing_field_has_its_default():
    raw = msgspec.msgpack.encode({"op": "infer", "model": "m", "version": "1", "digest": "d"})
    assert calls.decode_head(raw) == calls.Infer("m", "1", "d")


@pytest.mark.parametrize(
    ("sentence", "raw"),
    [
        ("an unknown call", msgspec.msgpack.encode({"op": "format-disk"})),
        ("a call without its name", msgspec.msgpack.encode({"model": "m"})),
        ("a field of the wrong type", msgspec.msgpack.encode({"op": "unload", "digest": 5})),
        ("no msgpack", b"\xc1"),
        ("nothing", b""),
    ],
)
def test_unreadable_heads(sentence, raw):
    with pytest.raises(EdgeError) as caught:
        calls.decode_head(raw)
    assert caught.value.reason is Reason.PROTOCOL


def test_an_error_arrives_as_it_was_raised():
    sent = EdgeError(Reason.NO_MEMORY, "full", source=Source.UPSTREAM, retryable=True, retry_after_s=2)
    got = calls.decode_failure(calls.encode_failure(sent))
    assert repr(got) == repr(sent)
    assert got.retry_after_s == 2


def test_a_reason_that_this_node_does_not_know_becomes_protocol():
    raw = msgspec.msgpack.encode({"reason": "gpu-on-fire", "message": "hot", "source": "moon"})
    got = calls.decode_failure(raw)
    assert (got.reason, got.source, got.message) == (Reason.PROTOCOL, Source.UPSTREAM, "hot")


def test_an_unreadable_error_is_still_an_error():
    assert calls.decode_failure(b"\xc1").reason is Reason.PROTOCOL


@pytest.mark.parametrize(
    ("sentence", "told", "kept"),
    [
        ("nothing told", None, None),
        ("a while", 7, 7),
        ("part of a second is a second", 0.2, 1),
        ("now", 0, 0),
        ("an hour is the most", 10**9, 3600),
        ("the past", -1, None),
        ("no number", math.nan, None),
        ("for ever", math.inf, None),
    ],
)
def test_when_to_come_again(sentence, told, kept):
    raw = msgspec.msgpack.encode({"reason": "busy", "message": "m", "retry_after_s": told})
    got = calls.decode_failure(raw)
    assert (got.reason, got.retry_after_s) == (Reason.BUSY, kept)


@given(st.text(max_size=2000))
def test_a_message_of_a_peer_is_short_and_printable(text):
    raw = msgspec.msgpack.encode({"reason": "busy", "message": text.encode("utf-8", "replace").decode()})
    message = calls.decode_failure(raw).message
    assert len(message) <= MAX_MESSAGE_CHARS
    assert message.isprintable()


@given(st.text(max_size=100_000, alphabet=st.characters()))
def test_any_own_error_can_be_sent(text):
    """A file name's stray surrogates, a whole traceback: the caller must get its answer."""
    raw = calls.encode_failure(EdgeError(Reason.NO_SPACE, text + "\udcff" + "x" * 100_000))
    assert len(raw) < 4096
    assert calls.decode_failure(raw).reason is Reason.NO_SPACE


def test_a_field_that_cannot_be_read_does_not_cost_the_reason():
    raw = msgspec.msgpack.encode(
        {"reason": "busy", "message": "full", "retryable": True, "pulse": {"boot": "yesterday"}}
    )
    got = calls.decode_failure(raw)
    assert (got.reason, got.message, got.pulse, got.retryable) == (Reason.BUSY, "full", None, False)


GOOD = {"boot": 1, "seq": 2, "worker": 3, "in_flight": 4, "queued_ms": 5.0}


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("a queue that is no number", {"queued_ms": math.nan}),
        ("an endless queue", {"queued_ms": math.inf}),
        ("a queue of eleven days", {"queued_ms": 1e9}),
        ("less than no queue", {"queued_ms": -0.1}),
        ("less than nothing in flight", {"in_flight": -1}),
        ("more in flight than can be", {"in_flight": 1_000_001}),
        ("a worker that no node has", {"worker": 1000}),
        ("a worker before the first", {"worker": -1}),
        ("a boot before time", {"boot": -1}),
        ("a sequence before its start", {"seq": -1}),
        ("ready at no time", {"model": OnDevice(eta_ms=math.nan)}),
        ("served before it was asked", {"model": OnDevice(service_ms=-1.0)}),
        ("an endless cost", {"model": OnDevice(cost_ms=math.inf)}),
        ("a load of eleven days", {"model": OnDevice(load_ms=1e9)}),
        ("less than nothing on a device", {"model": OnDevice(device_bytes=-1)}),
    ],
)
def test_a_pulse_that_cannot_be_is_none(sentence, change):
    pulse = Pulse(**{**GOOD, **change})
    assert calls.sane_pulse(pulse) is None
    raw = calls.encode_failure(EdgeError(Reason.BUSY, "full"), pulse)
    assert calls.decode_failure(raw).pulse is None


@pytest.mark.parametrize("pulse", [None, Pulse(**GOOD), Pulse(**GOOD, model=OnDevice(1.0, 2.0, 3.0, 4.0))])
def test_a_pulse_that_can_be_is_kept(pulse):
    assert calls.sane_pulse(pulse) == pulse
    raw = calls.encode_failure(EdgeError(Reason.BUSY, "full"), pulse)
    assert calls.decode_failure(raw).pulse == pulse


def test_an_answer_whose_pulse_cannot_be_read_is_still_an_answer():
    raw = msgspec.msgpack.encode(
        {"op": "inferred", "items": 3, "pulse": {"boot": 1, "seq": 1, "state": "odd"}}
    )
    assert calls.decode_head(raw) == calls.Inferred(items=3)


@given(st.binary(max_size=300))
def test_no_bytes_of_a_peer_are_more_than_an_error(raw):
    assert isinstance(calls.decode_failure(raw), calls.UpstreamError)
    with contextlib.suppress(EdgeError):
        calls.decode_head(raw)
