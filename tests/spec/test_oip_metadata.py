"""What a server and a model say of themselves."""

import json
from typing import Any, NamedTuple

import pytest

from edge.oip import metadata


class Spec(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]


class Model(NamedTuple):
    name: str = "magika"
    version: str = "3"
    inputs: tuple[Spec, ...] = (Spec("content", "BYTES", (-1,)),)
    outputs: tuple[Spec, ...] = (Spec("label", "BYTES", (-1,)), Spec("score", "FP32", (-1,)))
    batch_axis: int | None = 0
    max_batch: int = 32


MATRIX = Model(
    "mlp", "1", (Spec("x", "FP32", (-1, 256)),), (Spec("y", "INT64", (-1, 10)),), batch_axis=None, max_batch=1
)
NOTHING = {"count": 0, "ns": 0}


@pytest.mark.parametrize(
    ("sentence", "body", "wanted"),
    [
        ("alive", metadata.live(True), {"live": True}),
        ("not ready", metadata.ready(False), {"ready": False}),
        ("a model is ready", metadata.ready(True, model="m"), {"name": "m", "ready": True}),
        ("an error", metadata.error('no "m"'), {"error": 'no "m"'}),
        (
            "a server",
            metadata.server_metadata("edgepop", "0.1.0"),
            {
                "name": "edgepop",
                "version": "0.1.0",
                "extensions": ["binary_tensor_data", "model_configuration", "statistics"],
            },
        ),
        (
            "a model",
            metadata.model_metadata(Model()),
            {
                "name": "magika",
                "versions": ["3"],
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": "content", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [
                    {"name": "label", "datatype": "BYTES", "shape": [-1]},
                    {"name": "score", "datatype": "FP32", "shape": [-1]},
                ],
            },
        ),
        (
            "the configuration of a model that batches leaves the batch out of dims",
            metadata.model_config(Model()),
            {
                "name": "magika",
                "platform": "onnxruntime_onnx",
                "backend": "onnxruntime",
                "version_policy": {"specific": {"versions": [3]}},
                "max_batch_size": 32,
                "input": [{"name": "content", "data_type": "TYPE_STRING", "dims": []}],
                "output": [
                    {"name": "label", "data_type": "TYPE_STRING", "dims": []},
                    {"name": "score", "data_type": "TYPE_FP32", "dims": []},
                ],
                "dynamic_batching": {},
            },
        ),
        (
            "one that does not batch has whole shapes",
            metadata.model_config(MATRIX),
            {
                "name": "mlp",
                "platform": "onnxruntime_onnx",
                "backend": "onnxruntime",
                "version_policy": {"specific": {"versions": [1]}},
                "max_batch_size": 0,
                "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 256]}],
                "output": [{"name": "y", "data_type": "TYPE_INT64", "dims": [-1, 10]}],
            },
        ),
        (
            "an index",
            metadata.repository_index([("a", "1", "READY", ""), ("b", "2", "UNAVAILABLE", "origin-down")]),
            [
                {"name": "a", "version": "1", "state": "READY", "reason": ""},
                {"name": "b", "version": "2", "state": "UNAVAILABLE", "reason": "origin-down"},
            ],
        ),
        ("no stats", metadata.model_stats([]), {"model_stats": []}),
    ],
)
def test_documents(sentence: str, body: bytes, wanted: Any) -> None:
    assert json.loads(body) == wanted, sentence


def test_all_served_versions_can_be_named() -> None:
    assert json.loads(metadata.model_metadata(Model(), versions=["3", "2"]))["versions"] == ["3", "2"]


def test_stats() -> None:
    tallies = metadata.ModelTallies(
        name="m",
        version="1",
        last_ms=5,
        inferences=8,
        executions=2,
        success=metadata.Tally(2, 300),
        fail=metadata.Tally(1, 10),
        queue=metadata.Tally(2, 30),
        infer=metadata.Tally(2, 200),
    )
    (stats,) = json.loads(metadata.model_stats([tallies]))["model_stats"]
    assert stats["inference_stats"] == {
        "success": {"count": 2, "ns": 300},
        "fail": {"count": 1, "ns": 10},
        "queue": {"count": 2, "ns": 30},
        "compute_input": NOTHING,
        "compute_infer": {"count": 2, "ns": 200},
        "compute_output": NOTHING,
        "cache_hit": NOTHING,
        "cache_miss": NOTHING,
    }
    assert [stats[k] for k in ("inference_count", "execution_count", "last_inference")] == [8, 2, 5]
