"""The store a fleet's origin serves: blobs, manifests, licences, and the catalogue over them.

`catalog.json`, `manifests/<digest>.json`, `blobs/<digest>` and `licences/<model>.txt`.
Everything but the catalogue is immutable and named by its content; the catalogue is
replaced last and whole, so a reader sees the old state or the new one. `made.json` is
for the next run only: from which recipe each model came. Knows no ONNX, no packages.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import msgspec
from blake3 import blake3

from edge.weights import manifest as mf
from models.errors import PublishError

STORE_PATH: Final = Path(__file__).parent / "store"
_PART_BYTES: Final = 8 * 1024 * 1024


class Made(msgspec.Struct, frozen=True):
    """Which recipe made a manifest, and its blobs as they were left: digest -> (size, mtime in ns)."""

    recipe: str
    version: str
    digest: str
    blobs: dict[str, tuple[int, int]]


class Placement(msgspec.Struct, frozen=True):
    """Where a model may run (everywhere if empty), and how many copies a region keeps on disk."""

    confine: tuple[str, ...] = ()
    keep: dict[str, int] = {}


class Store:
    """One origin's folder, open for publishing by one process at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: dict[str, Made] = {}

    @classmethod
    @contextmanager
    def open(cls, root: Path) -> Iterator[Self]:
        """Take the folder's lock and read what earlier runs left. Raises PublishError."""
        store = cls(root)
        try:
            for folder in ("blobs", "manifests", "licences"):
                (root / folder).mkdir(parents=True, exist_ok=True)
            lock = (root / ".lock").open("w")
        except OSError as error:
            raise PublishError(f"{root}: {error.strerror}; give a folder that can be written") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise PublishError(
                    f"{root}: another run is publishing there; wait until it is done"
                ) from error
            for stale in root.glob(".build-*"):
                shutil.rmtree(stale)
            store.made = store._read_made()
            yield store

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """An empty folder on the store's own disk, gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".build-") as folder:
            yield Path(folder)

    def catalogue(self) -> mf.Catalogue:
        """What is published now; epoch 0 and nothing if that is nothing."""
        path = self.root / "catalog.json"
        if not path.exists():
            return mf.Catalogue(0, {})
        try:
            return mf.decode_catalogue(path.read_bytes())
        except mf.ManifestError as error:
            raise PublishError(f"{path}: {error.message}; remove that file and publish again") from error

    def holds(self, name: str, recipe: str) -> bool:
        """Was `name` made by this very recipe, and is every file of it as it was left?"""
        made = self.made.get(name)
        if made is None or made.recipe != recipe or not self._licence(name).exists():
            return False
        if not self._manifest(made.digest).exists():
            return False
        return all(_stamp(self._blob(digest)) == stamp for digest, stamp in made.blobs.items())

    def put(self, manifest: mf.Manifest, folder: Path, licence: str, recipe: str) -> str:
        """Move a model's files in, then its licence and manifest; returns the manifest's digest.

        Raises ManifestError if the manifest would be refused by the nodes.
        """
        raw = mf.encode(manifest)
        digest = mf.digest(raw)
        mf.decode(raw, expect_digest=digest)
        blobs = {}
        for file in manifest.files:
            self._put_blob(folder / file.name, file.blake3)
            blobs[file.blake3] = _stamp(self._blob(file.blake3))
        _write(self._licence(manifest.name), licence.encode())
        _write(self._manifest(digest), raw)
        self.made[manifest.name] = Made(recipe, manifest.version, digest, blobs)
        _write(self.root / "made.json", msgspec.json.encode(self.made, order="sorted"))
        return digest

    def announce(self, placed: Mapping[str, Placement], *, keep_others: bool) -> tuple[mf.Catalogue, bool]:
        """Let the catalogue name what is made, placed so; returns it, and whether it had to change.

        Other versions of a model stay, so that a fleet can go back to them; other models
        stay only if `keep_others`. The epoch rises with each change and only then.
        """
        before = self.catalogue()
        models = dict(before.models) if keep_others else {}
        for name, placement in placed.items():
            made = self.made[name]
            known = before.models[name].versions if name in before.models else {}
            kept = {version: d for version, d in known.items() if self._manifest(d).exists()}
            models[name] = mf.CatalogueModel(
                made.version,
                kept | {made.version: made.digest},
                confine=placement.confine,
                keep=placement.keep,
            )
        return self._publish(before, {name: self._sized(model) for name, model in models.items()})

    def rollout(self, name: str, version: str) -> mf.Catalogue:
        """Serve this published version of a model by default: a new epoch, unless it is served already.

        The next `make` serves what catalog.yaml says again. Raises PublishError.
        """
        before = self.catalogue()
        model = before.models.get(name)
        if model is None:
            known = ", ".join(before.models) or "none yet"
            raise PublishError(f"{self.root}: no model {name!r} is published; there are: {known}")
        if version not in model.versions:
            known = ", ".join(sorted(model.versions, key=int))
            raise PublishError(f"{name}: no version {version!r} is published; write one of {known}")
        if not self._manifest(model.versions[version]).exists():
            raise PublishError(f"{name}: the manifest of version {version} is gone; publish it again")
        changed = msgspec.structs.replace(model, current=version)
        return self._publish(before, before.models | {name: changed})[0]

    def rollback(self, name: str) -> mf.Catalogue:
        """Serve the version below the present one: a new epoch with the old content. Raises PublishError."""
        model = self.catalogue().models.get(name)
        below = [v for v in model.versions if int(v) < int(model.current)] if model else []
        if model and not below:
            raise PublishError(f"{name}: there is no version below {model.current} to go back to")
        return self.rollout(name, max(below, key=int, default=""))

    def _publish(
        self, before: mf.Catalogue, models: dict[str, mf.CatalogueModel]
    ) -> tuple[mf.Catalogue, bool]:
        if models == before.models and before.epoch > 0:
            return before, False
        after = mf.Catalogue(before.epoch + 1, models)
        _write(self.root / "catalog.json", mf.encode_catalogue(after))
        return after, True

    def _sized(self, model: mf.CatalogueModel) -> mf.CatalogueModel:
        """With the bytes of each version whose manifest is here; a version's size never changes."""
        sizes = {version: size for version, size in model.sizes.items() if version in model.versions}
        for version, digest in model.versions.items():
            if version not in sizes and self._manifest(digest).exists():
                sizes[version] = mf.decode(
                    self._manifest(digest).read_bytes(), expect_digest=digest
                ).size_bytes
        return msgspec.structs.replace(model, sizes=sizes)

    def _put_blob(self, path: Path, digest: str) -> None:
        target = self._blob(digest)
        if target.exists() and _blake3(target) == digest:
            return
        path.chmod(0o444)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(target)

    def _read_made(self) -> dict[str, Made]:
        try:
            return msgspec.json.decode((self.root / "made.json").read_bytes(), type=dict[str, Made])
        except (FileNotFoundError, msgspec.MsgspecError):
            return {}  # it saves work and nothing else: without it everything is made again

    def _blob(self, digest: str) -> Path:
        return self.root / "blobs" / digest

    def _manifest(self, digest: str) -> Path:
        return self.root / "manifests" / f"{digest}.json"

    def _licence(self, name: str) -> Path:
        return self.root / "licences" / f"{name}.txt"


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (-1, -1)
    return (status.st_size, status.st_mtime_ns)


def _blake3(path: Path) -> str:
    whole = blake3()
    with path.open("rb") as file:
        while part := file.read(_PART_BYTES):
            whole.update(part)
    return str(whole.hexdigest())


def _write(path: Path, raw: bytes) -> None:
    """Replace `path` whole: a reader sees the old bytes or the new ones."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
