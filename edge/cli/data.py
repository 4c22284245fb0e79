"""`popctl data push|show`: objects that requests name instead of sending them. No node is asked."""

import threading
from pathlib import Path
from typing import Final

import click

from edge.cli.node import FAILURE, NOT_FOUND, fail, tell
from edge.cli.progress import progress
from edge.cli.publish import interruptible, origin_options, origin_url, verify_option


@click.group()
def data() -> None:
    """Objects in an origin, which requests name as {"object": NAME}."""


@data.command()
@click.argument("file", type=Path)
@click.argument("name")
@verify_option
@origin_options
def push(
    file: Path, name: str, config_path: Path | None, origin: str | None, *, verify: bool, as_json: bool
) -> None:
    """Publish FILE as the object NAME; nodes read the new one within seconds."""
    from edge.errors import EdgeError
    from edge.weights.publish_objects import ObjectPublisher

    url, stop = origin_url(config_path, origin), threading.Event()
    with progress() as report:
        try:
            publisher = ObjectPublisher(url, stop=stop, report=report, verify=verify)
            done = interruptible(lambda: publisher.push_object(file, name), stop)
        except EdgeError as error:
            fail(error.message, FAILURE)
    told = {
        "schema_version": 1,
        "origin": url,
        "object": name,
        "changed": done.changed,
        "bytes": done.entry.size_bytes,
        "uploaded_bytes": done.uploaded_bytes,
        "blake3": done.entry.blake3,
        "sha256": done.entry.sha256,
    }
    if not as_json:
        told.pop("schema_version")
    tell(told, as_json=as_json)


@data.command()
@click.argument("name")
@origin_options
def show(name: str, config_path: Path | None, origin: str | None, *, as_json: bool) -> None:
    """The object NAME as the origin has it."""
    from edge.errors import EdgeError
    from edge.weights.publish_objects import ObjectPublisher

    url, stop = origin_url(config_path, origin), threading.Event()
    with progress() as report:
        try:
            publisher = ObjectPublisher(url, stop=stop, report=report)
            entry = interruptible(lambda: publisher.show_object(name), stop)
        except EdgeError as error:
            fail(error.message, NOT_FOUND if error.status == 404 else FAILURE)
    told = {
        "object": entry.name,
        "bytes": entry.size_bytes,
        "chunks": len(entry.chunks),
        "blake3": entry.blake3,
        "sha256": entry.sha256,
    }
    tell({"schema_version": 1, **told} if as_json else told, as_json=as_json)


DATA: Final = (data,)
