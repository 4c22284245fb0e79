"""A Triton-style model repository as a store to publish: `<model>/config.pbtxt`, `<version>/model.onnx`.

The graph is written anew, its external data named by digest; weights are linked to, not copied. A graph
passes the gate that a worker has (`edge.worker.graph`) before anything is sent. Of config.pbtxt only
name, max_batch_size, input and output count. Every version becomes one; the highest is served.
"""

import hashlib
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from edge.cli.pbtxt import ModelConfig, PbtxtError, parse
from edge.cli.signature import Signature
from edge.errors import EdgeError, Reason, Source
from edge.weights import manifest as mf
from edge.worker.graph import check_graph

CONFIG: Final = "config.pbtxt"
GRAPH: Final = "model.onnx"
GRAPH_MAX_BYTES: Final = 64 * mf.MIB
#: A file this large holds its weights inside; they are moved out of it.
FILE_MAX_BYTES: Final = 2 * 1024 * mf.MIB
MOVE_OUT_BYTES: Final = 1 * mf.MIB
MOVED_LEAST_BYTES: Final = 1024
#: Beside the locations of external files: no file can be called so.
MOVED: Final = "/"
PAGE_BYTES: Final = 4096
#: Beside the graph, and what may be moved out of it.
MAX_EXTERNAL: Final = mf.MANIFEST_MAX_FILES - 2
#: What sessions need beside their files, until a load measures it.
WORKING_BYTES: Final = 16 * mf.MIB
_KEYS: Final = frozenset({"location", "offset", "length", "checksum"})


def is_repository(folder: Path) -> bool:
    """Does this look like one, or like one model of it? A store has a catalogue."""
    return not (folder / "catalog.json").exists() and bool(_models(folder))


def make_store(repository: Path, names: tuple[str, ...], store: Path) -> None:
    """Write a store of the named models, or all, into the empty folder `store`.

    Raises EdgeError with file and line of what can't be served.
    """
    try:
        _make_store(repository, names, store)
    except OSError as error:
        full = f"; put TMPDIR where there is more room than below {store}" if error.errno == ENOSPC else ""
        raise _wrong(Path(error.filename or store), f"{error.strerror}{full}") from error


def _make_store(repository: Path, names: tuple[str, ...], store: Path) -> None:
    for folder in ("blobs", "manifests"):
        (store / folder).mkdir()
    found = _models(repository)
    for name in names:
        if name not in found:
            known = ", ".join(sorted(found))
            raise EdgeError(
                Reason.UNKNOWN_MODEL,
                f"no model {name!r} in {repository}; there are: {known}",
                source=Source.DOWNSTREAM,
            )
    models = {name: _model(name, found[name], store) for name in names or sorted(found)}
    (store / "catalog.json").write_bytes(mf.encode_catalogue(mf.Catalogue(1, models)))


def _models(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    if _is_model(folder):
        return {folder.resolve().name: folder}
    return {inner.name: inner for inner in sorted(folder.iterdir()) if inner.is_dir() and _is_model(inner)}


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or any(
        path.parent.name.isdecimal() for path in folder.glob(f"*/{GRAPH}")
    )


def _model(name: str, folder: Path, store: Path) -> mf.CatalogueModel:
    if not mf.is_model_name(name):
        raise _wrong(folder, "a model's name is letters, digits, '.', '_' and '-'; rename the folder")
    config = _config(folder)
    if config.name not in ("", name):
        raise _wrong(folder / CONFIG, f"it names {config.name!r}, its folder {name!r}; they must agree")
    versions: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for inner in sorted(folder.iterdir()):
        if not (inner.is_dir() and inner.name.isdecimal()):
            continue
        if not mf.is_version(inner.name):
            raise _wrong(inner, f"a version is a number from 1 to {mf.VERSION_MAX} without leading zeros")
        manifest = _Version(name, inner, config, store).manifest()
        raw = mf.encode(manifest)
        versions[inner.name] = mf.digest(raw)
        try:
            mf.decode(raw, expect_digest=versions[inner.name])
        except EdgeError as error:
            raise _wrong(inner / GRAPH, error.message) from error
        sizes[inner.name] = manifest.size_bytes
        (store / "manifests" / f"{versions[inner.name]}.json").write_bytes(raw)
    if not versions:
        raise _wrong(folder, f"it has no version: {folder.name}/1/{GRAPH} would be the first")
    return mf.CatalogueModel(max(versions, key=int), versions, sizes=sizes)


def _config(folder: Path) -> ModelConfig:
    path = folder / CONFIG
    if not (path.exists() or path.is_symlink()):
        return ModelConfig("", 0, (), ())
    if not path.is_file():
        raise _wrong(path, "it is no file")
    try:
        return parse(path.read_bytes())
    except PbtxtError as error:
        raise EdgeError(
            Reason.BAD_REQUEST, f"{path}:{error.line}: {error}", source=Source.DOWNSTREAM
        ) from error


class _Version:
    """One version on its way into the store."""

    def __init__(self, name: str, folder: Path, config: ModelConfig, store: Path) -> None:
        self._name = name
        self._folder = folder
        self._path = folder / GRAPH
        self._config = config
        self._store = store
        self._files: dict[str, mf.BlobFile] = {}

    def manifest(self) -> mf.Manifest:
        """Its blobs are in the store; what a node needs to know of it."""
        model = self._load()
        self._relocate(model)
        if model.ByteSize() > MOVE_OUT_BYTES:
            self._move_out(model)
        graph = model.SerializeToString(deterministic=True)
        if len(graph) > GRAPH_MAX_BYTES:
            raise _wrong(self._path, f"its graph has {len(graph)} bytes; at most {GRAPH_MAX_BYTES}")
        weights = {file.blake3: file.size_bytes for file in self._files.values()}
        try:
            check_graph(graph, weights)
        except EdgeError as error:
            raise _wrong(self._path, error.message) from error
        written = self._store / "graph"
        written.write_bytes(graph)
        files = (self._put("graph", "graph", written, move=True), *self._files.values())
        inputs, outputs = Signature(self._config, self._folder.parent / CONFIG, self._path).of(model)
        batch = self._config.max_batch_size
        return mf.Manifest(
            schema=1,
            name=self._name,
            version=self._folder.name,
            task="tensors",
            files=files,
            inputs=inputs,
            outputs=outputs,
            batch_axis=0 if batch else None,
            max_batch=max(1, batch),
            device_bytes=sum(file.size_bytes for file in files) + WORKING_BYTES,
            licence="not given",
            source="a Triton model repository",
            labels={},
        )

    def _load(self) -> Any:
        if not self._path.is_file():
            raise _wrong(self._path, "it is not there; only ONNX models can be served")
        if self._path.stat().st_size > FILE_MAX_BYTES:
            raise _wrong(self._path, "it is larger than 2 GiB; save its weights as external data")
        import onnx

        try:
            model = onnx.load_model_from_string(self._path.read_bytes())
        except Exception as error:
            raise _wrong(self._path, f"it is no ONNX model: {error}"[:300]) from error
        if not model.graph.node:
            raise _wrong(self._path, "it is no ONNX model: its graph has no node")
        return model

    def _relocate(self, model: Any) -> None:
        """Every external tensor lies in a file of this folder; from now on it is named by digest."""
        outside = [
            (tensor, {entry.key: entry.value for entry in tensor.external_data})
            for tensor in _tensors_in(model)
            if tensor.external_data
        ]
        if (count := len({entries.get("location") for _, entries in outside})) > MAX_EXTERNAL:
            raise _wrong(
                self._path,
                f"its weights lie in {count} files, at most {MAX_EXTERNAL} can be served: save it with "
                "all_tensors_to_one_file=True",
            )
        for tensor, entries in outside:
            if unknown := entries.keys() - _KEYS:
                raise _wrong(self._path, f"tensor {tensor.name!r} has the external key {min(unknown)!r}")
            file = self._external(tensor.name, entries.get("location", ""))
            offset = self._number(tensor.name, entries.get("offset", "0"))
            length = entries.get("length")
            rest = max(0, file.size_bytes - offset)
            del tensor.external_data[:]
            _point(tensor, file.blake3, offset, self._number(tensor.name, length) if length else rest)

    def _number(self, tensor: str, text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 20):
            raise _wrong(
                self._path, f"tensor {tensor!r} has offset or length {text[:40]!r}, which is no number"
            )
        return int(text)

    def _external(self, tensor: str, location: str) -> mf.BlobFile:
        if location not in self._files:
            path = self._folder / location
            one_segment = bool(location) and "/" not in location and location not in (".", "..")
            if not one_segment or path.is_symlink() or not path.is_file():
                raise _wrong(
                    self._path,
                    f"tensor {tensor!r} lies in {location[:80]!r}, which is no plain file beside it",
                )
            if path.stat().st_size == 0:
                raise _wrong(path, "it is empty")
            name = f"weights-{len(self._files)}"
            self._files[location] = self._put("weights", name, path, move=False)
        return self._files[location]

    def _move_out(self, model: Any) -> None:
        """Large initializers into a file of their own, each at a page, so that they can be mapped."""
        moved = [one for one in model.graph.initializer if len(one.raw_data) >= MOVED_LEAST_BYTES]
        if not moved:
            return
        path, places, at = self._store / "moved", [], 0
        with path.open("wb") as file:
            for tensor in moved:
                file.write(bytes(-at % PAGE_BYTES))
                at += -at % PAGE_BYTES
                places.append((tensor, at, len(tensor.raw_data)))
                file.write(tensor.raw_data)
                at += len(tensor.raw_data)
        blob = self._put("weights", "weights", path, move=True)
        self._files[MOVED] = blob
        for tensor, offset, length in places:
            tensor.ClearField("raw_data")
            _point(tensor, blob.blake3, offset, length)

    def _put(self, role: mf.Role, name: str, path: Path, *, move: bool) -> mf.BlobFile:
        """A file under its digest; a file of the repository stays where it is."""
        file = _describe(role, name, path)
        target = self._store / "blobs" / file.blake3
        if move:
            path.replace(target)
        elif not target.exists():
            target.symlink_to(path.resolve())
        return file


def _tensors_in(message: Any) -> Iterator[Any]:
    """Every tensor of a model: in subgraphs, functions, attributes and sparse tensors too."""
    stack = [message]
    while stack:
        at = stack.pop()
        if at.DESCRIPTOR.name == "TensorProto":
            yield at
            continue
        for field, value in at.ListFields():
            if field.message_type is not None:
                stack.extend([value] if hasattr(value, "ListFields") else value)


def _point(tensor: Any, location: str, offset: int, length: int) -> None:
    tensor.data_location = 1  # EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _describe(role: mf.Role, name: str, path: Path) -> mf.BlobFile:
    whole, sha256, chunks, size_bytes = blake3(), hashlib.sha256(), [], 0
    with path.open("rb") as file:
        while chunk := file.read(mf.CHUNK_BYTES):
            whole.update(chunk)
            sha256.update(chunk)
            chunks.append(mf.digest(chunk))
            size_bytes += len(chunk)
    return mf.BlobFile(role, name, size_bytes, whole.hexdigest(), sha256.hexdigest(), tuple(chunks))


def _wrong(path: Path, what: str) -> EdgeError:
    return EdgeError(Reason.BAD_REQUEST, f"{path}: {what}", source=Source.DOWNSTREAM)
