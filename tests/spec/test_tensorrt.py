"""The whole specification of edge/worker/tensorrt.py: which models TensorRT gets, and what it is told."""

from pathlib import Path

import msgspec
import pytest

from edge.weights.manifest import TensorSpec
from edge.worker.tensorrt import batch_ranges, engine_name, settings
from tests.support import tiny

RANGES = {"x": ((1, 16), (64, 16)), "mask": ((1, 16), (64, 16))}


def model(*inputs: TensorSpec, max_batch: int = 64):
    return tiny.describe("m", [], inputs, [TensorSpec("y", "FP32", (-1, 4))], max_batch=max_batch)


MODELS = [
    ("a free batch, all else known", model(TensorSpec("x", "FP32", (-1, 16))), {"x": ((1, 16), (64, 16))}),
    ("no batch at all", model(TensorSpec("x", "FP32", (3, 16)), max_batch=0), {"x": ((3, 16), (3, 16))}),
    ("a free length", model(TensorSpec("x", "FP32", (-1, -1))), None),
    ("a free first axis that is no batch", model(TensorSpec("x", "FP32", (-1,)), max_batch=0), None),
    ("text", model(TensorSpec("x", "BYTES", (-1,))), None),
    ("one input of two is free", model(TensorSpec("x", "FP32", (-1, 2)), TensorSpec("z", "FP32", (-1, -1))), None),
    ("a task with inputs of its own", msgspec.structs.replace(model(TensorSpec("text", "BYTES", (-1,))), task="embedding"), None),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "manifest", "ranges"), MODELS, ids=[case[0] for case in MODELS])
def test_models_whose_shapes_are_known(sentence, manifest, ranges):
    assert batch_ranges(manifest) == ranges


def test_what_tensorrt_is_told():
    told = settings(1, 1 << 30, RANGES, Path("/c"), Path("/c/trt-1"))
    assert told == {
        "device_id": "1",
        "trt_max_workspace_size": "1073741824",
        "trt_profile_min_shapes": "x:1x16,mask:1x16",
        "trt_profile_opt_shapes": "x:64x16,mask:64x16",
        "trt_profile_max_shapes": "x:64x16,mask:64x16",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/c/trt-1",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": "/c",
    }
    assert not [name for name in settings(0, 1, RANGES, None, None) if "cache" in name]


def test_an_engine_fits_one_graph_one_machine_and_one_range():
    facts = ["H100", "580.65", "10.13"]
    name = engine_name(facts, "d" * 64, RANGES)
    assert name == engine_name(facts, "d" * 64, dict(reversed(RANGES.items())))
    others = [
        engine_name(["H100", "580.66", "10.13"], "d" * 64, RANGES),
        engine_name(facts, "e" * 64, RANGES),
        engine_name(facts, "d" * 64, {"x": ((1, 16), (32, 16))}),
    ]
    assert len({name, *others}) == 4
