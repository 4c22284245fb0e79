"""Weights beside the graph: the file of page-aligned tensors, and the gate for graphs that use one.

A graph's external data names the *digest* of its weights blob as location, so that a
folder of blobs is all that a runtime needs. ONNX Runtime checks no content and onnx
trusts what it reads; so `check_graph` is the gate that a graph passes before it is
published. Knows nothing of where graphs come from or where blobs go.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from blake3 import blake3
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types
from onnx import ModelProto, TensorProto, helper, numpy_helper

from models.errors import GraphError

PAGE_BYTES: Final = 4096
INLINE_MAX_BYTES: Final = 1024
GRAPH_MAX_BYTES: Final = 64 * 1024 * 1024
DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
EXTENSION_DOMAINS: Final = {"ai.onnx.contrib": "onnxruntime-extensions"}
_ITEM_BYTES: Final = {
    TensorProto.DataType.Value(name): bits // 8
    for bits, names in {
        8: ("BOOL", "UINT8", "INT8"),
        16: ("FLOAT16", "BFLOAT16", "UINT16", "INT16"),
        32: ("FLOAT", "UINT32", "INT32"),
        64: ("DOUBLE", "UINT64", "INT64"),
    }.items()
    for name in names
}
_EXTERNAL_KEYS: Final = frozenset({"location", "offset", "length"})

Progress = Callable[[int], None]
"""Called with the number of bytes just done."""


class WeightsFile:
    """A blob of tensors in the making, each at a multiple of 4096 bytes.

    `stream` writes part by part, so weights of any size need no memory of that size.
    After `close`, `digest` names the blob and `tensors()` refer to it.
    """

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path = path
        self.digest = ""
        self._file = path.open("xb")
        self._hash = blake3()
        self._at = 0
        self._progress = progress
        self._placed: list[tuple[str, int, list[int], int, int]] = []

    def add(self, name: str, array: np.ndarray[Any, Any]) -> None:
        """Append one array, little-endian, in C order."""
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        self.stream(name, array.dtype, list(array.shape), [plain.tobytes()])

    def stream(self, name: str, dtype: np.dtype[Any], shape: list[int], parts: Iterable[bytes]) -> None:
        """Append one tensor whose bytes come in parts; they must add up to its shape."""
        self._write(bytes(-self._at % PAGE_BYTES))
        offset = self._at
        for part in parts:
            self._write(part)
        length = self._at - offset
        if length != math.prod(shape) * dtype.itemsize:
            raise GraphError(f"tensor {name}: {length} bytes do not make shape {shape} of {dtype}")
        self._placed.append((name, helper.np_dtype_to_tensor_dtype(dtype), shape, offset, length))

    def close(self) -> None:
        """No more tensors; the digest is known."""
        self._file.close()
        self.digest = str(self._hash.hexdigest())

    def tensors(self) -> list[TensorProto]:
        """The initializers that point into this file, in the order they were added."""
        return [_external(*placed, location=self.digest) for placed in self._placed]

    def _write(self, part: bytes) -> None:
        self._file.write(part)
        self._hash.update(part)
        self._at += len(part)
        self._progress(len(part))


def _external(
    name: str, dtype: int, shape: list[int], offset: int, length: int, *, location: str
) -> TensorProto:
    tensor = TensorProto(name=name, data_type=dtype, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def parse_graph(raw: bytes) -> ModelProto:
    """Bytes -> model, without following external data. Raises GraphError."""
    try:
        model: ModelProto = onnx.load_model_from_string(raw)
    except DecodeError as error:
        raise GraphError(f"not an ONNX graph: {error}") from error
    if not model.graph.node:
        raise GraphError("not an ONNX graph: it has no node")
    return model


def move_out(model: ModelProto, path: Path, progress: Progress) -> bool:
    """Move the float tensors of `model` above 1 KiB into a weights file at `path`.

    Shapes, axes and other integers stay in the graph, where ONNX Runtime folds them.
    False, and no file, if nothing is worth moving.
    """
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    arrays = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type in floats and tensor.data_location != TensorProto.EXTERNAL
    }
    arrays = {name: array for name, array in arrays.items() if array.nbytes > INLINE_MAX_BYTES}
    if not arrays:
        return False
    weights = WeightsFile(path, progress)
    for name, array in arrays.items():
        weights.add(name, array)
    weights.close()
    moved = {tensor.name: tensor for tensor in weights.tensors()}
    for tensor in model.graph.initializer:
        if tensor.name in moved:
            tensor.CopyFrom(moved[tensor.name])
    return True


def check_graph(raw: bytes, weights: Mapping[str, int], custom_ops: Iterable[str]) -> None:
    """May these bytes be published as a graph beside these weights (digest -> size in bytes)?

    Raises GraphError: not ONNX, too large, external data that is not a range of one of
    the weights files, an unknown external key, or an operator domain that is not allowed.
    """
    if len(raw) > GRAPH_MAX_BYTES:
        raise GraphError(f"graph of {len(raw)} bytes; at most {GRAPH_MAX_BYTES}, move its weights out")
    model = parse_graph(raw)
    allowed = DOMAINS | {domain for domain, library in EXTENSION_DOMAINS.items() if library in custom_ops}
    own = {function.domain for function in model.functions}
    for domain in {opset.domain for opset in model.opset_import} - own:
        if domain not in allowed:
            raise GraphError(f"operator domain {domain!r} is not allowed; known are {sorted(allowed)}")
    for message in _walk(model):
        if isinstance(message, onnx.NodeProto) and message.domain not in allowed | own:
            raise GraphError(f"node {message.name!r} uses operator domain {message.domain!r}")
        if isinstance(message, TensorProto):
            _check_tensor(message, weights)


def _walk(message: Any) -> Iterator[Any]:
    """`message` and every message inside it: subgraphs, functions, attributes, sparse tensors."""
    stack = [message]
    while stack:
        at = stack.pop()
        yield at
        for field, value in at.ListFields():
            if field.message_type is not None:
                stack.extend([value] if hasattr(value, "ListFields") else value)


def _check_tensor(tensor: TensorProto, weights: Mapping[str, int]) -> None:
    if tensor.data_location != TensorProto.EXTERNAL:
        if tensor.external_data:
            raise GraphError(f"tensor {tensor.name!r} has external data but says that it has none")
        return
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if set(entries) != _EXTERNAL_KEYS or len(tensor.external_data) != len(entries):
        raise GraphError(
            f"tensor {tensor.name!r} has external keys {sorted(e.key for e in tensor.external_data)}; "
            f"exactly {sorted(_EXTERNAL_KEYS)} are allowed"
        )
    location = entries["location"]
    if location not in weights:
        raise GraphError(
            f"tensor {tensor.name!r} lies in {location[:80]!r}, which is no weights file's digest"
        )
    if not all(entries[key].isdecimal() and len(entries[key]) < 20 for key in ("offset", "length")):
        raise GraphError(f"tensor {tensor.name!r} has offset or length that is no number")
    offset, length = int(entries["offset"]), int(entries["length"])
    if offset % PAGE_BYTES or offset + length > weights[location]:
        raise GraphError(
            f"tensor {tensor.name!r} lies at {offset}, {length} bytes long; that must begin at a multiple of "
            f"{PAGE_BYTES} and end within the file's {weights[location]} bytes"
        )
    if tensor.data_type not in _ITEM_BYTES:
        raise GraphError(f"tensor {tensor.name!r} has data type {tensor.data_type}, which can't lie outside")
    if (
        any(dim < 0 for dim in tensor.dims)
        or length != math.prod(tensor.dims) * _ITEM_BYTES[tensor.data_type]
    ):
        raise GraphError(
            f"tensor {tensor.name!r} has {length} bytes, its shape {list(tensor.dims)} needs others"
        )
