"""What `edge.oip.response.encode_infer` writes."""

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge.errors import EdgeError, Reason
from edge.oip.datatypes import DATATYPES, NamedArray, bytes_array
from edge.oip.request import InferRequest, RequestedOutput
from edge.oip.response import encode_infer, shortest, to_binary

Y = NamedArray("y", "FP32", np.array([[0.5, -2.0]], np.float32))
LABEL = NamedArray("label", "BYTES", bytes_array([b"makefile"], (1,)))


def request(*asked: RequestedOutput, binary: bool = False, request_id: str = "") -> InferRequest:
    return InferRequest(request_id, (), asked or None, binary)


def write(request: InferRequest, *outputs: NamedArray) -> tuple[dict[str, Any], bytes | None]:
    body, json_bytes = encode_infer(model="m", version="1", request=request, outputs=outputs)
    return json.loads(body[:json_bytes]), None if json_bytes is None else body[json_bytes:]


Y_JSON = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.5, -2.0]}
Y_BINARY = {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
LABEL_JSON = {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["makefile"]}
LABEL_BINARY = {"name": "label", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 12}}
Y_RAW = struct.pack("<2f", 0.5, -2.0)
LABEL_RAW = b"\x08\0\0\0makefile"


@pytest.mark.parametrize(
    ("sentence", "asked", "outputs", "tail"),
    [
        ("all as JSON", request(), [Y_JSON, LABEL_JSON], None),
        ("all as binary", request(binary=True), [Y_BINARY, LABEL_BINARY], Y_RAW + LABEL_RAW),
        ("only what was asked for", request(RequestedOutput("label", False)), [LABEL_JSON], None),
        ("in the order of the wish", request(RequestedOutput("label", True), RequestedOutput("y", True)),
         [LABEL_BINARY, Y_BINARY], LABEL_RAW + Y_RAW),
        ("some of each", request(RequestedOutput("y", False), RequestedOutput("label", True)),
         [Y_JSON, LABEL_BINARY], LABEL_RAW),
    ],
)  # fmt: skip
def test_bodies(sentence: str, asked: InferRequest, outputs: list[Any], tail: bytes | None) -> None:
    wanted = {"model_name": "m", "model_version": "1", "outputs": outputs}
    assert write(asked, Y, LABEL) == (wanted, tail), sentence


def test_the_id_comes_back_escaped() -> None:
    body, _ = write(request(request_id='a"b\\é'), Y)
    assert body["id"] == 'a"b\\é'


def test_what_json_cannot_say_is_null_and_exact_in_binary() -> None:
    odd = NamedArray("y", "FP32", np.array([math.nan, math.inf, -math.inf, 0.0], np.float32))
    body, _ = write(request(), odd)
    assert body["outputs"][0]["data"] == [None, None, None, 0.0]
    many = NamedArray("y", "FP32", np.resize(odd.array, 100))
    assert write(request(), many)[0]["outputs"][0]["data"][:4] == [None, None, None, 0.0]
    assert write(request(binary=True), odd)[1] == odd.array.tobytes()


def test_bytes_that_are_no_text_must_be_asked_for_as_binary() -> None:
    raw = NamedArray("b", "BYTES", bytes_array([b"\xff"], (1,)))
    with pytest.raises(EdgeError, match="binary_data: true") as caught:
        write(request(), raw)
    assert caught.value.reason is Reason.BAD_INPUT
    assert write(request(binary=True), raw)[1] == b"\1\0\0\0\xff"


def test_an_output_the_model_did_not_give_is_our_fault() -> None:
    with pytest.raises(EdgeError, match="no output 'w'") as caught:
        write(request(RequestedOutput("w", False)), Y)
    assert caught.value.reason is Reason.INTERNAL


def test_rows_are_written_in_order_whatever_the_memory_layout() -> None:
    turned = NamedArray("y", "INT32", np.arange(6, dtype=np.int32).reshape(2, 3).T)
    assert write(request(), turned)[0]["outputs"][0]["data"] == [0, 3, 1, 4, 2, 5]
    assert to_binary(turned) == np.array([0, 3, 1, 4, 2, 5], "<i4").tobytes()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_numbers_survive_json(data: st.DataObject) -> None:
    row = data.draw(st.sampled_from([row for row in DATATYPES.values() if row.pack]))
    array = data.draw(hnp.arrays(row.dtype, st.sampled_from([(3,), (2, 2), (80,)])))
    body, _ = write(request(), NamedArray("y", row.name, array))
    values = [math.nan if value is None else value for value in body["outputs"][0]["data"]]
    back = np.array(values, row.dtype)
    wanted = array.reshape(-1)
    if row.is_float:
        wanted = np.where(np.isfinite(wanted), wanted, np.array(math.nan, row.dtype))
    np.testing.assert_array_equal(back, wanted)


def test_many_floats_are_written_short() -> None:
    embedding = (np.random.default_rng(5).standard_normal((1, 384)) / 20).astype(np.float32)
    body, _ = encode_infer(
        model="m", version="1", request=request(), outputs=[NamedArray("e", "FP32", embedding)]
    )
    assert len(body) < 384 * 14
    assert shortest(np.array([0.1], np.float32)).tolist() == [0.1]
