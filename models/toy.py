"""Models that need no download: `identity`, `mlp`, and `ballast` of any size.

They are made of nothing but a seed, so the same version has the same digests everywhere.
Random bytes come from a bit generator's raw output, which numpy keeps stable over its
versions; its distributions it does not.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from models.catalog import Entry
from models.errors import CatalogError
from models.external import Progress, WeightsFile

OPSET: Final = 17
IR_VERSION: Final = 8
BALLAST_WIDTH: Final = 64
_PART_BYTES: Final = 8 * 1024 * 1024
_IDENTITY_WIDTH: Final = 16
_MLP_WIDTHS: Final = (256, 256, 10)


def identity(_entry: Entry, _sources: dict[str, Path], folder: Path, _progress: Progress) -> None:
    """`x` FP32 [-1, 16] -> `y`, the same numbers: what a request costs without a model."""
    node = helper.make_node("Identity", ["x"], ["y"])
    _save(folder, [node], _IDENTITY_WIDTH, _IDENTITY_WIDTH, [])


def mlp(_entry: Entry, _sources: dict[str, Path], folder: Path, _progress: Progress) -> None:
    """`x` FP32 [-1, 256] -> `y` FP32 [-1, 10]: two layers of seeded weights inside the graph."""
    wide, hidden, narrow = _MLP_WIDTHS
    raw = np.random.PCG64(7)
    arrays = {
        "w1": uniform(raw, wide * hidden).reshape(wide, hidden) / np.float32(np.sqrt(wide)),
        "b1": uniform(raw, hidden),
        "w2": uniform(raw, hidden * narrow).reshape(hidden, narrow) / np.float32(np.sqrt(hidden)),
        "b2": uniform(raw, narrow),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    _save(folder, nodes, wide, narrow, initializers)


def ballast(entry: Entry, _sources: dict[str, Path], folder: Path, progress: Progress) -> None:
    """`x` FP32 [-1, 64] -> `y = x + w[floor(|sum x|) mod rows]`: any weight, hardly any work.

    Which row is added depends on the input, so no runtime can fold the weights away.
    """
    if entry.size_bytes is None:
        raise CatalogError(
            "builder ballast needs size_bytes: an integer of at least 4096, for example 67108864"
        )
    rows = entry.size_bytes // (BALLAST_WIDTH * 4)
    weights = WeightsFile(folder / "weights", progress)
    shape = [rows, BALLAST_WIDTH]
    weights.stream("w", np.dtype(np.float32), shape, _random_parts(rows * BALLAST_WIDTH * 4))
    weights.close()
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=0),
        helper.make_node("Abs", ["sum"], ["abs"]),
        # Far below 2^63, so that the cast is defined for every finite input.
        helper.make_node("Clip", ["abs", "zero", "cap"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Mod", ["whole", "rows"], ["row"]),
        helper.make_node("Gather", ["w", "row"], ["picked"], axis=0),
        helper.make_node("Add", ["x", "picked"], ["y"]),
    ]
    initializers = [
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
        numpy_helper.from_array(np.array(1e12, np.float32), "cap"),
        numpy_helper.from_array(np.array(rows, np.int64), "rows"),
        *weights.tensors(),
    ]
    _save(folder, nodes, BALLAST_WIDTH, BALLAST_WIDTH, initializers)


def uniform(raw: np.random.PCG64, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """`count` floats in [-0.5, 0.5) from the generator's raw bits: 23 of them become the mantissa."""
    bits = raw.random_raw((count + 1) // 2).view(np.uint32)[:count]
    return ((bits >> np.uint32(9)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1.5)


def _random_parts(size_bytes: int) -> Iterator[bytes]:
    raw = np.random.PCG64(11)
    for start in range(0, size_bytes, _PART_BYTES):
        yield uniform(raw, min(_PART_BYTES, size_bytes - start) // 4).tobytes()


def _save(folder: Path, nodes: list[Any], wide: int, narrow: int, initializers: list[TensorProto]) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", wide])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", narrow])
    save_model(helper.make_graph(nodes, "toy", [x], [y], initializers), folder / "graph")


def save_model(graph: Any, path: Path, opsets: dict[str, int] | None = None) -> None:
    """Write a graph so that equal graphs are equal bytes."""
    imports = [helper.make_opsetid(domain, version) for domain, version in (opsets or {"": OPSET}).items()]
    model: ModelProto = helper.make_model(
        graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="edgepop"
    )
    path.write_bytes(model.SerializeToString(deterministic=True))
