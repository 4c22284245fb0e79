"""`popctl models push` of a Triton-style repository: what is published of it, and what is refused where."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.cli.triton import make_store
from edge.errors import EdgeError
from edge.weights import manifest as mf
from tests.support.node import open_directory, running_node

CONFIG = """
name: "scaler"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
"""


def graph(factor: float, *, external: bool, size: int = 4) -> tuple[onnx.ModelProto, bytes]:
    """`y` = x * w, w being `size` times `factor`, in the file or beside it at offset 8."""
    w = numpy_helper.from_array(np.full(size, factor, np.float32), "w")
    raw = bytes(w.raw_data)
    if external:
        w.ClearField("raw_data")
        w.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "w.bin"), ("offset", "8"), ("length", str(len(raw)))):
            w.external_data.add(key=key, value=value)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name in "xy")
    made = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", [x], [y], [w])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), raw


def put(folder: Path, version: str, factor: float, *, external: bool = False, size: int = 4) -> Path:
    model, raw = graph(factor, external=external, size=size)
    inner = folder / version
    inner.mkdir(parents=True)
    (inner / "model.onnx").write_bytes(model.SerializeToString())
    if external:
        (inner / "w.bin").write_bytes(bytes(8) + raw)
    return inner


def push(repository: Path, origin: Path, *more: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("popctl"))
    command = [program, "models", "push", str(repository), *more, "--origin", f"file://{origin}", "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def manifest(origin: Path, name: str) -> mf.Manifest:
    model = mf.decode_catalogue((origin / "catalog.json").read_bytes()).models[name]
    raw = (origin / "manifests" / f"{model.versions[model.current]}.json").read_bytes()
    return mf.decode(raw, expect_digest=model.versions[model.current])


def test_a_repository_is_published_and_served():
    with open_directory() as root:
        repository, origin = root / "repository", root / "origin"
        origin.mkdir()
        scaler = repository / "scaler"
        put(scaler, "1", 2.0)
        put(scaler, "12", 3.0, external=True)
        (scaler / "config.pbtxt").write_text(CONFIG)
        put(repository / "large", "1", 5.0, size=400_000)
        (repository / "notes").mkdir()
        ran = push(repository, origin)
        assert ran.returncode == 0, ran.stderr
        told = json.loads(ran.stdout)
        assert told["models"] == [{"model": "large", "version": "1"}, {"model": "scaler", "version": "12"}]
        found = manifest(origin, "scaler")
        assert [(file.role, file.name) for file in found.files] == [
            ("graph", "graph"),
            ("weights", "weights-0"),
        ]
        assert (found.max_batch, found.inputs) == (8, (mf.TensorSpec("x", "FP32", (-1, 4)),))
        large = manifest(origin, "large")
        assert [file.role for file in large.files] == ["graph", "weights"], "what is large is moved out"
        assert (large.batch_axis, large.inputs[0].shape) == (None, (-1, 400_000))
        assert json.loads(push(repository, origin).stdout)["changed"] is False
        with running_node(origin=f"file://{origin}") as node:
            answer = node.request("/run/scaler", json.dumps({"input": [[1.0, 2.0, 3.0, 4.0]]}))
            assert (answer.status, answer.json["outputs"]["y"]) == (200, [[3.0, 6.0, 9.0, 12.0]]), answer
            old = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}]}
            answer = node.request("/v2/models/scaler/versions/1/infer", json.dumps(old))
            assert (answer.status, answer.json["outputs"][0]["data"]) == (200, [2.0] * 4), answer
            body = {
                "inputs": [{"name": "x", "shape": [1, 400_000], "datatype": "FP32", "data": [1] * 400_000}]
            }
            answer = node.request("/v2/models/large/infer", json.dumps(body))
            assert (answer.status, set(answer.json["outputs"][0]["data"])) == (200, {5.0})


def test_one_model_of_it_is_published_by_its_folder_or_by_its_name(tmp_path):
    put(tmp_path / "all" / "one", "1", 2.0)
    put(tmp_path / "all" / "two", "1", 2.0)
    for number, arguments in enumerate((["all/one"], ["all", "one"])):
        origin = tmp_path / f"origin{number}"
        origin.mkdir()
        ran = push(tmp_path / arguments[0], origin, *arguments[1:])
        assert json.loads(ran.stdout)["models"] == [{"model": "one", "version": "1"}], ran.stderr
    assert push(tmp_path / "all", tmp_path / "origin0", "three").returncode == 4


def test_an_external_file_may_be_called_like_what_is_moved_out(tmp_path):
    origin, inner = tmp_path / "origin", put(tmp_path / "all" / "m", "1", 2.0, external=True, size=400_000)
    origin.mkdir()
    (inner / "w.bin").rename(inner / "weights")

    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].external_data[0].value = "weights"
        model.graph.initializer.append(numpy_helper.from_array(np.full(400_000, 3.0, np.float32), "v"))
        model.graph.node[0].output[0] = "scaled"
        model.graph.node.append(helper.make_node("Add", ["scaled", "v"], ["y"]))

    changed(change)(inner.parent)
    ran = push(tmp_path / "all", origin)
    assert ran.returncode == 0, ran.stderr
    names = [file.name for file in manifest(origin, "m").files]
    assert names == ["graph", "weights-0", "weights"], "neither takes the other's place"


def test_where_a_model_runs_and_is_kept_stays_as_the_origin_has_it(tmp_path):
    origin, repository = tmp_path / "origin", tmp_path / "repository"
    origin.mkdir()
    put(repository / "m", "1", 2.0)
    assert push(repository, origin).returncode == 0
    path = origin / "catalog.json"
    before = mf.decode_catalogue(path.read_bytes())
    placed = msgspec.structs.replace(before.models["m"], confine=("eu",), keep={"eu": 1})
    path.write_bytes(mf.encode_catalogue(mf.Catalogue(before.epoch + 1, {"m": placed})))
    put(repository / "m", "2", 3.0)
    assert push(repository, origin).returncode == 0
    after = mf.decode_catalogue(path.read_bytes()).models["m"]
    assert (after.current, after.confine, after.keep) == ("2", ("eu",), {"eu": 1})


def changed(change: Callable[[onnx.ModelProto], Any]) -> Callable[[Path], Any]:
    def apply(folder: Path) -> None:
        path = folder / "1" / "model.onnx"
        model = onnx.load_model_from_string(path.read_bytes())
        change(model)
        path.write_bytes(model.SerializeToString())

    return apply


def location(text: str) -> Callable[[Path], Any]:
    return changed(lambda model: setattr(model.graph.initializer[0].external_data[0], "value", text))


def config(text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "config.pbtxt").write_text(text)


def outside(key: str, value: str) -> Callable[[Path], Any]:
    def change(model: onnx.ModelProto) -> None:
        entries = model.graph.initializer[0].external_data
        for entry in [entry for entry in entries if entry.key == key]:
            entries.remove(entry)
        entries.add(key=key, value=value)

    return changed(change)


def scattered(model: onnx.ModelProto) -> None:
    """As exporters leave it: each tensor in a file of its own."""
    for number in range(62):
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(model.graph.initializer[0])
        tensor.name = f"w{number}"
        tensor.external_data[0].value = f"w{number}.bin"


def silenced(model: onnx.ModelProto) -> None:
    constant = numpy_helper.from_array(np.ones((1, 4), np.float32), model.graph.input[0].name)
    model.graph.initializer.append(constant)


def fixed(model: onnx.ModelProto) -> None:
    """Exported for one item."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


REFUSED = [
    ("a config that can't be read", config('name: "m"\nmax_batch_size: many'), "m/config.pbtxt:2: a whole number"),
    ("a config of another model", config('name: "other"'), "its folder 'm'"),
    ("an input that the graph lacks", config(CONFIG.replace("scaler", "m").replace('"x"', '"z"')), "config.pbtxt: input 'z'"),
    ("an input of another type", config(CONFIG.replace("scaler", "m").replace("FP32", "INT64", 1)), "is INT64"),
    ("an input that is missing", config('output { name: "x" data_type: TYPE_FP32 dims: 4 }'), "output 'x'"),
    ("no version", lambda folder: (folder / "1").rename(folder / "first"), "m/1/model.onnx would be the first"),
    ("a version with a leading zero", lambda folder: (folder / "1").rename(folder / "01"), "without leading zeros"),
    ("no graph", lambda folder: (folder / "1" / "model.onnx").rename(folder / "1" / "model.pt"), "only ONNX models"),
    ("a graph that is none", lambda folder: (folder / "1" / "model.onnx").write_bytes(b"PK\3\4"), "no ONNX model"),
    ("weights elsewhere", location("../w.bin"), "no plain file beside it"),
    ("weights at an absolute path", location("/etc/passwd"), "no plain file beside it"),
    ("weights that are a link", lambda folder: relink(folder / "1" / "w.bin"), "no plain file beside it"),
    ("weights that end too soon", lambda folder: (folder / "1" / "w.bin").write_bytes(b"1234"), "model.onnx"),
    ("an offset of 5000 digits", outside("offset", "9" * 5000), "offset or length '999"),
    ("a length in other digits", outside("length", "٣"), "which is no number"),
    ("a name that no file can have", location("w" * 300), "File name too long"),
    ("one file per tensor, too many", changed(lambda model: scattered(model)), "lie in 63 files, at most 62"),
    ("a type that nobody knows", changed(lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", 9999)), "tensor 'x' is 9999"),
    ("no input", changed(lambda model: silenced(model)), "m/1/model.onnx: its graph has no input"),
    ("a config that is a folder", lambda folder: ((folder / "config.pbtxt").unlink(), (folder / "config.pbtxt").mkdir()), "config.pbtxt: it is no file"),
    ("other dims than the graph", config(CONFIG.replace("scaler", "m").replace("dims: [ 4 ]", "dims: [ 7 ]", 1)), "has dims [7]"),
    ("another rank than the graph", config(CONFIG.replace("scaler", "m").replace("dims: [ 4 ]", "dims: [ 4, 4 ]", 1)), "has dims [4, 4]"),
    ("a batch of a graph that takes one", lambda folder: (config(CONFIG.replace("scaler", "m"))(folder), changed(fixed)(folder)), "max_batch_size is 8, but input 'x'"),
    ("the same without tensors", lambda folder: (config("max_batch_size: 8")(folder), changed(fixed)(folder)), "has shape [1, 4]: export it"),
    ("operators that nobody has", changed(lambda model: setattr(model.graph.node[0], "domain", "evil")), "domain 'evil'"),
]  # fmt: skip


def relink(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


@pytest.mark.parametrize(("sentence", "spoil", "problem"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_can_not_be_served_is_refused_by_file(tmp_path, sentence, spoil, problem):
    folder, origin = tmp_path / "repository" / "m", tmp_path / "origin"
    origin.mkdir()
    put(folder, "1", 2.0, external=True)
    (folder / "config.pbtxt").write_text("")
    spoil(folder)
    ran = push(tmp_path / "repository", origin)
    assert (ran.returncode, ran.stdout, problem in ran.stderr) == (1, "", True), (sentence, ran.stderr)
    assert list(origin.iterdir()) == [], "nothing is half-published"


def test_a_full_disk_names_its_folder_and_what_helps(tmp_path, monkeypatch):
    put(tmp_path / "m", "1", 2.0)
    (tmp_path / "store").mkdir()

    def full(self: Path, _raw: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EdgeError, match=f"{tmp_path}/store: No space left on device; put TMPDIR where"):
        make_store(tmp_path, (), tmp_path / "store")
