"""Stores of small models as `python -m models make` leaves them, for tests of who publishes and serves them."""

from pathlib import Path

import msgspec
from onnx import helper

from edge.weights import manifest as mf
from tests.support import tiny


def a_store(root: Path, *manifests: mf.Manifest, epoch: int = 1) -> Path:
    """A store of manifests whose blobs lie in `root`/blobs; the last version of a model is current."""
    (root / "manifests").mkdir(exist_ok=True)
    models: dict[str, mf.CatalogueModel] = {}
    for manifest in manifests:
        raw = mf.encode(manifest)
        (root / "manifests" / f"{mf.digest(raw)}.json").write_bytes(raw)
        before = models.get(manifest.name)
        models[manifest.name] = mf.CatalogueModel(
            manifest.version,
            {**(before.versions if before else {}), manifest.version: mf.digest(raw)},
            sizes={**(before.sizes if before else {}), manifest.version: manifest.size_bytes},
        )
    (root / "catalog.json").write_bytes(mf.encode_catalogue(mf.Catalogue(epoch, models)))
    return root


def doubler(folder: Path) -> mf.Manifest:
    """identity's second version: `y` = x + x."""
    raw = tiny.graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [helper.make_tensor_value_info("x", tiny.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("y", tiny.FLOAT, ["n", 16])],
    )
    files = (tiny.blob(folder, "graph", "graph", raw),)
    return msgspec.structs.replace(tiny.identity(folder), version="2", files=files)
