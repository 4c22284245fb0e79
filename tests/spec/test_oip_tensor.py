"""Values at the edge of what each datatype holds, and BYTES whose lengths lie."""

import json
import math
import struct
from typing import Any, NamedTuple

import numpy as np
import pytest

from edge.errors import EdgeError
from edge.oip.datatypes import DATATYPES, OF_NUMPY
from edge.oip.tensor import check_shape, from_binary, from_json


class Spec(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]


def spec(datatype: str, *shape: int) -> Spec:
    return Spec("t", datatype, shape or (-1,))


@pytest.mark.parametrize(
    ("datatype", "least", "most"),
    [
        ("INT8", -(2**7), 2**7 - 1), ("INT16", -(2**15), 2**15 - 1), ("INT32", -(2**31), 2**31 - 1),
        ("INT64", -(2**63), 2**63 - 1), ("UINT8", 0, 2**8 - 1), ("UINT16", 0, 2**16 - 1),
        ("UINT32", 0, 2**32 - 1), ("UINT64", 0, 2**64 - 1),
    ],
)  # fmt: skip
def test_integers_hold_their_range_and_no_more(datatype: str, least: int, most: int) -> None:
    array = from_json(spec(datatype), [2], 2, json.dumps([least, most]).encode())
    assert (array.tolist(), OF_NUMPY[array.dtype]) == ([least, most], datatype)
    for outside in (least - 1, most + 1):
        with pytest.raises(EdgeError, match=rf"the value {outside}, which {datatype} can't hold") as caught:
            from_json(spec(datatype), [2], 2, json.dumps([0, outside]).encode())
        assert caught.value.status == 400


@pytest.mark.parametrize(
    ("sentence", "datatype", "data", "says"),
    [
        ("INT8 of 300", "INT8", "[300]", "300, which INT8"),
        ("UINT8 of -1", "UINT8", "[-1]", "-1, which UINT8"),
        ("a fraction", "INT32", "[1.5]", "is not INT32"),
        ("even a whole one", "INT32", "[1.0]", "is not INT32"),
        ("true is no integer", "INT32", "[true]", "is not INT32"),
        ("2 is no boolean", "BOOL", "[2]", "is not BOOL"),
        ("1 is no boolean either", "BOOL", "[1]", "is not BOOL"),
        ("text is no boolean", "BOOL", '["true"]', "is not BOOL"),
        ("FP16 overflow", "FP16", "[65520]", "which FP16"),
        ("FP32 overflow", "FP32", "[3.5e38]", "which FP32"),
        ("FP32 overflow below", "FP32", "[-3.5e38]", "which FP32"),
        ("FP64 overflow", "FP64", "[1e309]", "out of range"),
        ("a number is no text", "BYTES", "[1]", "is not BYTES"),
        ("half a surrogate pair", "BYTES", '["\\ud800 and on"]', "BYTES"),
        ("bytes that are not UTF-8", "BYTES", b'["\xff"]', "utf-8"),
        ("an overlong zero", "BYTES", b'["\xc0\x80"]', "utf-8"),
        ("a string for a list", "BYTES", '"a"', "is not BYTES"),
        ("too few texts", "BYTES", "[]", "needs 1 values, its data has 0"),
        ("too many texts", "BYTES", '["a","b"]', "needs 1 values, its data has 2"),
    ],
)
def test_refused_values(sentence: str, datatype: str, data: str | bytes, says: str) -> None:
    with pytest.raises(EdgeError, match=says) as caught:
        from_json(spec(datatype), [1], 1, data if isinstance(data, bytes) else data.encode())
    assert caught.value.status == 400, sentence


@pytest.mark.parametrize(
    ("datatype", "given", "held"),
    [
        ("FP32", [1, 0.1, 1e-50], [1.0, float(np.float32(0.1)), 0.0]),
        ("FP16", [65519, 0.1, 1], [65504.0, float(np.float16(0.1)), 1.0]),
        ("BOOL", [True, False, True], [True, False, True]),
        ("BYTES", ["", "a,b", "é\u0000"], [b"", b"a,b", "é\0".encode()]),
    ],
)
def test_accepted_values(datatype: str, given: list[Any], held: list[Any]) -> None:
    assert from_json(spec(datatype), [3], 3, json.dumps(given).encode()).tolist() == held


def test_nested_text_keeps_its_rows() -> None:
    array = from_json(spec("BYTES", -1, -1), [2, 2], 4, b'[["a","b"],["c","d"]]')
    assert array.tolist() == [[b"a", b"b"], [b"c", b"d"]]


def test_a_scalar_has_one_value() -> None:
    scalar = Spec("t", "FP32", ())
    assert check_shape(scalar, []) == 1
    assert from_json(scalar, [], 1, b"[2.5]").shape == ()


def test_no_shape_allocates() -> None:
    """2^96 elements are counted by Python's integers and refused by the body's few bytes."""
    wide = spec("FP32", -1, -1, -1)
    count = check_shape(wide, [2**32] * 3)
    assert count == 2**96
    with pytest.raises(EdgeError, match=f"needs {2**96} values, its data has 1"):
        from_json(wide, [2**32] * 3, count, b"[1]")
    with pytest.raises(EdgeError, match=f"has {2**98} bytes; its binary_data_size is 4"):
        from_binary(wide, [2**32] * 3, count, b"\0" * 4, 0, 4)
    with pytest.raises(EdgeError, match=f"{2**96} elements don't fit in 4 bytes"):
        from_binary(spec("BYTES", -1, -1, -1), [2**32] * 3, count, b"\0" * 4, 0, 4)


@pytest.mark.parametrize(
    ("sentence", "count", "raw", "says"),
    [
        ("past the end", 1, struct.pack("<I", 3) + b"ab", "claims 3 bytes where 2 are left"),
        ("far past the end", 1, b"\xff\xff\xff\xff", "claims 4294967295 bytes where 0 are left"),
        ("into the next tensor", 1, struct.pack("<I", 2) + b"a", "claims 2 bytes where 1 are left"),
        ("half a length", 2, struct.pack("<I", 2) + b"ab\0\0", "ends before element 1 of 2"),
        ("too few", 2, struct.pack("<I", 4) + b"abcd", "ends before element 1 of 2"),
        ("too many", 1, struct.pack("<I", 0) * 2, "4 bytes are left after its 1 elements"),
        ("nothing", 1, b"", "1 elements don't fit in 0 bytes"),
    ],
)
def test_lying_lengths(sentence: str, count: int, raw: bytes, says: str) -> None:
    with pytest.raises(EdgeError, match=says) as caught:
        from_binary(spec("BYTES"), [count], count, raw + b"behind", 0, len(raw))
    assert caught.value.status == 400, sentence


@pytest.mark.parametrize(
    ("sentence", "datatype", "count", "raw", "says"),
    [
        ("odd FP16 tail", "FP16", 2, b"\0" * 3, "has 4 bytes; its binary_data_size is 3"),
        ("a boolean of 2", "BOOL", 2, b"\1\2", "neither 0 nor 1"),
    ],
)
def test_refused_bytes(sentence: str, datatype: str, count: int, raw: bytes, says: str) -> None:
    with pytest.raises(EdgeError, match=says) as caught:
        from_binary(spec(datatype), [count], count, raw, 0, len(raw))
    assert caught.value.status == 400, sentence


def test_binary_is_exact_and_not_copied_where_aligned() -> None:
    raw = np.array([math.nan, math.inf, -0.0, 1e-45], np.float32).tobytes()
    array = from_binary(spec("FP32"), [4], 4, raw, 0, 16)
    assert array.tobytes() == raw
    assert np.shares_memory(array, np.frombuffer(raw, np.uint8))
    shifted = from_binary(spec("FP32"), [4], 4, b"x" + raw, 1, 16)
    assert (shifted.tobytes(), bool(shifted.flags.aligned)) == (raw, True)


def test_every_datatype_has_the_size_it_packs() -> None:
    for row in DATATYPES.values():
        assert row.pack == "" or struct.calcsize(f"<{row.pack}") == row.dtype.itemsize, row.name
        assert OF_NUMPY[row.dtype] == row.name
