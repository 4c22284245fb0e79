"""What does an ONNX graph reach for? Read from its bytes, before anything loads them.

A walk over the protobuf wire format along the few fields that can hold a tensor or a node (the
numbers are those of onnx.proto3). ONNX Runtime checks neither hard links nor content and
knows locations with meanings of their own, so a graph is let through only if every external
tensor is a range of a blob that the manifest lists, and every operator comes from a domain
that the manifest names. Pure: opens nothing. It reads the wire itself because the onnx package
costs a worker 14 MB and 0.2 s.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
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
_OP_TYPE, _NODE_DOMAIN, _FUNCTION_DOMAIN = 4, 7, 10
_KEYS: Final = frozenset({"location", "offset", "length"})
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_EMPTY: Final = memoryview(b"")
_MAX_DEPTH: Final = 64
#: Operators that ONNX Runtime itself brings.
DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
#: What ONNX Runtime makes of them for a processor.
OPTIMISED_DOMAINS: Final = frozenset({"com.microsoft.nchwc"})
#: What `custom_ops` of a manifest may name -> the domain that it brings.
LIBRARIES: Final = {"onnxruntime-extensions": "ai.onnx.contrib"}
#: It stands for a compiled part of a graph, and names a file to read that from.
_COMPILED: Final = "EPContext"
#: Tied weights are one range with two names; a range with a thousand is memory that nobody has counted.
TIED_MAX: Final = 2

_Range = tuple[int, int]


def check_graph(
    raw: bytes, blobs: Mapping[str, int], custom_ops: Collection[str] = (), *, optimised: bool = False
) -> None:
    """Does this graph reach for nothing but ranges of `blobs` (digest -> bytes) and operators that are there?

    An `optimised` one, which ONNX Runtime wrote, may have operators of its making.
    Raises EdgeError(LOAD_FAILED): not ONNX, another file, an unknown key, a range outside or across
    another one, an operator of a domain that neither the runtime nor `custom_ops` brings.
    """
    operators: dict[str, str] = {}
    brought = DOMAINS | {LIBRARIES[name] for name in custom_ops if name in LIBRARIES}
    if optimised:
        brought |= OPTIMISED_DOMAINS
    ranges: dict[str, list[_Range]] = defaultdict(list)
    stack = [("model", memoryview(raw), 0)]
    while stack:
        kind, message, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise _refused(f"graphs nest deeper than {_MAX_DEPTH}")
        children = _CHILDREN[kind]
        external: list[memoryview] = []
        declared = False
        op_type = domain = ""
        for number, wire, value in _fields(message):
            if number in children and isinstance(value, memoryview):
                stack.append((children[number], value, depth + 1))
            elif kind == "tensor" and number == _EXTERNAL_DATA and isinstance(value, memoryview):
                external.append(value)
            elif kind == "tensor" and number == _DATA_LOCATION and wire == _VARINT:
                declared = value != 0
            elif kind == "node" and number == _OP_TYPE and isinstance(value, memoryview):
                op_type = _text(value)
            elif kind == "node" and number == _NODE_DOMAIN and isinstance(value, memoryview):
                domain = _text(value)
            elif kind == "function" and number == _FUNCTION_DOMAIN and isinstance(value, memoryview):
                # The graph brings these operators itself, and they are made of others.
                brought |= {_text(value)}
        if op_type == _COMPILED:
            raise _refused(f"{_COMPILED} stands for a compiled file, which is no blob of the manifest")
        if kind == "node":
            operators.setdefault(domain, op_type)
        if external or declared:
            location, found = _read_tensor(external, declared, blobs)
            ranges[location].append(found)
    for domain, op_type in operators.items():
        if domain not in brought:
            raise _refused(
                f"operator {op_type[:80]!r} is of domain {domain[:80]!r}, which the manifest's custom_ops "
                "do not bring"
            )
    for location, found_there in ranges.items():
        _check_apart(location, found_there, blobs[location])


def _read_tensor(external: list[memoryview], declared: bool, blobs: Mapping[str, int]) -> tuple[str, _Range]:
    entries: dict[str, str] = {}
    for entry in external:
        pair = {number: value for number, _, value in _fields(entry) if isinstance(value, memoryview)}
        key = _text(pair.get(1, _EMPTY))
        if key in entries:
            raise _refused(f"an external tensor names its {key[:80]!r} twice")
        entries[key] = _text(pair.get(2, _EMPTY))
    if not declared or entries.keys() != _KEYS:
        shown = [key[:80] for key in sorted(entries)[:8]]
        raise _refused(f"an external tensor has keys {shown}; exactly {sorted(_KEYS)} are allowed")
    location = entries["location"]
    if location not in blobs:
        raise _refused(f"a tensor lies in {location[:80]!r}, which is no weights blob of the manifest")
    offset, length = (_number(entries[key]) for key in ("offset", "length"))
    if offset + length > blobs[location]:
        raise _refused(f"a tensor ends at {offset + length}, its blob has {blobs[location]} bytes")
    return location, (offset, offset + length)


def _check_apart(location: str, ranges: list[_Range], blob_bytes: int) -> None:
    """Two tensors share all of their range or none of it, and all together are not many times the blob."""
    for (_, end), (start, other_end) in pairwise(sorted(set(ranges))):
        if start < end:
            raise _refused(
                f"two tensors overlap in {location}: one ends at {end}, one is {start}-{other_end}"
            )
    total = sum(end - start for start, end in ranges)
    if total > TIED_MAX * blob_bytes:
        raise _refused(f"tensors of {total} bytes in all lie in {location}, which has {blob_bytes}")


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")


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
        f"{what}; publish the model again",
        source=Source.UPSTREAM,
    )
