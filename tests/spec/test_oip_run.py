"""`POST /run/{model}`: what curl sends and what it gets."""

import json
import math
from typing import Any, NamedTuple

import numpy as np
import pytest

from edge.errors import EdgeError, Reason
from edge.oip.datatypes import NamedArray, bytes_array
from edge.oip.run import RunRequest, decode_run, encode_run

JSON = "application/json; charset=utf-8"
FORM = "application/x-www-form-urlencoded"


class Spec(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]


TEXT = (Spec("text", "BYTES", (-1,)),)
X = (Spec("x", "FP32", (-1, 2)),)
TWO = (Spec("a", "FP32", (-1, 2)), Spec("b", "INT64", (-1,)))


def read(task: str, body: bytes, content_type: str | None = FORM, *, specs: Any = None,
         batch_axis: int | None = 0) -> RunRequest:  # fmt: skip
    inputs = specs or (X if task == "tensors" else TEXT)
    return decode_run(body, content_type, task=task, inputs=inputs, max_batch=3, batch_axis=batch_axis)


@pytest.mark.parametrize(
    ("sentence", "task", "body", "content_type", "items", "single"),
    [
        ("curl -d text", "embedding", b"How far?", FORM, [b"How far?"], True),
        ("no content type", "embedding", b"How far?", None, [b"How far?"], True),
        ("forms are not decoded", "embedding", b"a+b%20c", FORM, [b"a+b%20c"], True),
        ("UTF-8", "embedding", "é".encode(), "text/plain", ["é".encode()], True),
        ("curl -d JSON", "embedding", b'{"input": "a"}', FORM, [b"a"], True),
        ("curl -d JSON, several", "embedding", b'{"input": ["a", "\\u00e9"]}', FORM, [b"a", "é".encode()], False),
        ("a list of one is a list", "embedding", b'{"input": ["a"]}', JSON, [b"a"], False),
        ("other fields are ignored", "embedding", b'{"model": "m", "input": "a"}', FORM, [b"a"], True),
        ("text that starts with a brace", "embedding", b"{curly} text", FORM, [b"{curly} text"], True),
        ("JSON without input is text", "embedding", b'{"a": 1}', FORM, [b'{"a": 1}'], True),
        ("a list is text", "embedding", b'["a"]', FORM, [b'["a"]'], True),
        ("deep text", "embedding", b'{"a":' * 99, FORM, [b'{"a":' * 99], True),
        ("bytes as they are", "bytes-classification", b"\xff\0{", FORM, [b"\xff\0{"], True),
        ("no bytes at all", "bytes-classification", b"", None, [b""], True),
        ("a JSON file is bytes", "bytes-classification", b'{"input": "a"}', FORM, [b'{"input": "a"}'], True),
        ("unless it says so", "bytes-classification", b'{"input": ["a", ""]}', JSON, [b"a", b""], False),
    ],
)  # fmt: skip
def test_items(
    sentence: str, task: str, body: bytes, content_type: str | None, items: list[bytes], single: bool
) -> None:
    request = read(task, body, content_type)
    (given,) = request.inputs
    assert (given.name, given.datatype, given.array.shape) == ("text", "BYTES", (len(items),)), sentence
    assert (given.array.tolist(), request.single) == (items, single), sentence


@pytest.mark.parametrize(
    ("sentence", "task", "body", "content_type", "says"),
    [
        ("no text", "embedding", b"", FORM, "the text is empty"),
        ("an empty text", "embedding", b'{"input": ["a", ""]}', FORM, "the text is empty"),
        ("text that is not UTF-8", "embedding", b"\xff", FORM, "not valid UTF-8"),
        ("a comma too many", "embedding", b'{"input": "a",}', FORM, "not the JSON expected"),
        ("a number for a text", "embedding", b'{"input": 7}', FORM, '"input" is not the JSON expected'),
        ("null for a text", "embedding", b'{"input": null}', JSON, '"input" is not the JSON expected'),
        ("an empty list", "embedding", b'{"input": []}', FORM, "empty list"),
        ("too many", "embedding", b'{"input": ["a","b","c","d"]}', FORM, "has 4 items; this model takes at most 3"),
        ("twice the input", "embedding", b'{"input": "a", "input": "b"}', FORM, "twice"),
        ("not JSON though it says so", "embedding", b"text", JSON, "not the JSON expected"),
        ("no input though JSON", "bytes-classification", b"{}", JSON, 'has no "input"'),
        ("deep JSON", "bytes-classification", b'{"input":' * 40, JSON, "deeper than 32"),
        ("half a surrogate pair", "embedding", b'{"input": "\\ud800 and"}', FORM, "the JSON"),
        ("text for numbers", "tensors", b"hello", FORM, "not the JSON expected"),
        ("neither", "tensors", b"{}", FORM, r"send {\"input\": numbers}"),
        ("both", "tensors", b'{"input": [1, 2], "inputs": {"x": [1, 2]}}', FORM, r"send {\"input\": numbers}"),
        ("an unknown name", "tensors", b'{"inputs": {"z": [1, 2]}}', FORM, r"names \['z'\]; the model wants \['x'\]"),
        ("another length", "tensors", b'{"input": [1, 2, 3]}', FORM, r"\[1, 3\]; the model wants \[-1, 2\]"),
        ("another rank", "tensors", b'{"input": [[[1, 2]]]}', FORM, "3 axes"),
        ("a scalar", "tensors", b'{"input": 1}', FORM, "0 axes"),
        ("an empty list of numbers", "tensors", b'{"input": []}', FORM, r"shape \[1, 0\]"),
        ("ragged", "tensors", b'{"input": [[1, 2], [3], [4, 5, 6]]}', FORM, "a list of 1 where"),
        ("too many rows", "tensors", b'{"input": [[1,2],[1,2],[1,2],[1,2]]}', FORM, "has 4 items"),
        ("too large a number", "tensors", b'{"input": [1, 1e39]}', FORM, "which FP32 can't hold"),
        ("very many lists", "tensors", b'{"input": [' + b"[]," * 70_000 + b"[]]}", FORM, "more than 65536 lists"),
    ],
)  # fmt: skip
def test_refused(sentence: str, task: str, body: bytes, content_type: str, says: str) -> None:
    with pytest.raises(EdgeError, match=says) as caught:
        read(task, body, content_type)
    assert caught.value.reason is Reason.BAD_INPUT, sentence


@pytest.mark.parametrize(
    ("sentence", "body", "rows", "single"),
    [
        ("one item", b'{"input": [1, 2]}', [[1, 2]], True),
        ("a batch", b'{"input": [[1, 2], [3, 4]]}', [[1, 2], [3, 4]], False),
        ("by name", b'{"inputs": {"x": [[1, 2]]}}', [[1, 2]], False),
    ],
)
def test_tensors(sentence: str, body: bytes, rows: Any, single: bool) -> None:
    request = read("tensors", body)
    assert (request.inputs[0].array.tolist(), request.single) == (rows, single), sentence
    assert request.inputs[0].array.dtype == np.float32


def test_several_tensors_agree_on_the_batch() -> None:
    request = read("tensors", b'{"inputs": {"b": 5, "a": [1, 2]}}', specs=TWO)
    assert [(i.name, i.array.tolist()) for i in request.inputs] == [("a", [[1, 2]]), ("b", [5])]
    assert request.single
    for body in (b'{"inputs": {"b": [5], "a": [1, 2]}}', b'{"inputs": {"b": [5], "a": [[1, 2], [3, 4]]}}'):
        with pytest.raises(EdgeError, match="disagree on the number of items"):
            read("tensors", body, specs=TWO)
    with pytest.raises(EdgeError, match="several inputs"):
        read("tensors", b'{"input": [1, 2]}', specs=TWO)


def test_a_model_that_does_not_batch_wants_the_whole_shape() -> None:
    assert not read("tensors", b'{"input": [[1, 2]]}', batch_axis=None).single
    with pytest.raises(EdgeError, match="1 axes"):
        read("tensors", b'{"input": [1, 2]}', batch_axis=None)


VECTORS = NamedArray("embedding", "FP32", np.array([[0.1, -0.5], [math.nan, 2]], np.float32))
LABELS = NamedArray("label", "BYTES", bytes_array([b"makefile", b"c"], (2,)))
SCORES = NamedArray("score", "FP32", np.array([0.9, 0.7], np.float32))


@pytest.mark.parametrize(
    ("sentence", "task", "single", "outputs", "wanted"),
    [
        ("one vector", "embedding", True, [VECTORS], {"embedding": [0.1, -0.5]}),
        ("vectors", "embedding", False, [VECTORS], {"embeddings": [[0.1, -0.5], [None, 2]]}),
        ("one label", "bytes-classification", True, [LABELS, SCORES], {"label": "makefile", "score": 0.9}),
        ("labels", "bytes-classification", False, [LABELS, SCORES],
         {"results": [{"label": "makefile", "score": 0.9}, {"label": "c", "score": 0.7}]}),
        ("tensors", "tensors", False, [VECTORS, LABELS],
         {"outputs": {"embedding": [[0.1, -0.5], [None, 2]], "label": ["makefile", "c"]}}),
        ("tensors of one item", "tensors", True, [VECTORS, LABELS, SCORES],
         {"outputs": {"embedding": [0.1, -0.5], "label": "makefile", "score": 0.9}}),
    ],
)  # fmt: skip
def test_answers(sentence: str, task: str, single: bool, outputs: list[NamedArray], wanted: Any) -> None:
    body = encode_run(model="m", version="1", task=task, single=single, outputs=outputs)
    assert json.loads(body) == {"model": "m", "version": "1"} | wanted, sentence


def test_an_unknown_task_is_our_fault() -> None:
    with pytest.raises(EdgeError) as caught:
        read("magic", b"x")
    assert caught.value.reason is Reason.INTERNAL
