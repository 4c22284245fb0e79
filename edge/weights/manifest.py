"""What a model is: the manifest, its files and chunks, and the catalogue that names them.

A manifest is canonical JSON (sorted keys, no spaces, UTF-8) and is named by the BLAKE3
digest of exactly those bytes; blobs are named by the digest of theirs. Both come from an
origin that may be wrong or hostile, so `decode` and `decode_catalogue` check everything
that later code relies on and say in one sentence what is wrong and where.

Pure: knows no files, no sockets, no clock, and nothing of ONNX. Unknown JSON fields are
ignored, so that nodes of neighbouring versions read each other's manifests.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from blake3 import blake3
from msgspec import Meta, Struct

from edge.errors import EdgeError, Reason, Source

MIB: Final = 1024 * 1024
MANIFEST_MAX_BYTES: Final = 4 * MIB
CATALOGUE_MAX_BYTES: Final = 4 * MIB
CATALOGUE_MAX_MODELS: Final = 10_000
MODEL_MAX_VERSIONS: Final = 1000
MANIFEST_MAX_FILES: Final = 64
BLOB_MAX_BYTES: Final = 1 << 44
CHUNK_BYTES: Final = 8 * MIB
CHUNK_MIN_BYTES: Final = 4096
CHUNK_MAX_BYTES: Final = 64 * MIB
VERSION_MAX: Final = 1 << 31

MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Model and file names: one path segment, use with `fullmatch`."""
VERSION: Final = re.compile(r"[1-9][0-9]{0,9}")
"""Versions: integers as strings, no leading zero; `is_version` also checks the upper bound."""
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
"""BLAKE3 in lowercase hex, use with `fullmatch`."""

DATATYPES: Final = frozenset(
    {"BOOL", "BYTES", "FP16", "FP32", "FP64"}
    | {f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
)
"""Tensor datatypes by their Open Inference Protocol v2 names."""
CUSTOM_OPS: Final = frozenset({"onnxruntime-extensions"})
"""Operator libraries that a worker may be told to load."""

Task = Literal["tensors", "embedding", "bytes-classification"]
Role = Literal["graph", "weights", "aux"]

_Segment = Annotated[str, Meta(pattern=rf"\A{MODEL_NAME.pattern}\Z")]
_Digest = Annotated[str, Meta(pattern=rf"\A{DIGEST.pattern}\Z")]
_Version = Annotated[str, Meta(pattern=rf"\A{VERSION.pattern}\Z")]
_Bytes = Annotated[int, Meta(ge=1, le=BLOB_MAX_BYTES)]
_Region = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9-]{0,31}\Z")]
_Text = Annotated[str, Meta(max_length=1024)]
_TensorName = Annotated[str, Meta(min_length=1, max_length=256)]
_Dim = Annotated[int, Meta(ge=-1, le=1 << 40)]


class ManifestError(EdgeError):
    """A manifest or catalogue that must not be used: BLOB_CORRUPT or NO_CATALOGUE, upstream's fault."""


class TensorSpec(Struct, frozen=True):
    """One input or output as clients see it; -1 in `shape` is "any"."""

    name: _TensorName
    datatype: Annotated[str, Meta(max_length=16)]
    shape: Annotated[tuple[_Dim, ...], Meta(max_length=16)]


class BlobFile(Struct, frozen=True):
    """One file of a model; its blob is named by `blake3`.

    `chunks[i]` is the BLAKE3 of bytes `i * chunk_bytes` up to the next chunk or the end.
    `sha256` is there for other stores' tools; the gate is `blake3` and `chunks`.
    """

    role: Role
    name: _Segment
    size_bytes: _Bytes
    blake3: _Digest
    sha256: _Digest
    chunks: tuple[_Digest, ...]
    chunk_bytes: Annotated[int, Meta(ge=CHUNK_MIN_BYTES, le=CHUNK_MAX_BYTES)] = CHUNK_BYTES


class Manifest(Struct, frozen=True):
    """Everything a node needs to know to fetch, load and serve one version of a model.

    `batch_axis` is 0 (axis 0 of every input and output is the batch) or None (never
    batched, `max_batch` is 1). `device_bytes` is the memory the loaded sessions need.
    """

    schema: Literal[1]
    name: _Segment
    version: _Version
    task: Task
    files: Annotated[tuple[BlobFile, ...], Meta(min_length=1, max_length=MANIFEST_MAX_FILES)]
    inputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1, max_length=64)]
    outputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1, max_length=64)]
    batch_axis: Literal[0] | None
    max_batch: Annotated[int, Meta(ge=1, le=4096)]
    device_bytes: Annotated[int, Meta(ge=0, le=BLOB_MAX_BYTES)]
    licence: _Text
    source: _Text
    labels: Annotated[dict[_Segment, _Text], Meta(max_length=64)]
    custom_ops: Annotated[tuple[_Segment, ...], Meta(max_length=8)] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.files)

    def file(self, name: str) -> BlobFile:
        """The file called `name`; KeyError if there is none."""
        for file in self.files:
            if file.name == name:
                return file
        raise KeyError(name)


class CatalogueModel(Struct, frozen=True, omit_defaults=True):
    """One model's versions: version -> manifest digest; `current` is the one served by default.

    `sizes` are bytes of all files by version. `confine` names the regions where it may run,
    empty for all; `keep` how many nodes of a region have it on their disks from its publication on.
    """

    current: _Version
    versions: Annotated[dict[_Version, _Digest], Meta(min_length=1, max_length=MODEL_MAX_VERSIONS)]
    sizes: Annotated[dict[_Version, _Bytes], Meta(max_length=MODEL_MAX_VERSIONS)] = {}
    confine: Annotated[tuple[_Region, ...], Meta(max_length=64)] = ()
    keep: Annotated[dict[_Region, Annotated[int, Meta(ge=1, le=64)]], Meta(max_length=64)] = {}


class Catalogue(Struct, frozen=True):
    """What is served: model name -> versions. A change is a higher `epoch`."""

    epoch: Annotated[int, Meta(ge=0, le=(1 << 62))]
    models: dict[_Segment, CatalogueModel]


# What each task demands of a manifest: the names of its graphs and aux files (exactly these;
# weights are free), then the datatypes of inputs and outputs (None: as the graph has them).
_NEEDS: Final[dict[str, tuple[set[str], set[str], list[str] | None, list[str] | None]]] = {
    "tensors": ({"graph"}, set(), None, None),
    "embedding": ({"encoder", "tokenizer"}, set(), ["BYTES"], ["FP32"]),
    "bytes-classification": ({"graph"}, {"labels"}, ["BYTES"], ["BYTES", "FP32"]),
}


def is_model_name(text: str) -> bool:
    """May `text` name a model?"""
    return MODEL_NAME.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Is `text` a version: "1" to "2147483648", no sign, no leading zero?"""
    return VERSION.fullmatch(text) is not None and int(text) <= VERSION_MAX


def digest(raw: bytes) -> str:
    """BLAKE3 of `raw`, 64 lowercase hex digits: the name of a blob or manifest."""
    return str(blake3(raw).hexdigest())


def encode(manifest: Manifest) -> bytes:
    """Canonical JSON of a manifest; equal manifests give equal bytes, hence equal digests."""
    return msgspec.json.encode(manifest, order="sorted")


def encode_catalogue(catalogue: Catalogue) -> bytes:
    """Canonical JSON of a catalogue."""
    return msgspec.json.encode(catalogue, order="sorted")


def decode(raw: bytes, *, expect_digest: str | None) -> Manifest:
    """Bytes from an origin or a disk -> a manifest whose every promise has been checked.

    `expect_digest` is the name the bytes were asked by; None only where they have none yet.
    Raises ManifestError(BLOB_CORRUPT): wrong size, wrong digest, not JSON, or a wrong value.
    """
    label = f"manifest {expect_digest or 'without digest'}"
    if len(raw) > MANIFEST_MAX_BYTES:
        raise _corrupt(f"{label} has {len(raw)} bytes; at most {MANIFEST_MAX_BYTES} are allowed")
    if expect_digest is not None and digest(raw) != expect_digest:
        raise _corrupt(f"{label} has content of digest {digest(raw)}; fetch it again or publish it again")
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _corrupt(f"{label} is not a valid manifest: {error}") from error
    for complaint in _complaints(manifest):
        raise _corrupt(f"{label} ({manifest.name} version {manifest.version}): {complaint}")
    return manifest


def decode_catalogue(raw: bytes) -> Catalogue:
    """Bytes of `catalog.json` -> a checked catalogue.

    Raises ManifestError(NO_CATALOGUE); the caller goes on with the last good one if it has one.
    """
    if len(raw) > CATALOGUE_MAX_BYTES:
        raise _no_catalogue(f"it has {len(raw)} bytes; at most {CATALOGUE_MAX_BYTES} are allowed")
    try:
        catalogue = msgspec.json.decode(raw, type=Catalogue)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _no_catalogue(str(error)) from error
    if len(catalogue.models) > CATALOGUE_MAX_MODELS:
        raise _no_catalogue(f"{len(catalogue.models)} models; at most {CATALOGUE_MAX_MODELS} are allowed")
    for name, model in catalogue.models.items():
        for version in model.versions:
            if not is_version(version):
                raise _no_catalogue(f"model {name} has version {version}; the highest is {VERSION_MAX}")
        if model.current not in model.versions:
            raise _no_catalogue(f"model {name} has no version {model.current}, which it calls current")
    return catalogue


def _complaints(manifest: Manifest) -> Iterable[str]:
    """What the types alone can't say; nothing at all for a good manifest."""
    if not is_version(manifest.version):
        yield f"version {manifest.version} is above {VERSION_MAX}"
    for op in manifest.custom_ops:
        if op not in CUSTOM_OPS:
            yield f"custom_ops names {op!r}; only {', '.join(sorted(CUSTOM_OPS))} is allowed"
    yield from _file_complaints(manifest)
    yield from _tensor_complaints("inputs", manifest.inputs, manifest)
    yield from _tensor_complaints("outputs", manifest.outputs, manifest)
    if manifest.batch_axis is None and manifest.max_batch != 1:
        yield f"max_batch is {manifest.max_batch} but batch_axis is null; without an axis it must be 1"


def _file_complaints(manifest: Manifest) -> Iterable[str]:
    yield from (f"two files are called {name!r}" for name in _twice(f.name for f in manifest.files))
    graphs, aux, _, _ = _NEEDS[manifest.task]
    for role, needed in (("graph", graphs), ("aux", aux)):
        got = {file.name for file in manifest.files if file.role == role}
        if got != needed:
            yield f"task {manifest.task} needs {role} files {sorted(needed)}, the manifest has {sorted(got)}"
    for file in manifest.files:
        wanted = -(-file.size_bytes // file.chunk_bytes)
        if len(file.chunks) != wanted:
            yield (
                f"file {file.name} of {file.size_bytes} bytes in chunks of {file.chunk_bytes} has {wanted} "
                f"chunks, the manifest lists {len(file.chunks)}"
            )
        elif wanted == 1 and file.chunks[0] != file.blake3:
            yield f"file {file.name} is one chunk, but that chunk's digest is not the file's"


def _tensor_complaints(side: str, tensors: tuple[TensorSpec, ...], manifest: Manifest) -> Iterable[str]:
    yield from (f"two {side} are called {name!r}" for name in _twice(t.name for t in tensors))
    needed = _NEEDS[manifest.task][2 if side == "inputs" else 3]
    got = [tensor.datatype for tensor in tensors]
    if needed is not None and got != needed:
        yield f"task {manifest.task} needs {side} of {needed}, the manifest has {got}"
    for tensor in tensors:
        if tensor.datatype not in DATATYPES:
            yield f"{side} {tensor.name!r} has datatype {tensor.datatype!r}, not one of {sorted(DATATYPES)}"
        if manifest.batch_axis == 0 and tensor.shape[:1] != (-1,):
            yield f"{side} {tensor.name!r} has shape {list(tensor.shape)}; batch_axis 0 needs -1 in front"


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _corrupt(message: str) -> ManifestError:
    return ManifestError(Reason.BLOB_CORRUPT, message, source=Source.UPSTREAM)


def _no_catalogue(what: str) -> ManifestError:
    message = f"the catalogue is not valid: {what}"
    return ManifestError(Reason.NO_CATALOGUE, message, source=Source.UPSTREAM)
