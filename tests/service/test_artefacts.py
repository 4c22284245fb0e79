"""Optimised graphs, kept by a real ONNX Runtime: found by the next load, bounded, and refused when they are not sound."""

import os
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper

from edge.config import Worker
from edge.errors import EdgeError
from edge.weights import manifest as mf
from edge.worker import tasks
from edge.worker.artefacts import Artefacts, captured, make_folder
from edge.worker.engine import Device, Model
from tests.support import hostile, tiny

SIDE = 1200  # 5.8 MB: more than what is prepacked at once


@pytest.fixture
def cache(tmp_path) -> Path:
    made = tmp_path / "cache"
    made.mkdir()
    return made


def load(folder: Path, manifest: mf.Manifest, cache: Path) -> Model:
    return Model(Device(Worker(), folder, cache), manifest, tasks.signatures(manifest))


def answer(model: Model) -> np.ndarray:
    x = np.random.default_rng(6).standard_normal((3, SIDE), dtype=np.float32)
    return model.begin().call("graph", {"x": x})[0]


def kept(folder: Path, cache: Path, manifest: mf.Manifest) -> np.ndarray:
    """Load, prepack and leave the kept graph behind; what the model answers."""
    model = load(folder, manifest, cache)
    assert not list(cache.iterdir()), "the first load has nothing to spare for it"
    before = answer(model)
    model.prepack()
    np.testing.assert_allclose(answer(model), before, rtol=1e-3, atol=1e-3)
    return before


def test_the_next_load_needs_no_published_graph(tmp_path, cache):
    manifest = tiny.heavy(tmp_path, side=SIDE)
    before = kept(tmp_path, cache, manifest)
    (tmp_path / manifest.file("graph").blake3).unlink()
    again = load(tmp_path, manifest, cache)
    np.testing.assert_allclose(answer(again), before, rtol=1e-3, atol=1e-3)
    again.prepack()
    np.testing.assert_allclose(answer(again), before, rtol=1e-3, atol=1e-3)


def spoiled(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:70])


def reaching_out(path: Path) -> None:
    """As a worker could leave it that somebody else had taken over: the digest is right."""
    model = ModelProto.FromString(path.read_bytes()[64:])
    hostile.external(location="../elsewhere")(model)
    raw = model.SerializeToString()
    path.write_bytes(mf.digest(raw).encode() + raw)


def no_graph(path: Path) -> None:
    path.write_bytes(mf.digest(b"\n").encode() + b"\n")


@pytest.mark.parametrize("spoil", [spoiled, cut, reaching_out, no_graph])
def test_a_kept_graph_that_is_not_sound_is_dropped_and_the_published_one_loads(tmp_path, cache, spoil):
    manifest = tiny.heavy(tmp_path, side=SIDE)
    before = kept(tmp_path, cache, manifest)
    (path,) = cache.iterdir()
    spoil(path)
    np.testing.assert_allclose(answer(load(tmp_path, manifest, cache)), before, rtol=1e-3, atol=1e-3)
    assert not path.exists()


def test_a_kept_graph_that_lost_its_weights_says_so(tmp_path, cache):
    manifest = tiny.heavy(tmp_path, side=SIDE)
    kept(tmp_path, cache, manifest)
    (tmp_path / manifest.file("weights").blake3).unlink()
    with pytest.raises(EdgeError, match="No such file or directory"):
        load(tmp_path, manifest, cache)


def swollen(folder: Path) -> mf.Manifest:
    """`tiny.heavy` with a constant of 4 MB that lies nowhere until the runtime has folded it."""

    def change(model: ModelProto) -> None:
        one = helper.make_tensor("value", tiny.FLOAT, [1], [1.0])
        model.graph.initializer.append(helper.make_tensor("shape", tiny.INT64, [2], [SIDE, SIDE]))
        model.graph.node[0].output[0] = "product"
        model.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=one))
        model.graph.node.append(helper.make_node("Add", ["ones", "ones"], ["twos"]))
        model.graph.node.append(helper.make_node("MatMul", ["product", "twos"], ["y"]))

    honest = tiny.heavy(folder, side=SIDE)
    graph, weights = honest.files
    model = ModelProto.FromString((folder / graph.blake3).read_bytes())
    change(model)
    changed = tiny.blob(folder, "graph", "graph", model.SerializeToString())
    return tiny.describe("swollen", [changed, weights], honest.inputs, honest.outputs)


def test_a_graph_that_grew_is_not_kept_and_prepacked_all_the_same(tmp_path, cache, caplog):
    caplog.set_level("INFO")
    model = load(tmp_path, swollen(tmp_path), cache)
    before = answer(model)
    model.prepack()
    assert model.prepacked
    np.testing.assert_allclose(answer(model), before, rtol=1e-2, atol=1.0)
    assert not list(cache.iterdir())
    assert "an optimised graph is not kept: " in caplog.text


def test_other_facts_find_nothing(cache):
    Artefacts(cache, ["cpu", "avx512", "1.31"]).keep("d" * 64, b"graph")
    assert Artefacts(cache, ["cpu", "avx512", "1.31"]).find("d" * 64) == b"graph"
    assert Artefacts(cache, ["cpu", "avx2", "1.31"]).find("d" * 64) is None
    assert Artefacts(cache, ["cpu", "avx512", "1.31"]).find("e" * 64) is None


def test_the_one_used_longest_ago_makes_room(cache):
    artefacts = Artefacts(cache, [], max_bytes=1_000)
    for name in "abc":
        artefacts.keep(name * 64, name.encode() * 200)
        for path in cache.iterdir():
            path.touch()
    paths = {name: artefacts._path(name * 64) for name in "abc"}
    for age, name in enumerate("bca"):
        os.utime(paths[name], (age, age))
    artefacts.keep("d" * 64, b"d" * 200)
    assert {name for name in "abcd" if artefacts.find(name * 64)} == {"a", "c", "d"}
    assert sum(path.stat().st_size for path in cache.iterdir()) <= 1_000
    artefacts.keep("e" * 64, b"e" * 1_001)
    assert artefacts.find("e" * 64) is None


def test_without_a_folder_nothing_is_kept(tmp_path):
    for folder in (None, tmp_path / "missing"):
        artefacts = Artefacts(folder, [])
        artefacts.keep("d" * 64, b"graph")
        assert artefacts.find("d" * 64) is None
    assert not (tmp_path / "missing").exists()


def test_a_capture_ends_the_writer_that_writes_too_much():
    with captured(10) as capture:
        Path(capture.path).write_bytes(b"graph")
    assert capture.content == b"graph"
    with captured(10) as capture, pytest.raises(BrokenPipeError):
        Path(capture.path).write_bytes(bytes(1 << 23))
    assert capture.content is None
    with captured(10) as capture:
        pass
    assert capture.content is None


def test_folders_used_longest_ago_make_room_and_the_wanted_one_stays(tmp_path):
    for age, name in enumerate(["trt-a", "trt-b", "trt-c", "other"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "engine").write_bytes(bytes(400))
        os.utime(tmp_path / name, (age, age))
    assert make_folder(tmp_path, "trt-a", "trt-", 800) == tmp_path / "trt-a"
    assert {path.name for path in tmp_path.iterdir()} == {"trt-a", "trt-c", "other"}
    make_folder(tmp_path, "trt-d", "trt-", 100)
    assert {path.name for path in tmp_path.iterdir()} == {"trt-d", "other"}
