"""The whole specification of edge/cli/pbtxt.py: what is read of a config.pbtxt, and what is refused where."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cli.pbtxt import MAX_BYTES, MAX_DEPTH, MAX_DIMS, MAX_TENSORS, ModelConfig, PbtxtError, Tensor, parse

X = 'name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ]'
READ = [
    ("nothing", "", ModelConfig("", 0, (), ())),
    (
        "as its documentation has it",
        """# A model.
name: "densenet"
platform: "onnxruntime_onnx"
max_batch_size : 8
input [
  { name: "data_0" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, 224 ] },
  { name: 'ids', data_type: TYPE_INT64; dims: -1 }
]
output { name: "label" data_type: TYPE_STRING dims: [ 1 ] label_filename: "labels.txt" }
output: < name: "p" data_type: TYPE_FP16 dims: 3 dims: 4 >
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } ]
parameters { key: "a\\"b" value: { string_value: "{" } }
dynamic_batching { max_queue_delay_microseconds: 100 }
version_policy: { specific { versions: [ 1, 3 ] } }
optimization { execution_accelerators { gpu_execution_accelerator : [ { name : "tensorrt" } ] } }
scale: -1.5e3
""",
        ModelConfig(
            "densenet",
            8,
            (Tensor("data_0", "FP32", (3, 224, 224)), Tensor("ids", "INT64", (-1,))),
            (Tensor("label", "BYTES", (1,)), Tensor("p", "FP16", (3, 4))),
        ),
    ),
    ("no dims at all", f"input [ {{ {X.split(' dims')[0]} dims: [] }} ]", ModelConfig("", 0, (Tensor("x", "FP32", ()),), ())),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "text", "expected"), READ, ids=[row[0] for row in READ])
def test_what_is_read(sentence, text, expected):
    assert parse(text.encode()) == expected, sentence


REFUSED = [
    ("a character that is none", "name: @", 1, "can't be read"),
    ("a string without end", 'name: "x\n', 1, "can't be read"),
    ("a name without a value", "\nname", 2, "not the end of the file"),
    ("a value without a name", '"x"', 1, "a field's name is expected"),
    ("a colon and nothing", "name:", 1, "a value is missing"),
    ("a brace that is not closed", "input {\n", 2, "a field's name is expected, not the end of the file"),
    ("a list that is not closed", "dims: [ 1", 1, "a value is missing"),
    ("the wrong brace", "a < b: 1 }", 1, "a field's name is expected, not '}'"),
    ("a name that is no string", "name: x", 1, "a string in quotes"),
    ("a name with an escape", r'name: "a\x41"', 1, "has an escape"),
    ("two names", 'name: "a"\nname: "b"', 2, "given twice"),
    ("a batch that is no number", "\n\nmax_batch_size: many", 3, "from 0 to 4096"),
    ("a batch below nothing", "max_batch_size: -1", 1, "from 0 to 4096"),
    ("a batch that is a message", "max_batch_size { a: 1 }", 1, "not a message"),
    ("an input that is a word", "input: x", 1, "in braces"),
    ("an input without dims", 'input {\nname: "x" data_type: TYPE_FP32 }', 2, "needs name, data_type and dims"),
    ("an empty input", "input { }", 1, "needs name"),
    ("a type that is none", 'input { name: "x" data_type: TYPE_BF16 dims: 1 }', 1, "TYPE_BF16"),
    ("a type that is a message", 'input { name: "x" data_type { } dims: 1 }', 1, "a message"),
    ("a dim that is none", 'input { name: "x" data_type: TYPE_FP32 dims: -2 }', 1, "from -1"),
    ("a dim beyond all bounds", 'input { name: "x" data_type: TYPE_FP32 dims: 99999999999999 }', 1, "from -1"),
    ("a reshape", f"input {{ {X} reshape {{ shape: 1 }} }}", 1, "reshape is not supported"),
    ("too many dims", 'input { name: "x" data_type: TYPE_FP32 dims: [' + "1," * (MAX_DIMS + 1) + "] }", 1, "at most"),
    ("too many inputs", f"input {{ {X} }}\n" * (MAX_TENSORS + 1), 1, "65 inputs"),
    ("what nests without end", "a {" * (MAX_DEPTH + 2), 1, "nests deeper"),
    ("a file without end", "#" * (MAX_BYTES + 1), 1, "at most"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "text", "line", "problem"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_refused_and_where(sentence, text, line, problem):
    with pytest.raises(PbtxtError) as caught:
        parse(text.encode())
    assert (caught.value.line, problem in str(caught.value)) == (line, True), (sentence, str(caught.value))


def test_what_is_no_text_is_refused():
    with pytest.raises(PbtxtError, match="no UTF-8") as caught:
        parse(b"a: 1\n\xff")
    assert caught.value.line == 2


@given(
    st.one_of(st.binary(max_size=200), st.text(alphabet='ab:{}[]<>"1-# \n,', max_size=200).map(str.encode))
)
def test_whatever_comes_is_read_or_refused(raw):
    with contextlib.suppress(PbtxtError):
        parse(raw)
