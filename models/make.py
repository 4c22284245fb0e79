"""catalog.yaml -> a store that can be served: fetch, check, build and publish what changed.

The order of one model's life; each stage lives in the file of its name. Knows neither
packages' contents nor ONNX nor how progress is shown.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from edge.weights import manifest as mf
from models import fetch
from models.catalog import Catalog, Entry
from models.errors import CatalogError, GraphError, PublishError
from models.publish import Placement, Store

_HERE: Final = Path(__file__).parent
_APACHE: Final = _HERE.parent / "LICENSE"


class Report(Protocol):
    """Where progress goes."""

    def stage(self, model: str, stage: str, total_bytes: int | None) -> None:
        """`model` enters `stage`, which will move `total_bytes` if that is known."""

    def advance(self, done_bytes: int) -> None:
        """So many more bytes are done in this stage."""


class Outcome(NamedTuple):
    """What became of the catalogue: models made anew, models that were there, the epoch."""

    made: list[str]
    unchanged: list[str]
    catalogue: mf.Catalogue
    changed: bool


def make(
    catalog: Catalog, store_path: Path, only: Sequence[str], report: Report, cache: Path = fetch.CACHE_PATH
) -> Outcome:
    """Bring the store up to date with the catalogue, or with `only` these models of it.

    Doing it twice does nothing the second time. Raises CatalogError, FetchError,
    GraphError or PublishError; what was published before stays as it was.
    """
    names = list(dict.fromkeys(only)) or list(catalog.entries)
    for name in names:
        if name not in catalog.entries:
            near = difflib.get_close_matches(name, catalog.entries, 1) or list(catalog.entries)
            raise CatalogError(f"{catalog.path}: no model {name!r}; write {' or '.join(near)}")
    made: list[str] = []
    with Store.open(store_path) as store:
        for name in names:
            recipe = _recipe(catalog, name)
            if not store.holds(name, recipe):
                _make_one(catalog, name, store, recipe, report, cache)
                made.append(name)
        placed = {name: _placement(catalog.entries[name]) for name in names}
        catalogue, changed = store.announce(placed, keep_others=bool(only))
    return Outcome(made, [name for name in names if name not in made], catalogue, changed)


def _make_one(catalog: Catalog, name: str, store: Store, recipe: str, report: Report, cache: Path) -> None:
    # Here and not above: onnx takes 0.3 s to import, and a run that changes nothing needs none of it.
    from models import build

    entry = catalog.entries[name]
    if entry.builder not in build.BUILDERS:
        raise catalog.complaint(
            name, "builder", f"is {entry.builder!r}; known are {', '.join(build.BUILDERS)}"
        )
    if entry.package is not None:
        report.stage(name, f"files of {entry.package}", None)
    sources = fetch.fetch(catalog, name, cache)
    with store.workplace() as folder:
        report.stage(name, "build", entry.size_bytes)
        try:
            manifest = build.build(name, entry, sources, folder, report.advance)
            report.stage(name, "publish", None)
            store.put(manifest, folder, _licence(catalog, name, cache), recipe)
        except (CatalogError, GraphError) as error:
            line = catalog.lines.get((name,), 1)
            raise type(error)(f"{catalog.path}: line {line}: {name}: {error}") from error
        except mf.ManifestError as error:
            raise PublishError(f"{name}: nodes would refuse it: {error.message}") from error


def _placement(entry: Entry) -> Placement:
    return Placement(entry.confine, entry.keep)


def _recipe(catalog: Catalog, name: str) -> str:
    """Digest of all that decides a model's bytes: its entry without its placement, and the code."""
    entry = msgspec.structs.replace(catalog.entries[name], confine=(), keep={})
    code = b"".join(path.read_bytes() for path in [*sorted(_HERE.glob("*.py")), Path(mf.__file__)])
    return mf.digest(msgspec.json.encode(entry, order="sorted") + code)


def _licence(catalog: Catalog, name: str, cache: Path) -> str:
    """The model's licence, whom it came from, and the texts that came with it."""
    entry = catalog.entries[name]
    parts = [f"{name}: {entry.licence}. Source: {entry.package or 'made by this project'}."]
    if entry.package is not None:
        parts.append((fetch.folder_of(entry.package, cache) / "LICENCE.txt").read_text())
    if entry.licence == "Apache-2.0" and _APACHE.is_file():
        parts.append(_APACHE.read_text())
    return "\n\n".join(parts)
