"""What TensorRT is told about one graph, by the names of ONNX Runtime's documentation. Pure.

An engine takes minutes to build and fits one graph, one GPU, one driver and one TensorRT: so it lies
in a directory named by all of them, and a worker that was restarted finds it. Its kernel timings serve
other graphs as well, so they lie beside. A graph is given to TensorRT only if all its shapes are known
but the batch, whose range is told: an engine that learnt of it late would be built anew while requests
wait. Written to the documentation and never run, for want of a GPU with TensorRT: tests/gpu says what is
true where there is one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from edge.weights.manifest import Manifest, TensorSpec, digest

PROVIDER: Final = "TensorrtExecutionProvider"
#: A load with an engine to build may take so long; other loads of the worker wait behind it.
BUILD_MS: Final = 1_800_000.0

Range = tuple[tuple[int, ...], tuple[int, ...]]


def batch_ranges(manifest: Manifest) -> dict[str, Range] | None:
    """Input -> its least and its largest shape; None if TensorRT is not to have this model.

    Only of the task `tensors` are the graph's inputs those of the manifest.
    """
    if manifest.task != "tensors":
        return None
    found = {}
    for spec in manifest.inputs:
        if not _known(spec, batched=manifest.batch_axis == 0):
            return None
        found[spec.name] = _at(spec, 1), _at(spec, manifest.max_batch)
    return found


def settings(
    index: int, limit_bytes: int, ranges: Mapping[str, Range], folder: Path | None, engine: Path | None
) -> dict[str, str]:
    """The provider's options. `engine` is the graph's own directory, `folder` the device's, if any."""
    told = {
        "device_id": str(index),
        "trt_max_workspace_size": str(limit_bytes),
        "trt_profile_min_shapes": _shapes({name: least for name, (least, _) in ranges.items()}),
        "trt_profile_opt_shapes": _shapes({name: most for name, (_, most) in ranges.items()}),
        "trt_profile_max_shapes": _shapes({name: most for name, (_, most) in ranges.items()}),
    }
    if engine is not None and folder is not None:
        told |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engine),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(folder),
        }
    return told


def engine_name(facts: Sequence[str], graph: str, ranges: Mapping[str, Range]) -> str:
    """The directory of a graph's engine: another driver, GPU, version or range finds another one."""
    return "trt-" + digest("\n".join([*facts, graph, repr(sorted(ranges.items()))]).encode())


def _known(spec: TensorSpec, *, batched: bool) -> bool:
    return spec.datatype != "BYTES" and all(axis > 0 for axis in spec.shape[batched:])


def _at(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    return tuple(axis if axis > 0 else batch for axis in spec.shape)


def _shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    """As in "x:1x16,mask:1x16"."""
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
