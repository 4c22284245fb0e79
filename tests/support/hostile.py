"""Graphs and blobs that mean harm: small ones that ask for more than there is, and files that are no files."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edge.weights import manifest as mf
from tests.support import tiny

SIDE = 1024


def with_graph(folder: Path, change: Callable[[ModelProto], None], name: str = "hostile") -> mf.Manifest:
    """`tiny.heavy` after `change`, its weights untouched."""
    honest = tiny.heavy(folder, side=SIDE)
    graph, weights = honest.files
    model = ModelProto.FromString((folder / graph.blake3).read_bytes())
    change(model)
    changed = tiny.blob(folder, "graph", "graph", model.SerializeToString(deterministic=True))
    return tiny.describe(name, [changed, weights], honest.inputs, honest.outputs)


def external(**entries: str) -> Callable[[ModelProto], None]:
    """The tensor's entries, changed or added."""

    def change(model: ModelProto) -> None:
        tensor = model.graph.initializer[0]
        kept = {entry.key: entry.value for entry in tensor.external_data} | entries
        del tensor.external_data[:]
        for key, value in kept.items():
            tensor.external_data.add(key=key, value=value)

    return change


def overlapping(model: ModelProto) -> None:
    """A second tensor that begins in the middle of the first."""
    tensor = model.graph.initializer.add()
    tensor.CopyFrom(model.graph.initializer[0])
    tensor.name, tensor.dims[0] = "v", SIDE // 2
    tensor.external_data[1].value = str(SIDE * SIDE)
    tensor.external_data[2].value = str(SIDE * SIDE * 2)


def operator_of(domain: str, op: str = "Neg") -> Callable[[ModelProto], None]:
    """The product goes through an operator of `domain`."""

    def change(model: ModelProto) -> None:
        model.graph.node[0].output[0] = "product"
        model.graph.node.append(helper.make_node(op, ["product"], ["y"], domain=domain))
        if all(opset.domain != domain for opset in model.opset_import):
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


# --- blobs


def linked(path: Path) -> None:
    os.link(path, path.with_name("second-name"))


def symlinked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.unlink()
    try:
        os.mknod(path, stat.S_IFCHR | 0o444, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("making a device file takes root")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def truncated(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size - 1)


# --- graphs that are never done


def _constant(name: str, value: Any) -> TensorProto:
    return numpy_helper.from_array(np.array(value, np.int64), name)


def _filled(output: str, side: int) -> list[Any]:
    """side x side ones from a shape of two numbers."""
    one = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    return [helper.make_node("ConstantOfShape", [f"shape-{side}"], [output], value=one)]


def giant(folder: Path, side: int) -> mf.Manifest:
    """`x` FP32 [-1] -> `y`: adds up side x side ones that lie nowhere yet, on every run."""
    raw = tiny.graph(
        [
            *_filled("ones", side),
            helper.make_node("ReduceSum", ["ones"], ["sum"], keepdims=0),
            helper.make_node("Add", ["x", "sum"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [_constant(f"shape-{side}", [side, side])],
    )
    return _described(folder, "giant", raw)


def folded(folder: Path, side: int) -> mf.Manifest:
    """`x` FP32 [-1] -> `y`: a product of constants, which the runtime computes while it loads."""
    raw = tiny.graph(
        [
            *_filled("ones", side),
            helper.make_node("MatMul", ["ones", "ones"], ["product"]),
            helper.make_node("ReduceMax", ["product"], ["most"], keepdims=0),
            helper.make_node("Add", ["x", "most"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [_constant(f"shape-{side}", [side, side])],
    )
    return _described(folder, "folded", raw)


def endless(folder: Path) -> mf.Manifest:
    """`x` FP32 [-1] -> `y` = x after a loop of 2^62 turns, whatever is sent."""
    number = TensorProto.INT64
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["at", "one"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", number, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("at", number, []),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", number, []),
        ],
    )
    raw = tiny.graph(
        [
            helper.make_node("Loop", ["turns", "", "one"], ["spun"], body=body),
            helper.make_node("Cast", ["spun"], ["floated"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["x", "floated"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [_constant("turns", tiny.ENDLESS), _constant("one", 1)],
    )
    return _described(folder, "endless", raw)


def _described(folder: Path, name: str, raw: bytes) -> mf.Manifest:
    specs = [mf.TensorSpec(tensor, "FP32", (-1,)) for tensor in "xy"]
    return tiny.describe(name, [tiny.blob(folder, "graph", "graph", raw)], specs[:1], specs[1:])
