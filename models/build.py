"""Sources -> the files of a model -> its manifest. One table of builders.

A builder writes files into a folder: `weights*` hold weights, the task's graphs and aux
files have the names that edge/weights/manifest.py demands. Knows no store and no network.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import onnx
from blake3 import blake3
from onnx import TensorProto

from edge.weights import manifest as mf
from models import magika, minilm, toy
from models.catalog import Entry
from models.errors import CatalogError, GraphError
from models.external import Progress, check_graph, move_out, parse_graph

MIB: Final = 1024 * 1024
MOVE_OUT_BYTES: Final = 1 * MIB

_OIP: Final[dict[int, str]] = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
}


def onnx_file(_entry: Entry, sources: dict[str, Path], folder: Path, progress: Progress) -> None:
    """A ready-made ONNX file from a package; weights above 1 MiB become a blob of their own."""
    if len(sources) != 1:
        raise CatalogError(f"builder onnx-file needs exactly one file, the catalogue names {len(sources)}")
    (path,) = sources.values()
    raw = path.read_bytes()
    model = parse_graph(raw)
    if len(raw) > MOVE_OUT_BYTES:
        move_out(model, folder / "weights", progress)
    (folder / "graph").write_bytes(model.SerializeToString(deterministic=True))


class Builder(NamedTuple):
    """How one kind of model is made, and what clients see of it.

    `inputs` and `outputs` are None where the graph's own are served. `working_bytes` is
    what its sessions need beside their files when `max_batch` items run.
    """

    make: Callable[[Entry, dict[str, Path], Path, Progress], None]
    task: mf.Task = "tensors"
    inputs: tuple[mf.TensorSpec, ...] | None = None
    outputs: tuple[mf.TensorSpec, ...] | None = None
    custom_ops: tuple[str, ...] = ()
    working_bytes: int = 16 * MIB


BUILDERS: Final = {
    "identity": Builder(toy.identity),
    "mlp": Builder(toy.mlp),
    "ballast": Builder(toy.ballast),
    "onnx-file": Builder(onnx_file),
    "minilm": Builder(
        minilm.build,
        "embedding",
        (mf.TensorSpec("text", "BYTES", (-1,)),),
        (mf.TensorSpec("embedding", "FP32", (-1, minilm.HIDDEN)),),
        ("onnxruntime-extensions",),
        # 32 texts of 256 tokens on the CPU grew anonymous memory by 330 MB.
        384 * MIB,
    ),
    "magika": Builder(
        magika.build,
        "bytes-classification",
        (mf.TensorSpec("content", "BYTES", (-1,)),),
        (mf.TensorSpec("label", "BYTES", (-1,)), mf.TensorSpec("score", "FP32", (-1,))),
        working_bytes=64 * MIB,  # 8 contents: 30 MB
    ),
}


def build(name: str, entry: Entry, sources: dict[str, Path], folder: Path, progress: Progress) -> mf.Manifest:
    """Make the files of one model in `folder` (which is empty) and describe them.

    Every graph has passed `check_graph`. Raises CatalogError or GraphError.
    """
    builder = BUILDERS[entry.builder]
    builder.make(entry, sources, folder, progress)
    files = tuple(describe(path) for path in sorted(folder.iterdir()))
    weights = {file.blake3: file.size_bytes for file in files if file.role == "weights"}
    for file in files:
        if file.role == "graph":
            check_graph((folder / file.name).read_bytes(), weights, builder.custom_ops)
    inputs, outputs = builder.inputs, builder.outputs
    if inputs is None or outputs is None:
        inputs, outputs = _tensors_of(folder / "graph")
    return mf.Manifest(
        schema=1,
        name=name,
        version=entry.version,
        task=builder.task,
        files=files,
        inputs=inputs,
        outputs=outputs,
        batch_axis=0 if entry.max_batch > 1 else None,
        max_batch=entry.max_batch,
        device_bytes=sum(file.size_bytes for file in files) + builder.working_bytes,
        licence=entry.licence,
        source=entry.package or "made by this project",
        labels=entry.labels | {"device_bytes": f"files and {builder.working_bytes // MIB} MiB to work in"},
        custom_ops=builder.custom_ops,
    )


def describe(path: Path) -> mf.BlobFile:
    """Hash one file: BLAKE3 of the whole and of each chunk, SHA-256 of the whole."""
    whole, sha256, chunks, size_bytes = blake3(), hashlib.sha256(), [], 0
    with path.open("rb") as file:
        while chunk := file.read(mf.CHUNK_BYTES):
            whole.update(chunk)
            sha256.update(chunk)
            chunks.append(mf.digest(chunk))
            size_bytes += len(chunk)
    role: mf.Role = "aux"
    if path.name.startswith("weights"):
        role = "weights"
    elif path.name in ("graph", "encoder", "tokenizer"):
        role = "graph"
    return mf.BlobFile(
        role=role,
        name=path.name,
        size_bytes=size_bytes,
        blake3=str(whole.hexdigest()),
        sha256=sha256.hexdigest(),
        chunks=tuple(chunks),
    )


def _tensors_of(path: Path) -> tuple[tuple[mf.TensorSpec, ...], tuple[mf.TensorSpec, ...]]:
    model = parse_graph(path.read_bytes())
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    return tuple(_spec(value) for value in inputs), tuple(_spec(value) for value in model.graph.output)


def _spec(value: onnx.ValueInfoProto) -> mf.TensorSpec:
    tensor = value.type.tensor_type
    if tensor.elem_type not in _OIP:
        raise GraphError(f"tensor {value.name!r} has a type that the Open Inference Protocol lacks")
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return mf.TensorSpec(value.name, _OIP[tensor.elem_type], shape)
