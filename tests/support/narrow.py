"""What the narrow planet (narrow.yaml) serves: models whose cost, size and places the tests choose.

`turns` runs for as long as it is asked to, one request at a time. `home-*` is identity under other
names, each as large on a device as two fifths of Tokyo's and next to nothing on a disk; `remote` is as
large on both. `eu-only` is confined. `kept` is published later, by `publish_kept`, with a floor in ap.
It knows nothing of labs.
"""

import json
from pathlib import Path
from typing import Final

import msgspec

from edge.weights import manifest as mf
from tests.support import tiny

PLANET: Final = Path(__file__).with_name("narrow.yaml")
DEVICE_BYTES: Final = 16 << 20
IDENTITY: Final = json.dumps({"input": [[1.0] * 16]}).encode()
HOMES: Final = ("home-a", "home-b", "home-c")


def turns_body(turns: int) -> bytes:
    """A request of `turns` that spins so often."""
    return json.dumps({"input": [turns]}).encode()


REMOTE_SIDE, KEPT_SIDE = 2040, 2048


def row(width: int) -> bytes:
    """A request of one row; its answer is small beside the weights."""
    return json.dumps({"input": [[0.5] * width]}).encode()


def make(root: Path) -> Path:
    """The store, with its first catalogue."""
    blobs = root / "blobs"
    blobs.mkdir(parents=True)
    (root / "manifests").mkdir()
    spinner = msgspec.structs.replace(tiny.spinner(blobs), name="turns", batch_axis=None, max_batch=1)
    identity = msgspec.structs.replace(tiny.identity(blobs), device_bytes=DEVICE_BYTES)
    models = {"turns": _model(root, spinner)}
    for name in HOMES:
        models[name] = _model(root, msgspec.structs.replace(identity, name=name))
    confined = _model(root, msgspec.structs.replace(identity, name="eu-only"))
    models["eu-only"] = msgspec.structs.replace(confined, confine=("eu",))
    remote = msgspec.structs.replace(tiny.heavy(blobs, side=REMOTE_SIDE), name="remote")
    models["remote"] = _model(root, remote)
    _publish(root, mf.Catalogue(1, models))
    return root


def publish_kept(root: Path) -> int:
    """A catalogue with `kept`, 16 MiB that one node of ap has on its disk from now on; its bytes."""
    catalogue = mf.decode_catalogue((root / "catalog.json").read_bytes())
    heavy = msgspec.structs.replace(tiny.heavy(root / "blobs", side=KEPT_SIDE), name="kept")
    kept = msgspec.structs.replace(_model(root, heavy), keep={"ap": 1})
    _publish(root, mf.Catalogue(catalogue.epoch + 1, {**catalogue.models, "kept": kept}))
    return heavy.size_bytes


def _model(root: Path, manifest: mf.Manifest) -> mf.CatalogueModel:
    raw = mf.encode(manifest)
    (root / "manifests" / f"{mf.digest(raw)}.json").write_bytes(raw)
    return mf.CatalogueModel("1", {"1": mf.digest(raw)}, sizes={"1": manifest.size_bytes})


def _publish(root: Path, catalogue: mf.Catalogue) -> None:
    fresh = root / "catalog.new"
    fresh.write_bytes(mf.encode_catalogue(catalogue))
    fresh.replace(root / "catalog.json")
