"""Models whose weights cost time and whose answers are known: a chain of square matrices, published in a folder.

They go into the origin by the product's own publisher, as a user's would.
"""

import threading
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from onnx import TensorProto, helper

from edge.weights import manifest as mf
from edge.weights.publish import Publisher
from models import toy
from models.build import describe
from models.external import WeightsFile
from tests.support.stores import a_store

SIDE: Final = 2048
#: What a chain multiplies a vector by per layer is near 1, so that the last is neither 0 nor infinite.
_SCALE: Final = np.float32(np.sqrt(12.0 / SIDE))
#: Matrix kernels add in another order than numpy does.
TOLERANCE: Final = 1e-3


class Chain(NamedTuple):
    """One published model: what to ask it and what it must answer."""

    name: str
    manifest: mf.Manifest
    question: tuple[float, ...]
    answer: tuple[float, ...]

    @property
    def weights(self) -> mf.BlobFile:
        """The blob that all the time goes into."""
        return next(file for file in self.manifest.files if file.role == "weights")

    @property
    def graph(self) -> mf.BlobFile:
        """Some kilobytes that name the weights."""
        return next(file for file in self.manifest.files if file.role == "graph")

    def is_right(self, answer: object) -> bool:
        """Does this list of numbers answer `question`?"""
        got = np.asarray(answer, np.float32).ravel()
        return got.shape == (SIDE,) and bool(np.allclose(got, self.answer, rtol=TOLERANCE, atol=TOLERANCE))


class _Silent:
    def begins(self, what: str, total_bytes: int) -> None:
        """Nobody watches."""

    def moved(self, count_bytes: int) -> None:
        """Nobody watches."""


def made(store: Path, layers: int, seed: int) -> Chain:
    """A model of `layers` MatMuls of SIDE x SIDE, 16 MiB each, in a store of its own."""
    folder = store / "blobs"
    folder.mkdir(parents=True)
    raw = np.random.PCG64(seed)
    weights = WeightsFile(folder / "weights", lambda _: None)
    question = toy.uniform(raw, SIDE)
    at = question
    for layer in range(layers):
        matrix = toy.uniform(raw, SIDE * SIDE).reshape(SIDE, SIDE) * _SCALE
        weights.add(f"w{layer}", matrix)
        at = at @ matrix
    weights.close()
    names = ["x", *(f"h{layer}" for layer in range(layers - 1)), "y"]
    nodes = [
        helper.make_node("MatMul", [names[layer], f"w{layer}"], [names[layer + 1]]) for layer in range(layers)
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIDE]) for name in "xy")
    toy.save_model(helper.make_graph(nodes, "chain", [x], [y], weights.tensors()), folder / "graph")
    files = tuple(describe(folder / name) for name in ("graph", "weights"))
    for file in files:
        (folder / file.name).rename(folder / file.blake3)
    spec = {name: mf.TensorSpec(name, "FP32", (-1, SIDE)) for name in "xy"}
    manifest = mf.Manifest(
        schema=1,
        name=f"chain-{layers}-{seed}",
        version="1",
        task="tensors",
        files=files,
        inputs=(spec["x"],),
        outputs=(spec["y"],),
        batch_axis=0,
        max_batch=16,
        device_bytes=sum(file.size_bytes for file in files),
        licence="Apache-2.0",
        source="made by this project",
        labels={},
    )
    a_store(store, manifest)
    return Chain(manifest.name, manifest, tuple(map(float, question)), tuple(map(float, at)))


def publish(store: Path, url: str) -> None:
    """All of a store into an origin."""
    Publisher(url, stop=threading.Event(), report=_Silent()).push(store, [], None)
