"""Which files does an ONNX graph reach for? Read from its bytes, before anything loads them.

A walk over the protobuf wire format along the few fields that can hold a tensor (the
numbers are those of onnx.proto3). ONNX Runtime checks neither hard links nor content and
knows locations with meanings of their own, so a graph is let through only if every external
tensor is a range of a blob that the manifest lists. Pure: opens nothing. It reads the wire
itself because the onnx package costs a worker 14 MB and 0.2 s.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from edge.errors import EdgeError, Reason, Source

#: message -> field number -> message inside it; every way from a model to a tensor.
_CHILDREN: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
_KEYS: Final = frozenset({"location", "offset", "length"})
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_MAX_DEPTH: Final = 64


def check_external(raw: bytes, blobs: Mapping[str, int]) -> None:
    """Is every external tensor of this graph a range of one of `blobs` (digest -> bytes)?

    Raises EdgeError(LOAD_FAILED): not ONNX, another file, an unknown key, or a range outside.
    """
    stack = [("model", memoryview(raw), 0)]
    while stack:
        kind, message, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise _refused(f"graphs nest deeper than {_MAX_DEPTH}")
        children = _CHILDREN[kind]
        external: list[memoryview] = []
        declared = False
        for number, wire, value in _fields(message):
            if number in children and isinstance(value, memoryview):
                stack.append((children[number], value, depth + 1))
            elif kind == "tensor" and number == _EXTERNAL_DATA and isinstance(value, memoryview):
                external.append(value)
            elif kind == "tensor" and number == _DATA_LOCATION and wire == _VARINT:
                declared = value != 0
        if external or declared:
            _check_tensor(external, declared, blobs)


def _check_tensor(external: list[memoryview], declared: bool, blobs: Mapping[str, int]) -> None:
    entries: dict[str, str] = {}
    for entry in external:
        pair = {number: bytes(value) for number, _, value in _fields(entry) if isinstance(value, memoryview)}
        key = pair.get(1, b"").decode("utf-8", "replace")
        if key in entries:
            raise _refused(f"an external tensor names its {key!r} twice")
        entries[key] = pair.get(2, b"").decode("utf-8", "replace")
    if not declared or entries.keys() != _KEYS:
        raise _refused(f"an external tensor has keys {sorted(entries)}; exactly {sorted(_KEYS)} are allowed")
    location = entries["location"]
    if location not in blobs:
        raise _refused(f"a tensor lies in {location[:80]!r}, which is no weights blob of the manifest")
    offset, length = (_number(entries[key]) for key in ("offset", "length"))
    if offset + length > blobs[location]:
        raise _refused(f"a tensor ends at {offset + length}, its blob has {blobs[location]} bytes")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise _refused(f"an external tensor has offset or length {text[:40]!r}, which is no number")
    return int(text)


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """(field number, wire type, value) of one protobuf message; bytes of fixed fields are skipped."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, wire, value
        elif wire == _LEN:
            size, at = _varint(message, at)
            if size > end - at:
                raise _refused("a field is longer than the message around it")
            yield number, wire, message[at : at + size]
            at += size
        elif wire in (_I64, _I32):
            at += 8 if wire == _I64 else 4
            yield number, wire, 0
        else:
            raise _refused(f"protobuf wire type {wire}")
    if at != end:
        raise _refused("a field is cut off")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _refused("a number is cut off")


def _refused(what: str) -> EdgeError:
    return EdgeError(
        Reason.LOAD_FAILED,
        f"the graph can't be loaded: {what}; publish the model again",
        source=Source.UPSTREAM,
    )
