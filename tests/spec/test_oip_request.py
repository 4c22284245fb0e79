"""What `edge.oip.request.decode_infer` takes, and the sentence it refuses with."""

import json
import struct
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge.errors import EdgeError, Reason
from edge.oip.datatypes import DATATYPES, bytes_array
from edge.oip.request import InferRequest, RequestedOutput, decode_infer


class Spec(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]


X = Spec("x", "FP32", (-1, 4))
Y = Spec("y", "FP32", (-1, 4))
TEXT = Spec("text", "BYTES", (-1,))
GOOD = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}


def read(
    body: Any, *, json_bytes: int | None = None, inputs: tuple[Spec, ...] = (X,), tail: bytes = b""
) -> InferRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_infer(
        raw + tail,
        json_bytes=len(raw) if tail and json_bytes is None else json_bytes,
        inputs=inputs,
        outputs=(Y, Spec("z", "FP32", (-1, 4))),
        max_batch=8,
        batch_axis=0,
    )


def one(**changes: Any) -> dict[str, Any]:
    return {"inputs": [GOOD | changes]}


def without(key: str) -> dict[str, Any]:
    return {"inputs": [{k: v for k, v in GOOD.items() if k != key}]}


def binary(size: Any, **changes: Any) -> dict[str, Any]:
    tensor = {k: v for k, v in GOOD.items() if k != "data"}
    return {"inputs": [tensor | {"parameters": {"binary_data_size": size}} | changes]}


def asked(**parameters: Any) -> dict[str, Any]:
    return {"outputs": [{"name": "y", "parameters": parameters}]}


def test_a_flat_request() -> None:
    request = read(one() | {"id": "r-1"})
    assert (request.id, request.outputs, request.binary_outputs) == ("r-1", None, False)
    assert [(i.name, i.datatype, i.array.shape, i.array.dtype) for i in request.inputs] == [
        ("x", "FP32", (1, 4), np.dtype(np.float32))
    ]
    assert request.inputs[0].array.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("sentence", "body"),
    [
        ("nested as the shape", one(data=[[1, 2, 3, 4]])),
        ("white space anywhere", b' { "inputs" : [ ' + json.dumps(GOOD, indent=4).encode() + b" ] } "),
        ("nested, with white space", json.dumps(one(data=[[1, 2, 3, 4]]), indent=8).encode()),
        ("null is absent", one(parameters=None) | {"id": None, "outputs": None, "parameters": None}),
        (
            "unknown fields and parameters are ignored",
            one(note="a:b", parameters={"k": 1.5, "l": None}) | {"zip": 1},
        ),
        ("colons in strings are not keys", one(parameters={"unit": "a:b:c", "other": '":"'})),
        ("the KServe client's model_name", one() | {"model_name": "m", "id": "5"}),
        ("priority and timeout", one() | {"parameters": {"priority": 1, "timeout": 100}}),
        ("sequence 0 is no sequence", one() | {"parameters": {"sequence_id": 0}}),
        ("an empty list of outputs is all", one() | {"outputs": []}),
        ("escaped key", b'{"\\u0069nputs":[' + json.dumps(GOOD).encode() + b"]}"),
        ("brackets in strings are not depth", one(note="[" * 1000)),
    ],
)
def test_accepted(sentence: str, body: Any) -> None:
    assert read(body).inputs[0].array.tolist() == [[1, 2, 3, 4]], sentence


@pytest.mark.parametrize(
    ("sentence", "body", "says"),
    [
        ("empty", b"", "not the JSON"),
        ("not JSON", b"hello", "not the JSON"),
        ("not UTF-8", b'{"inputs":[{"name":"\xff"}]}', "utf-8"),
        ("not UTF-8 where nobody looks", json.dumps(one()).encode()[:-1] + b',"u":{"a":"\xff"}}', "utf-8"),
        ("a list", [], "Expected `object`"),
        ("no inputs", {"id": "x"}, "inputs"),
        ("junk behind", json.dumps(one()).encode() + b"x", "malformed"),
        ("NaN", json.dumps(one(data=[1, 2, 3, float("nan")])).encode(), "malformed"),
        ("Infinity", json.dumps(one(data=[1, 2, 3, float("inf")])).encode(), "malformed"),
        ("twice the same key", b'{"inputs":[],' + json.dumps(one()).encode()[1:], "twice"),
        ("twice, one escaped", b'{"\\u0069nputs":[],' + json.dumps(one()).encode()[1:], "twice"),
        ("twice in a tensor", json.dumps(one()).encode().replace(b'"shape"', b'"data":[0],"shape"'), "twice"),
        ("twice in parameters", b'{"parameters":{"a":1,"a":2},' + json.dumps(one()).encode()[1:], "twice"),
        ("twice where nobody looks", b'{"u":{"a":1,"a":2},' + json.dumps(one()).encode()[1:], "twice"),
        ("33 deep", one(note=json.loads("[" * 31 + "]" * 31)), "deeper than 32"),
        ("10,000 deep", b'{"inputs":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "deeper than 32"),
        ("deep data", json.dumps(one()).encode().replace(b"[1, 2", b"[" * 50_000), "deeper than 32"),
        ("deep behind many strings", {"a": ["{"] * 40} | one(note=json.loads("[" * 31 + "]" * 31)), "deeper"),
        ("a million digits", b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,'
         + b"9" * 1_000_000 + b"]}]}", "range"),
        ("a million digits in a shape", b'{"inputs":[{"name":"x","shape":[' + b"9" * 1_000_000
         + b'],"datatype":"FP32","data":[1]}]}', "range"),
        ("no name", without("name"), "name"),
        ("no shape", without("shape"), "shape"),
        ("no datatype", without("datatype"), "datatype"),
        ("no data", without("data"), "neither data nor"),
        ("null data", one(data=None), "neither data nor"),
        ("unknown name", one(name="w"), "no input 'w'; it has ['x']"),
        ("a name of a million characters", one(name="w" * 1_000_000), "no input 'wwww"),
        ("twice the same input", {"inputs": [GOOD, GOOD]}, "given twice"),
        ("missing input", {"inputs": []}, "missing: ['x']"),
        ("other datatype", one(datatype="FP64"), "'FP64'; the model wants FP32"),
        ("unknown datatype", one(datatype="FP128"), "'FP128'"),
        ("other rank", one(shape=[4]), "1 axes [4]; the model wants 2"),
        ("other length", one(shape=[4, 1]), "[4, 1]; the model wants [-1, 4]"),
        ("batch above the most", one(shape=[9, 4], data=[0] * 36), "batch of 9; this model takes at most 8"),
        ("negative dimension", one(shape=[-1, 4]), "at least 1"),
        ("zero", one(shape=[0, 4], data=[]), "at least 1"),
        ("boolean dimension", one(shape=[True, 4]), "Expected `int`, got `bool`"),
        ("fractional dimension", one(shape=[1.0, 4]), "Expected `int`, got `float`"),
        ("text dimension", one(shape=["1", 4]), "Expected `int`, got `str`"),
        ("huge dimensions", one(shape=[2**32, 2**32]), "the model wants"),
        ("too few values", one(data=[1, 2, 3]), "needs 4 values, its data has 3"),
        ("too many values", one(data=[1, 2, 3, 4, 5]), "needs 4 values, its data has 5"),
        ("ragged", one(shape=[2, 4], data=[[1, 2, 3], [4, 5, 6, 7, 8]]), "a list of 3 where"),
        ("nested the other way", one(data=[[1], [2], [3], [4]]), "a list of 4 where"),
        ("nested too deep", one(data=[[[1, 2, 3, 4]]]), "neither flat nor nested"),
        ("half nested", one(data=[[1, 2], 3, 4]), "neither flat nor nested"),
        ("text for numbers", one(data=["1", 2, 3, 4]), "is not FP32"),
        ("true for numbers", one(data=[True, 2, 3, 4]), "is not FP32"),
        ("null for numbers", one(data=[None, 2, 3, 4]), "is not FP32"),
        ("an object", one(data={"a": 1, "b": 2, "c": 3, "d": 4}), "is not FP32"),
        ("too large for FP32", one(data=[1, 2, 3, 1e39]), "1e+39, which FP32 can't hold"),
        ("id is a number", one() | {"id": 7}, "id"),
        ("id of 1 MiB", one() | {"id": "a" * 1_048_576}, "at most 256 bytes"),
        ("id of 257 bytes", one() | {"id": "é" * 128 + "a"}, "at most 256 bytes"),
        ("id with a line break", one() | {"id": "a\r\nb"}, "printable"),
        ("unknown output", one() | {"outputs": [{"name": "w"}]}, "no output 'w'; it has ['y', 'z']"),
        ("output twice", one() | {"outputs": [{"name": "y"}, {"name": "y"}]}, "twice"),
        ("output without a name", one() | {"outputs": [{}]}, "name"),
        ("classification", one() | asked(classification=3), "classification, which is not supported"),
        ("shared memory out", one() | asked(shared_memory_region="r"), "shared_memory_region"),
        ("shared memory in", one(parameters={"shared_memory_region": "r"}), "shared_memory_region"),
        ("sequence", one() | {"parameters": {"sequence_id": 5}}, "sequence_id is not supported"),
        ("binary_data_output not bool", one() | {"parameters": {"binary_data_output": 1}}, "true or false"),
        ("binary_data is text", one() | asked(binary_data="no"), "true or false"),
        ("a nested parameter", one(parameters={"k": [1]}), "parameters"),
        ("a thousand inputs", {"inputs": [GOOD] * 1024}, "has 4097 keys"),
        ("parameters is a list", one(parameters=[]), "parameters"),
    ],
)  # fmt: skip
def test_refused(sentence: str, body: Any, says: str) -> None:
    with pytest.raises(EdgeError) as caught:
        read(body)
    assert caught.value.reason is Reason.BAD_INPUT, sentence
    assert says in caught.value.message
    assert len(caught.value.message) < 400
    assert "\n" not in caught.value.message


def prefixed(*items: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


TAIL = np.arange(4, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("sentence", "body", "tail", "json_bytes", "says"),
    [
        ("JSON longer than the body", one(), b"", 10_000, "is 10000; it must be"),
        ("JSON of no bytes", one(), b"", 0, "is 0; it must be"),
        ("JSON of negative bytes", one(), b"", -1, "is -1; it must be"),
        ("JSON cut short", one(), b"", 10, "not the JSON"),
        ("JSON length not said", binary(16), b"", None, "is Inference-Header-Content-Length set"),
        ("tail too short", binary(16), TAIL[:-1], None, "16, but 15 bytes follow"),
        ("tail too long", binary(16), TAIL + b"x", None, "1 bytes follow the JSON that no input"),
        ("tail nobody wants", one(), TAIL, None, "16 bytes follow the JSON that no input"),
        ("size is not what the shape says", binary(12), TAIL[:12], None, "has 16 bytes; its"),
        ("size negative", binary(-16), TAIL, None, "-16; it must be"),
        ("size true", binary(True), TAIL, None, "True; it must be"),
        ("size text", binary("16"), TAIL, None, "'16'; it must be"),
        ("size fractional", binary(16.0), TAIL, None, "16.0; it must be"),
        ("size huge", binary(2**63), TAIL, None, "but 16 bytes follow"),
        ("both data and size", binary(16, data=[1, 2, 3, 4]), TAIL, None, "has both data and"),
    ],
)  # fmt: skip
def test_refused_binary(sentence: str, body: Any, tail: bytes, json_bytes: int | None, says: str) -> None:
    with pytest.raises(EdgeError, match=says) as caught:
        read(body, tail=tail, json_bytes=json_bytes)
    assert caught.value.reason is Reason.BAD_INPUT, sentence


def test_binary_tensors_follow_in_the_order_of_the_request() -> None:
    wanted = (Spec("a", "FP32", (-1, 2)), Spec("b", "BYTES", (-1,)), Spec("c", "INT64", (-1, 1)))
    body = {
        "inputs": [
            {"name": "b", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 13}},
            {"name": "c", "shape": [2, 1], "datatype": "INT64", "data": [-1, 9]},
            {"name": "a", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}},
        ]
    }
    request = read(body, inputs=wanted, tail=prefixed(b"\x00\xff", b"abc") + TAIL)
    assert [i.name for i in request.inputs] == ["a", "b", "c"], "as the model has them"
    assert request.inputs[0].array.tolist() == [[0, 1], [2, 3]]
    assert request.inputs[0].array.flags.aligned
    assert request.inputs[1].array.tolist() == [b"\x00\xff", b"abc"]
    assert request.inputs[2].array.tolist() == [[-1], [9]]


def test_inputs_share_one_batch() -> None:
    wanted = (X, Spec("b", "BYTES", (-1,)))
    body = {"inputs": [GOOD, {"name": "b", "shape": [2], "datatype": "BYTES", "data": ["", "a"]}]}
    with pytest.raises(EdgeError, match="batch of 2, the input before it has 1"):
        read(body, inputs=wanted)


@pytest.mark.parametrize(
    ("sentence", "listed", "all_binary", "wanted"),
    [
        ("none listed", None, True, None),
        ("as the request says", [{"name": "y"}], True, (RequestedOutput("y", True),)),
        ("JSON unless asked", [{"name": "y"}], False, (RequestedOutput("y", False),)),
        ("its own wish wins", [{"name": "z", "parameters": {"binary_data": False}}, {"name": "y"}], True,
         (RequestedOutput("z", False), RequestedOutput("y", True))),
        ("classification 0 is none", [{"name": "y", "parameters": {"classification": 0}}], False,
         (RequestedOutput("y", False),)),
    ],
)  # fmt: skip
def test_requested_outputs(sentence: str, listed: Any, all_binary: bool, wanted: Any) -> None:
    body = one() | {"parameters": {"binary_data_output": all_binary}}
    request = read(body if listed is None else body | {"outputs": listed})
    assert (request.outputs, request.binary_outputs) == (wanted, all_binary), sentence


DTYPES = [row for row in DATATYPES.values() if row.pack]


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, np.ndarray[Any, Any]]:
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=5))
    row = draw(st.sampled_from(list(DATATYPES.values())))
    if not row.pack:
        size = int(np.prod(shape))
        return "BYTES", bytes_array(
            draw(st.lists(st.binary(max_size=6), min_size=size, max_size=size)), shape
        )
    return row.name, draw(hnp.arrays(row.dtype, shape))


@settings(max_examples=60, deadline=None)
@given(tensor=tensors(), nested=st.booleans(), pad=st.integers(0, 9))
def test_what_goes_in_comes_out(tensor: tuple[str, np.ndarray[Any, Any]], nested: bool, pad: int) -> None:
    datatype, array = tensor
    spec = Spec("t", datatype, tuple(-1 for _ in array.shape))
    head = {"name": "t", "shape": list(array.shape), "datatype": datatype}

    def back(body: dict[str, Any], tail: bytes | None = None) -> np.ndarray[Any, Any]:
        raw = json.dumps({"inputs": [body], "pad": "x" * pad}).encode()
        request = decode_infer(
            raw + (tail or b""),
            json_bytes=None if tail is None else len(raw),
            inputs=(spec,), outputs=(), max_batch=5, batch_axis=None,
        )  # fmt: skip
        return request.inputs[0].array

    raw = prefixed(*array.ravel().tolist()) if datatype == "BYTES" else array.tobytes()
    binary = back(head | {"parameters": {"binary_data_size": len(raw)}}, raw)
    assert (binary.dtype, binary.shape, binary.flags.aligned) == (array.dtype, array.shape, True)
    assert binary.tobytes() == array.tobytes() if datatype != "BYTES" else binary.tolist() == array.tolist()
    if datatype == "BYTES":
        array = bytes_array([item.hex().encode() for item in array.ravel()], array.shape)
        values: Any = [item.decode() for item in array.ravel()]
    elif not np.isfinite(array.astype(np.float64)).all():
        return
    else:
        values = array.tolist() if nested else array.ravel().tolist()
    text = back(head | {"data": values})
    assert text.dtype == array.dtype
    np.testing.assert_array_equal(text, array)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200), st.none() | st.integers(-1, 250))
def test_noise_is_refused(noise: bytes, json_bytes: int | None) -> None:
    with pytest.raises(EdgeError) as caught:
        read(noise, json_bytes=json_bytes)
    assert caught.value.status == 400


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_damaged_request_is_read_or_refused(data: st.DataObject) -> None:
    raw = bytearray(json.dumps(binary(16)).encode() + TAIL)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        request = read(bytes(raw), json_bytes=len(raw) - 16)
    except EdgeError as error:
        outcome: object = error.status
    else:
        outcome = request.inputs[0].array.shape
    assert outcome in (400, (1, 4))
