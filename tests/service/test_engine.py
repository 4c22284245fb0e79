"""The engine with a real ONNX Runtime and real files: what loads, what is refused, what a run gives."""

import ctypes
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from edge.config import Worker
from edge.errors import EdgeError, Reason
from edge.oip.datatypes import NamedArray, bytes_array
from edge.weights import manifest as mf
from edge.worker import engine, tasks
from edge.worker.engine import Device, Model
from tests.support import tiny
from tests.support.node import STORE


def load(folder: Path, manifest: mf.Manifest) -> Model:
    return Model(Device(Worker(), folder), manifest, tasks.signatures(manifest))


def test_weights_beside_the_graph_are_used_prepacked_or_not(tmp_path):
    made = tiny.heavy(tmp_path)
    model = load(tmp_path, made)
    assert not model.prepacked, "16 MiB of weights are prepacked later"
    x = np.random.default_rng(1).standard_normal((4, 2048), dtype=np.float32)
    w = np.frombuffer((tmp_path / made.file("weights").blake3).read_bytes(), np.float32).reshape(2048, 2048)
    (mapped,) = model.begin().call("graph", {"x": x})
    np.testing.assert_allclose(mapped, x @ w, rtol=1e-3, atol=1e-3)
    before = model.begin()
    model.prepack()
    assert model.prepacked
    np.testing.assert_allclose(model.begin().call("graph", {"x": x})[0], mapped, rtol=1e-3, atol=1e-3)
    (
        np.testing.assert_array_equal(before.call("graph", {"x": x})[0], mapped),
        "a run keeps the sessions it began with",
    )
    model.close()


def test_prepacked_weights_are_given_up_when_they_gain_nothing(tmp_path, monkeypatch):
    model = load(tmp_path, tiny.heavy(tmp_path))
    x = np.ones((4, 2048), np.float32)
    (mapped,) = model.begin().call("graph", {"x": x})
    monkeypatch.setattr(engine, "PREPACK_GAIN", 1.0)
    assert not model.prepack(lambda run: run.call("graph", {"x": x}))
    assert not model.prepacked
    np.testing.assert_array_equal(model.begin().call("graph", {"x": x})[0], mapped)
    monkeypatch.setattr(engine, "PREPACK_GAIN", -1e6)
    assert model.prepack(lambda run: run.call("graph", {"x": x}))
    assert model.prepacked


def test_the_runtime_refuses_an_index_and_the_client_is_told(tmp_path):
    model = load(tmp_path, tiny.picker(tmp_path))
    assert model.begin().call("graph", {"x": np.array([7], np.int64)})[0].tolist() == [70]
    with pytest.raises(EdgeError, match="the model refuses these tensors") as caught:
        model.begin().call("graph", {"x": np.array([70], np.int64)})
    assert caught.value.reason is Reason.BAD_INPUT
    with pytest.raises(EdgeError) as caught:
        model.begin().call("graph", {"x": np.zeros((1, 1), np.float32)})
    assert caught.value.reason is Reason.BAD_INPUT
    assert len(caught.value.message) < 400


def test_a_loop_without_end_ends_when_it_is_told_to(tmp_path):
    run = load(tmp_path, tiny.spinner(tmp_path)).begin()
    timer = threading.Timer(0.1, run.terminate)
    timer.start()
    with pytest.raises(EdgeError) as caught:
        run.call("graph", {"x": np.array([tiny.ENDLESS], np.int64)})
    timer.join()
    assert caught.value.reason is Reason.DEADLINE
    with pytest.raises(EdgeError, match="nobody waits"):
        run.call("graph", {"x": np.array([1], np.int64)})


def truncated(folder: Path, file: mf.BlobFile) -> None:
    path = folder / file.blake3
    path.chmod(0o644)
    os.truncate(path, file.size_bytes - 1)


def changed(folder: Path, file: mf.BlobFile) -> None:
    path = folder / file.blake3
    path.chmod(0o644)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def linked(folder: Path, file: mf.BlobFile) -> None:
    os.link(folder / file.blake3, folder / "second-name")


def symlinked(folder: Path, file: mf.BlobFile) -> None:
    path = folder / file.blake3
    path.rename(folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")


def missing(folder: Path, file: mf.BlobFile) -> None:
    (folder / file.blake3).unlink()


def a_pipe(folder: Path, file: mf.BlobFile) -> None:
    (folder / file.blake3).unlink()
    os.mkfifo(folder / file.blake3)


BLOBS = [
    ("weights one byte short", "weights", truncated, "has 16777215 bytes; the manifest says 16777216"),
    ("a graph one byte short", "graph", truncated, "the manifest says"),
    ("a graph with one bit flipped", "graph", changed, "other content than its digest says"),
    ("weights with a second name", "weights", linked, "has 2 links"),
    ("weights behind a symlink", "weights", symlinked, "is no regular file"),
    ("weights that are not there", "weights", missing, "No such file or directory"),
    ("a pipe instead of weights", "weights", a_pipe, "is no regular file"),
    ("a pipe instead of a graph", "graph", a_pipe, "is no regular file"),
]


@pytest.mark.parametrize(("sentence", "file", "spoil", "match"), BLOBS, ids=[case[0] for case in BLOBS])
def test_a_spoiled_blob_does_not_load(tmp_path, sentence, file, spoil, match):
    made = tiny.heavy(tmp_path)
    spoil(tmp_path, made.file(file))
    with pytest.raises(EdgeError, match=match) as caught:
        load(tmp_path, made)
    assert caught.value.reason is Reason.BLOB_CORRUPT


def test_a_graph_that_reaches_for_another_file_does_not_load(tmp_path):
    (tmp_path / "other").write_bytes(bytes(1 << 20))
    with pytest.raises(EdgeError, match="'other', which is no weights blob") as caught:
        load(tmp_path, tiny.heavy(tmp_path, side=512, location="other"))
    assert caught.value.reason is Reason.LOAD_FAILED


def test_a_manifest_that_promises_other_tensors_does_not_load(tmp_path):
    honest = tiny.identity(tmp_path)
    x, y = mf.TensorSpec("x", "FP64", (-1, 16)), mf.TensorSpec("z", "FP32", (-1, 16))
    for inputs, outputs, match in (([x], honest.outputs, "inputs"), (honest.inputs, [y], "outputs")):
        with pytest.raises(EdgeError, match=f"its graph has {match}"):
            load(tmp_path, tiny.describe("liar", honest.files, inputs, outputs))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not a graph", bytes(range(256))])
def test_bytes_that_are_no_graph_do_not_load(tmp_path, content):
    honest = tiny.identity(tmp_path)
    content = content or b"\n"
    made = tiny.describe(
        "junk", [tiny.blob(tmp_path, "graph", "graph", content)], honest.inputs, honest.outputs
    )
    with pytest.raises(EdgeError) as caught:
        load(tmp_path, made)
    assert caught.value.reason is Reason.LOAD_FAILED


def test_an_operator_from_elsewhere_does_not_load(tmp_path):
    from onnx import helper

    x = helper.make_tensor_value_info("x", tiny.FLOAT, ["n", 16])
    y = helper.make_tensor_value_info("y", tiny.FLOAT, ["n", 16])
    raw = tiny.graph([helper.make_node("Evil", ["x"], ["y"], domain="evil.example")], [x], [y])
    honest = tiny.identity(tmp_path)
    made = tiny.describe("evil", [tiny.blob(tmp_path, "graph", "graph", raw)], honest.inputs, honest.outputs)
    with pytest.raises(EdgeError, match=r"evil\.example") as caught:
        load(tmp_path, made)
    assert caught.value.reason is Reason.LOAD_FAILED


def test_a_gpu_that_is_not_there_is_an_error_with_advice(tmp_path):
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        pytest.skip("this machine has an NVIDIA driver")
    with pytest.raises(EdgeError, match=r"cuda:0: there is no NVIDIA driver .* set device: cpu"):
        Device(Worker(device="cuda:0"), tmp_path)


# --- the models of the catalogue, where they have been made


def published(name: str) -> tuple[mf.Manifest, Model]:
    if not (STORE / "catalog.json").exists():
        pytest.skip("models/store is empty: make models")
    catalogue = mf.decode_catalogue((STORE / "catalog.json").read_bytes())
    if name not in catalogue.models:
        pytest.skip(f"models/store has no {name}: make models")
    model = catalogue.models[name]
    digest = model.versions[model.current]
    manifest = mf.decode((STORE / "manifests" / f"{digest}.json").read_bytes(), expect_digest=digest)
    return manifest, load(STORE / "blobs", manifest)


def items(manifest: mf.Manifest, *contents: bytes) -> list[NamedArray]:
    return [NamedArray(manifest.inputs[0].name, "BYTES", bytes_array(list(contents), (len(contents),)))]


def test_minilm_gives_the_same_vector_alone_and_in_a_batch():
    manifest, model = published("minilm")
    task = tasks.make(manifest, model.aux)
    sentences = [
        b"A cat sits on the mat.",
        b"The feline rests upon a rug.",
        b"Interest rates rose by half a percent, which surprised economists in three countries.",
        "Größe und Maß".encode(),
    ]
    alone = [
        task.run([task.accept(items(manifest, text))], model.begin())[0][0].array[0] for text in sentences
    ]
    works = [task.accept(items(manifest, *sentences[:2])), task.accept(items(manifest, *sentences[2:]))]
    together = np.concatenate([outputs[0].array for outputs in task.run(works, model.begin())])
    assert together.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    for one, other in zip(alone, together, strict=True):
        assert float(one @ other) > 0.99999
    assert float(together[0] @ together[1]) > 0.5 > float(together[0] @ together[2]), (
        "cats are near, rates are not"
    )


def test_magika_knows_files_alone_and_in_a_batch():
    manifest, model = published("magika")
    task = tasks.make(manifest, model.aux)
    source = Path(tasks.__file__).read_bytes()
    config = json.dumps(
        {f"key{n}": {"on": True, "list": [n, n + 1], "text": "a b c"} for n in range(20)}, indent=2
    )
    contents = [source, config.encode(), b"", b"hi", b"\xff\xd8\xff"]
    expected = [b"python", b"json", b"empty", b"txt", b"unknown"]
    together = task.run([task.accept(items(manifest, *contents))], model.begin())[0]
    assert together[0].array.tolist() == expected
    for content, label, score in zip(contents, expected, together[1].array.tolist(), strict=True):
        alone = task.run([task.accept(items(manifest, content))], model.begin())[0]
        assert alone[0].array.tolist() == [label]
        assert alone[1].array[0] == pytest.approx(score, abs=1e-4)
