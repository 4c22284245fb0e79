"""Data by reference: which names a body holds, what stands for a tensor, and what an entry may say."""

import json
import struct
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from edge.errors import EdgeError, Reason
from edge.oip.objects import LOOK_BYTES, MAX_OBJECTS, is_object_name, names_in
from edge.oip.request import decode_infer
from edge.oip.run import decode_run
from edge.weights import entry as en
from edge.weights.manifest import digest

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
OIP = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"object":"a/b.bin"}}]}'


@pytest.mark.parametrize(
    ("sentence", "name", "good"),
    [
        ("one segment", "a", True),
        ("a file's name", "cat.v2_final-1.jpg", True),
        ("folders", "2024/11/a.bin", True),
        ("eight segments", "/".join("abcdefgh"), True),
        ("nine", "/".join("abcdefghi"), False),
        ("a long segment", "a" * 128, True),
        ("too long a segment", "a" * 129, False),
        ("too long altogether", "/".join(["a" * 128] * 4), False),
        ("nothing", "", False),
        ("absolute", "/a", False),
        ("a folder", "a/", False),
        ("an empty segment", "a//b", False),
        ("up", "a/../b", False),
        ("hidden", ".a", False),
        ("a line's end", "a\n", False),
        ("an escape", "a%2fb", False),
        ("a letter that is none", "é", False),
    ],
)
def test_names(sentence: str, name: str, good: bool) -> None:
    assert is_object_name(name) is good


@pytest.mark.parametrize(
    ("sentence", "protocol", "body", "content_type", "json_bytes", "names"),
    [
        ("a tensor", "oip", OIP, "", None, ("a/b.bin",)),
        ("a tensor with a binary one behind", "oip", OIP + b"\xff\xff", "", len(OIP), ("a/b.bin",)),
        ("what lies behind the JSON is data", "oip", b'{"inputs":[]}' + OIP, "", 13, ()),
        ("spread over lines", "oip", b'{"object" \t\r\n : \n "a"}', "", None, ("a",)),
        ("none", "oip", b'{"inputs":[]}', "", None, ()),
        ("a value is no key", "oip", b'["object","a"]', "", None, ()),
        ("a key in a string", "oip", rb'{"data":["{\"object\":\"a\"}"]}', "", None, ()),
        ("of another type", "oip", b'{"object":1}', "", None, ()),
        ("a name that can't be", "oip", b'{"object":"a/../b"}', "", None, ()),
        ("one text", "run", b'{"input": {"object": "a"}}', FORM, None, ("a",)),
        ("several, one of them twice", "run",
         b'{"input":[{"object":"b"},"t",{"object":"a"},{"object":"b"}]}', JSON, None, ("b", "a")),
        ("by the name of the input", "run", b'\n{"inputs":{"x":{"object":"a"}}}', FORM, None, ("a",)),
        ("JSON of another shape, if it says so", "run", b'{"m":1,"input":{"object":"a"}}', JSON, None, ("a",)),
        ("else it is text", "run", b'{"m":1,"input":{"object":"a"}}', FORM, None, ()),
        ("text", "run", b'What is "object": "a"?', "text/plain", None, ()),
        ("the longest that is read", "oip", OIP.ljust(LOOK_BYTES), "", None, ("a/b.bin",)),
        ("a longer one", "oip", OIP.ljust(LOOK_BYTES + 1), "", None, ()),
    ],
)  # fmt: skip
def test_names_in_a_body(
    sentence: str,
    protocol: str,
    body: bytes,
    content_type: str,
    json_bytes: int | None,
    names: tuple[str, ...],
) -> None:
    assert names_in(body, protocol, content_type, json_bytes) == names


def test_too_many_names_are_refused() -> None:
    def body(count: int) -> bytes:
        return json.dumps({"input": [{"object": f"o{n}"} for n in range(count)]}).encode()

    assert len(names_in(body(MAX_OBJECTS), "run", JSON, None)) == MAX_OBJECTS
    with pytest.raises(EdgeError, match="9 objects; at most 8"):
        names_in(body(MAX_OBJECTS + 1), "run", JSON, None)


# --- tensors


class Spec(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]


X = Spec("x", "FP32", (-1, 2))
TEXT = Spec("text", "BYTES", (-1,))
FOUR = struct.pack("<4f", 1, 2, 3, 4)
CONTENTS = {
    "four": FOUR,
    "odd": FOUR + b"\0",
    "text": "é, and so on".encode(),
    "three": b"".join(struct.pack("<I", len(item)) + item for item in (b"a", b"", b"ccc")),
}


def oip(tensor: Any, *specs: Spec) -> Any:
    return decode_infer(
        json.dumps({"inputs": [tensor]}).encode(),
        json_bytes=None,
        inputs=specs,
        outputs=(),
        max_batch=8,
        batch_axis=0,
        read_object=CONTENTS.__getitem__,
    ).inputs[0]


def by_name(name: Any, shape: list[int], datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    return {
        "name": "x" if datatype == "FP32" else "text",
        "shape": shape,
        "datatype": datatype,
        "parameters": {"object": name},
        **more,
    }


def test_an_object_in_the_place_of_a_tensor() -> None:
    found = oip(by_name("four", [2, 2]), X)
    assert (found.name, found.array.dtype, found.array.tolist()) == ("x", np.float32, [[1, 2], [3, 4]])
    assert not found.array.flags.writeable
    assert oip(by_name("text", [1], "BYTES"), TEXT).array.tolist() == [CONTENTS["text"]]
    assert oip(by_name("three", [3], "BYTES"), TEXT).array.tolist() == [b"a", b"", b"ccc"]
    assert oip(by_name("four", [2, 2], data=None), X).array.shape == (2, 2)


@pytest.mark.parametrize(
    ("sentence", "tensor", "spec", "says"),
    [
        ("the shape is not its size", by_name("four", [3, 2]), X, "has 24 bytes; the object four has 16"),
        ("a byte too many", by_name("odd", [2, 2]), X, "the object odd has 17"),
        ("data as well", by_name("four", [2, 2], data=[1, 2, 3, 4]), X, "and has data too"),
        ("binary data as well", by_name("four", [2, 2], parameters={"object": "four", "binary_data_size": 16}), X,
         "and has data too"),
        ("no name", by_name(7, [2, 2]), X, "names the object 7"),
        ("a name that can't be", by_name("../etc", [2, 2]), X, r"names the object '\.\./etc'"),
        ("several texts without lengths", by_name("text", [2], "BYTES"), TEXT, "is not BYTES"),
        ("more than the batch", by_name("four", [9, 2]), X, "at most 8"),
    ],
)  # fmt: skip
def test_refused_tensors(sentence: str, tensor: Any, spec: Spec, says: str) -> None:
    with pytest.raises(EdgeError, match=says) as caught:
        oip(tensor, spec)
    assert caught.value.reason is Reason.BAD_INPUT


def run(task: str, body: Any, *specs: Spec, content_type: str = JSON) -> Any:
    return decode_run(
        json.dumps(body).encode(),
        content_type,
        task=task,
        inputs=specs,
        max_batch=3,
        batch_axis=0,
        read_object=CONTENTS.__getitem__,
    )


@pytest.mark.parametrize(
    ("sentence", "task", "body", "spec", "values", "single"),
    [
        ("one text", "embedding", {"input": {"object": "text"}}, TEXT, [CONTENTS["text"]], True),
        ("among others", "embedding", {"input": ["t", {"object": "text"}]}, TEXT, [b"t", CONTENTS["text"]], False),
        ("bytes", "bytes-classification", {"input": {"object": "odd"}}, TEXT, [CONTENTS["odd"]], True),
        ("a tensor as long as its size says", "tensors", {"input": {"object": "four"}}, X, [[1, 2], [3, 4]], False),
        ("by name", "tensors", {"inputs": {"x": {"object": "four"}}}, X, [[1, 2], [3, 4]], False),
        ("a tensor of bytes is one", "tensors", {"input": {"object": "text"}}, TEXT, [CONTENTS["text"]], False),
    ],
)  # fmt: skip
def test_objects_over_run(sentence: str, task: str, body: Any, spec: Spec, values: Any, single: bool) -> None:
    found = run(task, body, spec)
    assert (found.inputs[0].array.tolist(), found.single) == (values, single)


@pytest.mark.parametrize(
    ("sentence", "task", "body", "spec", "says"),
    [
        ("half an item", "tensors", {"input": {"object": "odd"}}, X, "8 bytes an item; the object odd has 17"),
        ("two free axes", "tensors", {"input": {"object": "four"}}, Spec("x", "FP32", (-1, -1)), "over /v2"),
        ("more items than fit", "tensors", {"input": {"object": "four"}}, Spec("x", "FP32", (-1,)), "at most 3"),
        ("no element at all", "tensors", {"input": {"object": "four"}}, Spec("x", "FP32", (-1, 0)), "no element"),
        ("another field beside it", "embedding", {"input": {"object": "text", "more": 1}}, TEXT, "not the JSON"),
        ("no name", "embedding", {"input": {"object": ""}}, TEXT, "names the object ''"),
    ],
)  # fmt: skip
def test_refused_over_run(sentence: str, task: str, body: Any, spec: Spec, says: str) -> None:
    with pytest.raises(EdgeError, match=says) as caught:
        run(task, body, spec)
    assert caught.value.reason is Reason.BAD_INPUT


def test_where_no_objects_are_taken_the_way_to_name_one_is_told() -> None:
    raw = json.dumps({"inputs": [by_name("four", [2, 2])]}).encode()
    with pytest.raises(EdgeError, match=r'plain {"object": "four"}') as caught:
        decode_infer(raw, json_bytes=None, inputs=(X,), outputs=(), max_batch=8, batch_axis=0)
    assert caught.value.status == 400


# --- entries

WHOLE = digest(b"abc")
GOOD: dict[str, Any] = {
    "schema": 1,
    "name": "a/b",
    "size_bytes": 3,
    "blake3": WHOLE,
    "sha256": WHOLE,
    "chunks": [WHOLE],
    "chunk_bytes": 4096,
}


def test_an_entry_is_read_as_it_was_written() -> None:
    entry = msgspec.convert(GOOD, en.Entry)
    assert en.decode(en.encode(entry), "a/b") == entry
    assert en.entry_path("a/b") == "data/a/b.json"
    file = entry.file
    assert (file.name, file.blake3, file.size_bytes, file.chunks) == ("b", WHOLE, 3, (WHOLE,))


@pytest.mark.parametrize(
    ("sentence", "raw", "says"),
    [
        ("not JSON", b"<html>", "is not valid"),
        ("of another object", GOOD | {"name": "a/c"}, "is of the object 'a/c'"),
        ("of a later schema", GOOD | {"schema": 2}, "is not valid"),
        ("empty", GOOD | {"size_bytes": 0}, "is not valid"),
        ("a digest that is none", GOOD | {"blake3": "../x"}, "is not valid"),
        ("chunks that are too small", GOOD | {"chunk_bytes": 1}, "is not valid"),
        ("chunks are missing", GOOD | {"size_bytes": 5000}, "has 1 chunks; 5000 bytes in chunks of 4096 have 2"),
        ("a chunk of another content", GOOD | {"chunks": [digest(b"")]}, "is one chunk"),
        ("too long", b" " * (en.ENTRY_MAX_BYTES + 1), "at most"),
        ("deeper than any stack", b"[" * 200_000, "is not valid"),
    ],
)  # fmt: skip
def test_an_entry_that_must_not_be_used(sentence: str, raw: Any, says: str) -> None:
    with pytest.raises(EdgeError, match=says) as caught:
        en.decode(raw if isinstance(raw, bytes) else json.dumps(raw).encode(), "a/b")
    assert (caught.value.reason, caught.value.status) == (Reason.BLOB_CORRUPT, 503)
    assert "a/b" in caught.value.message
