"""What a child tells of itself fits the frames however much it holds, and is read as it was told."""

import pytest

from edge.errors import EdgeError, Reason
from edge.wire import calls, states
from edge.wire.frame import MAX_HEAD_BYTES, Kind, encode

NAME = "n" * 128
LOADED = [calls.LoadedModel(f"{number:064x}", NAME, "1", 5) for number in range(5_000)]
STORED = [calls.StoredModel(f"{number:064x}", NAME, "1", 1 << 40, 1 << 40, 1) for number in range(5_000)]
WORKER = calls.WorkerState("cpu", "CPUExecutionProvider", 1, 2, models=LOADED)
WEIGHTS = calls.WeightsState(1, 2, 3, 4, index=calls.IndexState(nodes=(NAME[:63],) * 512), models=STORED)


@pytest.mark.parametrize(
    ("sentence", "state", "read"),
    [
        ("a device of thousands of models", WORKER, states.worker_state),
        ("a disk of thousands, in a region of hundreds of nodes", WEIGHTS, states.weights_state),
    ],
)
def test_any_number_of_models_is_told(sentence, state, read):
    assert len(calls.encode_head(state)) > MAX_HEAD_BYTES, sentence
    head, body = states.tell(state)
    raw = calls.encode_head(head)
    assert encode(Kind.REPLY_MORE, 1, raw)
    assert read(calls.decode_head(raw), body) == state


def test_who_tells_its_models_in_the_head_is_understood():
    state = calls.WorkerState("cpu", "", 1, 0, models=LOADED[:1])
    assert states.worker_state(state, b"").models == LOADED[:1]
    stored = calls.WeightsState(1, 2, 3, 4, models=STORED[:1])
    assert states.weights_state(stored, b"").models == STORED[:1]


@pytest.mark.parametrize("read", [states.worker_state, states.weights_state])
@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("another answer", (calls.Done(), b"")),
        ("a list of something else", (None, b"\x91\x05")),
        ("no msgpack", (None, b"\xc1")),
    ],
)
def test_what_can_not_be_read_is_said(sentence, told, read):
    head, body = told
    own = calls.WorkerState("", "", 0, 0) if read is states.worker_state else calls.WeightsState(0, 0, 0, 0)
    with pytest.raises(EdgeError) as caught:
        read(head or own, body)
    assert caught.value.reason is Reason.PROTOCOL, sentence
