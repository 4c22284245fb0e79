"""`python -m models`: make what catalog.yaml asks for, list it, serve another version of it.

Results go to stdout, progress and errors to stderr. Exit 0 done, 1 failed, 2 wrong usage.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from edge.weights.manifest import Catalogue
from models import catalog as catalogue_file
from models.errors import ModelError
from models.make import make
from models.progress import reporter
from models.publish import STORE_PATH, Store

_STORE = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=STORE_PATH,
    help="The origin's folder.",
)
_CATALOG = click.option(
    "--catalog",
    type=click.Path(path_type=Path, dir_okay=False),
    default=catalogue_file.CATALOG_PATH,
    help="The catalogue to read.",
)


@click.group()
def main() -> None:
    """Fetch, build and publish the models that a fleet serves."""


@main.command("make")
@_STORE
@_CATALOG
@click.option("--only", multiple=True, metavar="NAME", help="Only this model; may be given again.")
def make_command(store: Path, catalog: Path, only: tuple[str, ...]) -> None:
    """Publish what changed; a second run does nothing."""
    try:
        with reporter() as report:
            outcome = make(catalogue_file.load(catalog), store, only, report)
    except (ModelError, OSError) as error:
        _fail(error)
    for name in outcome.made:
        model = outcome.catalogue.models[name]
        click.echo(f"{name}: published, manifest {model.versions[model.current]}")
    counts = f"{len(outcome.made)} made, {len(outcome.unchanged)} as before"
    if not outcome.made and not outcome.changed:
        counts = f"nothing to do, {len(outcome.unchanged)} models as before"
    click.echo(f"{counts}; epoch {outcome.catalogue.epoch} in {store}")


@main.command("list")
@_STORE
@_CATALOG
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
def list_command(store: Path, catalog: Path, as_json: bool) -> None:
    """Show what the catalogue asks for and what the store holds."""
    try:
        entries = catalogue_file.load(catalog).entries
        published = Store(store).catalogue()
    except (ModelError, OSError) as error:
        _fail(error)
    rows = [
        {
            "model": name,
            "version": entry.version,
            "builder": entry.builder,
            "licence": entry.licence,
            "package": entry.package or "",
            "manifest": _manifest_of(published, name, entry.version),
        }
        for name, entry in entries.items()
    ]
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "epoch": published.epoch, "models": rows}, indent=2))
        return
    for row in [{key: key.upper() for key in rows[0]}, *rows]:
        manifest = row["manifest"] or "not made yet"
        click.echo(
            f"{row['model']:<16} {row['version']:<8} {row['builder']:<10} {row['licence']:<12} "
            f"{row['package'] or '-':<28} {manifest}"
        )


@main.command("rollout")
@_STORE
@click.argument("model")
@click.argument("version")
def rollout_command(store: Path, model: str, version: str) -> None:
    """Serve this published version of a model by default, until the next make."""
    _serve(store, model, lambda opened: opened.rollout(model, version))


@main.command("rollback")
@_STORE
@click.argument("model")
def rollback_command(store: Path, model: str) -> None:
    """Serve the version below the present one, until the next make."""
    _serve(store, model, lambda opened: opened.rollback(model))


def _serve(store: Path, model: str, change: Callable[[Store], Catalogue]) -> None:
    try:
        with Store.open(store) as opened:
            catalogue = change(opened)
    except (ModelError, OSError) as error:
        _fail(error)
    click.echo(
        f"{model}: version {catalogue.models[model].current} is served; epoch {catalogue.epoch} in {store}"
    )


def _manifest_of(published: Catalogue, name: str, version: str) -> str:
    model = published.models.get(name)
    return "" if model is None else model.versions.get(version, "")


def _fail(error: Exception) -> NoReturn:
    click.echo(f"models: {error}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
