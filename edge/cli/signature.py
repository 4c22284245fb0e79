"""What a model of a repository takes and gives: its config.pbtxt, as far as its graph agrees.

Pure: a parsed config and a loaded graph in, tensors out. What Triton would refuse at load is refused here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edge.cli.pbtxt import ModelConfig
from edge.errors import EdgeError, Reason, Source
from edge.weights import manifest as mf

_TYPES: Final = {
    "FLOAT": "FP32", "DOUBLE": "FP64", "FLOAT16": "FP16", "STRING": "BYTES", "BOOL": "BOOL",
    **{f"{sign}INT{bits}": f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}  # fmt: skip


class Signature:
    """Inputs and outputs of one version; `where` and `path` are named where they disagree."""

    def __init__(self, config: ModelConfig, where: Path, path: Path) -> None:
        self._config = config
        self._where = where
        self._path = path

    def of(self, model: Any) -> tuple[tuple[mf.TensorSpec, ...], tuple[mf.TensorSpec, ...]]:
        """What config.pbtxt says, as far as the graph agrees; without it what the graph says."""
        constants = {tensor.name for tensor in model.graph.initializer}
        inputs = {value.name: value for value in model.graph.input if value.name not in constants}
        if not inputs:
            raise _wrong(self._path, "its graph has no input; a model without one can't be asked anything")
        outputs = {value.name: value for value in model.graph.output}
        config = self._config
        return self._side("input", config.inputs, inputs), self._side("output", config.outputs, outputs)

    def _side(
        self, side: str, wanted: tuple[Any, ...], graph: Mapping[str, Any]
    ) -> tuple[mf.TensorSpec, ...]:
        where = self._where
        front = (-1,) if self._config.max_batch_size else ()
        if not wanted:
            for value in graph.values():
                self._check_batch(side, value)
            return tuple(self._of_graph(value) for value in graph.values())
        for tensor in wanted:
            if tensor.name not in graph:
                raise _wrong(where, f"{side} {tensor.name!r}: {self._path} has {', '.join(graph) or 'none'}")
            has = self._of_graph(graph[tensor.name])
            if has.datatype != tensor.datatype:
                raise _wrong(
                    where, f"{side} {tensor.name!r} is {tensor.datatype}, {self._path} has {has.datatype}"
                )
            self._check_batch(side, graph[tensor.name])
            if _ranked(graph[tensor.name]) and not _fits((*front, *tensor.dims), has.shape):
                dims = list(has.shape[len(front) :])
                raise _wrong(
                    where, f"{side} {tensor.name!r} has dims {list(tensor.dims)}, {self._path} has {dims}"
                )
        if side == "input" and (rest := graph.keys() - {tensor.name for tensor in wanted}):
            raise _wrong(where, f"input {min(rest)!r} of {self._path} is missing")
        return tuple(mf.TensorSpec(one.name, one.datatype, (*front, *one.dims)) for one in wanted)

    def _check_batch(self, side: str, value: Any) -> None:
        """With max_batch_size the first axis is the batch, and as long as it comes."""
        shape = self._of_graph(value).shape
        if self._config.max_batch_size and _ranked(value) and shape[:1] != (-1,):
            raise _wrong(
                self._where,
                f"max_batch_size is {self._config.max_batch_size}, but {side} {value.name!r} of {self._path} "
                f"has shape {list(shape)}: export it with a first axis of any length, or leave it 0",
            )

    def _of_graph(self, value: Any) -> mf.TensorSpec:
        import onnx

        tensor, types = value.type.tensor_type, onnx.TensorProto.DataType
        known = types.Name(tensor.elem_type) if tensor.elem_type in types.values() else str(tensor.elem_type)
        if known not in _TYPES:
            raise _wrong(self._path, f"tensor {value.name!r} is {known}, which can't be sent")
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
        return mf.TensorSpec(value.name, _TYPES[known], shape)


def _ranked(value: Any) -> bool:
    """Does the graph say how many axes this has?"""
    return bool(value.type.tensor_type.HasField("shape"))


def _fits(shape: tuple[int, ...], graph: tuple[int, ...]) -> bool:
    """May this be said of a tensor whose axes the graph fixes so? -1 in the graph is any length."""
    return len(shape) == len(graph) and all(has in (-1, says) for says, has in zip(shape, graph, strict=True))


def _wrong(path: Path, what: str) -> EdgeError:
    return EdgeError(Reason.BAD_REQUEST, f"{path}: {what}", source=Source.DOWNSTREAM)
