"""`popctl models push|rollout|rollback|retire`: what an origin serves. No node is asked."""

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from edge.cli.node import FAILURE, INTERRUPTED, NOT_FOUND, USAGE, fail, load_config, tell
from edge.cli.progress import progress

if TYPE_CHECKING:
    from edge.weights.publish import Published, Publisher

#: After Ctrl-C a request that is under way gets this long to end.
LEAVE_S: Final = 3.0


T = TypeVar("T")


def origin_options(command: Any) -> Any:
    """Which origin, and how to tell what came of it."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="JSON instead of text."),
        click.option(
            "--origin", help="s3://, gs://, az:// or file:// URL; rights as their own tools take them."
        ),
        click.option(
            "-c", "--config", "config_path", type=Path, help="A node's file, which names its origin."
        ),
    ):
        command = option(command)
    return command


#: For who sends blobs.
verify_option: Final = click.option(
    "--verify", is_flag=True, help="Read what the origin has, and send again what is damaged there."
)


@click.command()
@click.argument("store", type=Path)
@click.argument("names", nargs=-1)
@click.option("--current", help="The version to serve of the one model named; without, what STORE serves.")
@verify_option
@click.option(
    "--epoch-above",
    metavar="EPOCH",
    type=click.IntRange(0, 1 << 61),
    default=0,
    help="Publish as a higher epoch than this: where the origin was made anew and nodes hold this one.",
)
@origin_options
def push(
    store: Path,
    names: tuple[str, ...],
    current: str | None,
    config_path: Path | None,
    origin: str | None,
    *,
    verify: bool,
    epoch_above: int,
    as_json: bool,
) -> None:
    """Upload models of the folder STORE, all or NAMES, and serve them.

    STORE is what `python -m models make` wrote, or a Triton-style model repository, or one model of it:
    <model>/config.pbtxt and <version>/model.onnx with its external data beside. What the origin has is
    not sent again. Two publishers at a time don't overwrite each other.
    """
    from edge.cli.triton import is_repository, make_store

    def change(to: "Publisher") -> "Published":
        if not is_repository(store):
            return to.push(store, names, current, epoch_above=epoch_above)
        with tempfile.TemporaryDirectory(prefix="popctl-push-") as folder:
            make_store(store, names, Path(folder))
            # A repository says nothing of places: what the origin's catalogue says of them stays.
            return to.push(Path(folder), names, current, keep_placement=True, epoch_above=epoch_above)

    _published(change, config_path, origin, as_json=as_json, verify=verify)


@click.command()
@click.argument("name")
@click.argument("version")
@origin_options
def rollout(name: str, version: str, config_path: Path | None, origin: str | None, *, as_json: bool) -> None:
    """Serve VERSION of model NAME, which the origin has, by default."""
    _published(lambda to: to.rollout(name, version), config_path, origin, as_json=as_json)


@click.command()
@click.argument("name", required=False)
@click.option("--to-version", help="That version of NAME; without, the one served before.")
@click.option("--to-epoch", type=click.IntRange(1), help="The whole catalogue of that epoch.")
@origin_options
def rollback(
    name: str | None,
    to_version: str | None,
    to_epoch: int | None,
    config_path: Path | None,
    origin: str | None,
    *,
    as_json: bool,
) -> None:
    """Serve what was served before, of model NAME or of all: its content under a new epoch."""
    if to_epoch is not None and (name is not None or to_version is not None):
        fail("--to-epoch takes back the whole catalogue: name no model with it", USAGE)
    if name is None:
        if to_version is not None:
            fail("--to-version is one model's: name it", USAGE)
        _published(lambda to: to.restore(to_epoch), config_path, origin, as_json=as_json)
    elif to_version is not None:
        version = to_version
        _published(lambda to: to.rollout(name, version), config_path, origin, as_json=as_json)
    else:
        _published(lambda to: to.rollback(name), config_path, origin, as_json=as_json)


@click.command()
@click.argument("name")
@click.argument("versions", nargs=-1)
@click.option("--keep-last", type=click.IntRange(1), help="All but the highest so many, and the one served.")
@click.option("--all", "whole", is_flag=True, help="The model with all its versions.")
@origin_options
def retire(
    name: str,
    versions: tuple[str, ...],
    keep_last: int | None,
    config_path: Path | None,
    origin: str | None,
    *,
    whole: bool,
    as_json: bool,
) -> None:
    """Take VERSIONS of model NAME out of the catalogue: nodes serve them no more, `gc` lets them go.

    What they consist of stays in the origin, so that `rollback --to-epoch` can bring them back.
    """
    if (bool(versions), keep_last is not None, whole).count(True) != 1:
        fail("give VERSIONS, --keep-last or --all, to say what of the model goes", USAGE)
    _published(lambda to: to.retire(name, versions, keep_last), config_path, origin, as_json=as_json)


PUBLISH: Final = (push, rollout, rollback, retire)


def _published(
    change: "Callable[[Publisher], Published]",
    config_path: Path | None,
    origin: str | None,
    *,
    as_json: bool,
    verify: bool = False,
) -> None:
    """Make one change and say what came of it; any failure ends the program with its status."""
    origin = origin_url(config_path, origin)
    from edge.errors import EdgeError
    from edge.weights.publish import Publisher

    stop = threading.Event()
    with progress() as report:
        try:
            publisher = Publisher(origin, stop=stop, report=report, verify=verify)
            done = interruptible(lambda: change(publisher), stop)
        except EdgeError as error:
            fail(error.message, NOT_FOUND if error.status == 404 else FAILURE)
    told = {
        "schema_version": 1,
        "origin": origin,
        "epoch": done.epoch,
        "changed": done.changed,
        "uploaded": done.uploaded,
        "uploaded_bytes": done.uploaded_bytes,
        "models": [{"model": name, "version": model.current} for name, model in sorted(done.models.items())],
    }
    if not as_json:
        told.pop("schema_version")
        if not done.changed:
            sent = "; what it lacked was sent" if done.uploaded else ""
            told["changed"] = f"no: the origin serves this already{sent}"
    tell(told, as_json=as_json)


def origin_url(config_path: Path | None, origin: str | None) -> str:
    """What `origin_options` say; without either, the program ends."""
    if origin is not None:
        return origin
    if config_path is None:
        fail("give --origin URL, or -c FILE of a node that has it", USAGE)
    return str(load_config(config_path).weights.origin)


def interruptible(work: Callable[[], T], stop: threading.Event) -> T:
    """`work` in a thread, so that Ctrl-C is heard while the library waits for the network."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 -- raised again by the one who waits
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
    except KeyboardInterrupt:
        stop.set()
        thread.join(LEAVE_S)
        click.echo("popctl: interrupted: nothing is served that was not served before", err=True)
        if thread.is_alive():
            # It waits in a library that a dying interpreter can't end.
            import os

            os._exit(INTERRUPTED)
        raise
    if failed:
        raise failed[0]
    return done[0]
