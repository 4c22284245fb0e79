"""Heads: what a newer peer adds is ignored, what an older one leaves out has its default."""

import msgspec
import pytest

from edge.errors import EdgeError, Reason, Source
from edge.wire import calls


def test_every_head_survives_the_wire():
    heads = [
        calls.Infer(model="m", version="1", digest="d", oip_json_bytes=7),
        calls.Inferred(queue_ms=1.5, lead=False),
        calls.Status(),
        calls.WorkerState("cpu", "CPUExecutionProvider", 1, 0, models=[calls.LoadedModel("d", "m", "1", 5)]),
        calls.Ensured("disk", 0, 1.0),
        calls.TreeState("announced", [calls.ChildState("proxy", 1, up=True, exits=0)]),
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
