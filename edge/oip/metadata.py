"""What a server and a model say of themselves: the JSON of every OIP route but infer.

Shapes as tritonclient 2.73 and the KServe client 0.21 read them. Sources: open-inference-
protocol `inference_rest.md`; Triton's extensions model_configuration, model_repository and
statistics. Knows no HTTP and takes no measurement: counts are given to it.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    # A proxy tells metadata and touches no tensor: numpy would be a third of what it imports.
    from edge.oip.datatypes import TensorSpecLike

PLATFORM: Final = "onnxruntime_onnx"
BACKEND: Final = "onnxruntime"
EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "statistics")

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]

_encode: Final = msgspec.json.Encoder().encode


class ModelLike(Protocol):
    """The part of a manifest that clients may see."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def version(self) -> str:
        """This manifest's version, an integer as a string."""

    @property
    def inputs(self) -> "Sequence[TensorSpecLike]":
        """What the model takes."""

    @property
    def outputs(self) -> "Sequence[TensorSpecLike]":
        """What the model gives."""

    @property
    def batch_axis(self) -> int | None:
        """The axis along which requests may be joined; None is never."""

    @property
    def max_batch(self) -> int:
        """The longest batch one request may bring."""


class Tally(msgspec.Struct, frozen=True):
    """How often something happened and how long it took altogether."""

    count: int = 0
    ns: int = 0


class ModelTallies(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one model version on this node since its start.

    `inferences` counts items (a batch of 8 is 8), `executions` counts runs of the graph.
    `last_ms` is the end of the last one, milliseconds since 1970, 0 for never.
    """

    name: str
    version: str
    last_ms: int = 0
    inferences: int = 0
    executions: int = 0
    success: Tally = Tally()
    fail: Tally = Tally()
    queue: Tally = Tally()
    infer: Tally = Tally()


def error(message: str) -> bytes:
    """The body of every answer that is not a success."""
    return _encode({"error": message})


def live(is_live: bool) -> bytes:
    """`GET /v2/health/live`; the KServe client reads the field, tritonclient the status."""
    return _encode({"live": is_live})


def ready(is_ready: bool, *, model: str | None = None) -> bytes:
    """`GET /v2/health/ready`, and with a name `GET /v2/models/{model}/ready`."""
    return _encode({"ready": is_ready} if model is None else {"name": model, "ready": is_ready})


def server_metadata(name: str, version: str) -> bytes:
    """`GET /v2`."""
    return _encode({"name": name, "version": version, "extensions": EXTENSIONS})


def model_metadata(model: ModelLike, *, versions: Sequence[str] | None = None) -> bytes:
    """`GET /v2/models/{model}`; `versions` are all that are served, by default this one."""
    return _encode(
        {
            "name": model.name,
            "versions": versions if versions is not None else [model.version],
            "platform": PLATFORM,
            "inputs": [_tensor(spec) for spec in model.inputs],
            "outputs": [_tensor(spec) for spec in model.outputs],
        }
    )


def _tensor(spec: "TensorSpecLike") -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def model_config(model: ModelLike) -> bytes:
    """`GET /v2/models/{model}/config`, as Triton's model configuration.

    There a `max_batch_size` above 0 means that axis 0 is the batch and `dims` leave it out;
    0 means no batching and whole shapes.
    """
    batched = model.batch_axis == 0
    config: dict[str, Any] = {
        "name": model.name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": {"specific": {"versions": [int(model.version)]}},
        "max_batch_size": model.max_batch if batched else 0,
        "input": [_config_tensor(spec, batched) for spec in model.inputs],
        "output": [_config_tensor(spec, batched) for spec in model.outputs],
    }
    if batched:
        config["dynamic_batching"] = {}
    return _encode(config)


def _config_tensor(spec: "TensorSpecLike", batched: bool) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}",
        "dims": spec.shape[1:] if batched else spec.shape,
    }


def repository_index(models: Iterable[tuple[str, str, State, str]]) -> bytes:
    """`POST /v2/repository/index`: (name, version, state, reason); the reason is "" when READY."""
    return _encode(
        [
            {"name": name, "version": version, "state": state, "reason": reason}
            for name, version, state, reason in models
        ]
    )


def model_stats(tallies: Iterable[ModelTallies]) -> bytes:
    """`GET /v2/models/{model}/stats` and `/v2/models/stats`.

    Input and output copies are part of `compute_infer` here, and there is no response cache,
    so those entries are zero.
    """
    none = Tally()
    return _encode(
        {
            "model_stats": [
                {
                    "name": one.name,
                    "version": one.version,
                    "last_inference": one.last_ms,
                    "inference_count": one.inferences,
                    "execution_count": one.executions,
                    "inference_stats": {
                        "success": one.success,
                        "fail": one.fail,
                        "queue": one.queue,
                        "compute_input": none,
                        "compute_infer": one.infer,
                        "compute_output": none,
                        "cache_hit": none,
                        "cache_miss": none,
                    },
                    "batch_stats": [],
                }
                for one in tallies
            ]
        }
    )
