"""Small models for tests of the worker: graphs of a few nodes, written as a store's blobs and manifest."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edge.weights import manifest
from edge.weights.manifest import BlobFile, Manifest, TensorSpec

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
ENDLESS = 1 << 62


def blob(folder: Path, role: str, name: str, content: bytes) -> BlobFile:
    """Write one blob and describe it."""
    digest = manifest.digest(content)
    path = folder / digest
    if not path.exists():
        path.write_bytes(content)
        path.chmod(0o444)
    chunks = tuple(
        manifest.digest(content[at : at + manifest.CHUNK_BYTES])
        for at in range(0, len(content), manifest.CHUNK_BYTES)
    )
    return BlobFile(role, name, len(content), digest, sha256(content).hexdigest(), chunks)  # type: ignore[arg-type]


def describe(
    name: str,
    files: Sequence[BlobFile],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    max_batch: int = 64,
) -> Manifest:
    """A manifest of the task `tensors`; `max_batch` 0 means that it has no batch axis."""
    return Manifest(
        schema=1,
        name=name,
        version="1",
        task="tensors",
        files=tuple(files),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        batch_axis=0 if max_batch else None,
        max_batch=max_batch or 1,
        device_bytes=sum(file.size_bytes for file in files),
        licence="Apache-2.0",
        source="tests",
        labels={},
    )


def graph(
    nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], tensors: Sequence[Any] = ()
) -> bytes:
    """Nodes as the bytes of an ONNX file."""
    made = helper.make_graph(list(nodes), "tiny", list(inputs), list(outputs), list(tensors))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString(deterministic=True))


def identity(folder: Path) -> Manifest:
    """`x` FP32 [-1, 16] -> `y`."""
    raw = graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 16])],
    )
    x, y = TensorSpec("x", "FP32", (-1, 16)), TensorSpec("y", "FP32", (-1, 16))
    return describe("identity", [blob(folder, "graph", "graph", raw)], [x], [y])


def picker(folder: Path) -> Manifest:
    """`x` INT64 [-1] -> `y` = 10 * x for 0 <= x < 10; the runtime refuses any other index."""
    table = numpy_helper.from_array(np.arange(0, 100, 10, dtype=np.int64), "table")
    raw = graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [helper.make_tensor_value_info("x", INT64, ["n"])],
        [helper.make_tensor_value_info("y", INT64, ["n"])],
        [table],
    )
    specs = [TensorSpec(name, "INT64", (-1,)) for name in "xy"]
    return describe("picker", [blob(folder, "graph", "graph", raw)], specs[:1], specs[1:])


def spinner(folder: Path) -> Manifest:
    """`x` INT64 [-1] -> `y` = x, after max(x) turns of a loop: how long it takes is up to the caller."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["at", "one"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("at", INT64, []),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", INT64, []),
        ],
    )
    raw = graph(
        [
            helper.make_node("ReduceMax", ["x"], ["turns"], keepdims=0),
            helper.make_node("Loop", ["turns", "", "zero"], ["spun"], body=body),
            helper.make_node("Mul", ["spun", "zero"], ["nothing"]),
            helper.make_node("Add", ["x", "nothing"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", INT64, ["n"])],
        [helper.make_tensor_value_info("y", INT64, ["n"])],
        [
            numpy_helper.from_array(np.array(0, np.int64), "zero"),
            numpy_helper.from_array(np.array(1, np.int64), "one"),
        ],
    )
    specs = [TensorSpec(name, "INT64", (-1,)) for name in "xy"]
    return describe("spinner", [blob(folder, "graph", "graph", raw)], specs[:1], specs[1:])


def deaf(folder: Path) -> Manifest:
    """`x` INT64 [1] -> `y`: one product of two x by x matrices, a kernel that nothing interrupts."""
    fill = helper.make_tensor("value", FLOAT, [1], [1.0])
    raw = graph(
        [
            helper.make_node("Concat", ["x", "x"], ["shape"], axis=0),
            helper.make_node("ConstantOfShape", ["shape"], ["left"], value=fill),
            helper.make_node("MatMul", ["left", "left"], ["product"]),
            helper.make_node("ReduceMax", ["product"], ["y"], keepdims=0),
        ],
        [helper.make_tensor_value_info("x", INT64, [1])],
        [helper.make_tensor_value_info("y", FLOAT, [])],
    )
    x, y = TensorSpec("x", "INT64", (1,)), TensorSpec("y", "FP32", ())
    return describe("deaf", [blob(folder, "graph", "graph", raw)], [x], [y], max_batch=0)


def heavy(folder: Path, *, side: int = 2048, location: str | None = None) -> Manifest:
    """`x` FP32 [-1, side] -> `y` = x @ w with a side x side w beside the graph: 16 MiB for 2048."""
    w = np.random.default_rng(5).standard_normal((side, side), dtype=np.float32)
    weights = blob(folder, "weights", "weights", w.tobytes())
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[side, side], data_location=TensorProto.EXTERNAL)
    entries = {"location": location or weights.blake3, "offset": "0", "length": str(w.nbytes)}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    raw = graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", FLOAT, ["n", side])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", side])],
        [tensor],
    )
    specs = [TensorSpec(name, "FP32", (-1, side)) for name in "xy"]
    files = [blob(folder, "graph", "graph", raw), weights]
    return describe("heavy", files, specs[:1], specs[1:], max_batch=16)
