"""`popctl` for weights: what lies where, bring it near, keep it, let it go."""

from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from edge.cli import tables
from edge.cli.care import CARE, weight_store
from edge.cli.node import FAILURE, Node, fail, node_options, tell
from edge.cli.progress import progress
from edge.cli.publish import PUBLISH

#: Bringing a model may take as long as its origin needs.
BRING_S: Final = 660.0


@click.command()
@node_options
def weights(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """The node's weight store: budgets, the region's index, and every model here: where, why, last used."""
    answer = weight_store(Node(config_path, socket_path))
    tell(answer, as_json=as_json, as_text=tables.weights)


@click.group()
def models() -> None:
    """What a running node serves, and what its origin does."""


@models.command("ls")
@node_options
def models_ls(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """Every model of the catalogue, and where it lies."""
    tell(Node(config_path, socket_path).get("/edge/models"), as_json=as_json, as_text=tables.models)


@models.command("show")
@click.argument("name")
@node_options
def models_show(config_path: Path | None, socket_path: Path | None, *, as_json: bool, name: str) -> None:
    """One model: its versions, where they lie, what it takes and gives."""
    tell(Node(config_path, socket_path).get(_path(name)), as_json=as_json)


def _path(name: str, act: str = "") -> str:
    return f"/edge/models/{quote(name, safe='', errors='surrogateescape')}" + (f"/{act}" if act else "")


def _watched(node: Node, model: str, body: dict[str, Any]) -> Any:
    """A prefetch; meanwhile how far its node is. Ctrl-C ends the watching, not the fetch."""
    versions = node.get(_path(model))["versions"]
    wanted = body.get("version")
    chosen = [row for row in versions if (row["version"] == wanted if wanted else row["current"])]
    digest, size_bytes = (chosen[0]["digest"], chosen[0]["bytes"]) if chosen else ("", 0)
    try:
        with progress() as report:
            seen: list[int] = []

            def look(still: Node) -> None:
                done = _fetched_bytes(still, digest)
                if done is None:
                    return
                if not seen:
                    report.begins(f"{model} to {body['tier']}", size_bytes)
                report.moved(max(0, done - (seen[-1] if seen else 0)))
                seen.append(max(done, seen[-1] if seen else 0))

            return node.post_watching(_path(model, "prefetch"), body, look, timeout_s=BRING_S)
    except KeyboardInterrupt:
        click.echo("popctl: interrupted: the fetch goes on; popctl models ps tells how far it is", err=True)
        raise


def _fetched_bytes(node: Node, digest: str) -> int | None:
    told = node.try_get("/edge/weights") or {}
    row: dict[str, Any] = next((row for row in told.get("models", ()) if row["digest"] == digest), {})
    return row["fetch"]["bytes"] if row.get("fetch") else None


def _act(name: str, help_text: str, act: str, *, tier: str | None, fixed: dict[str, Any]) -> None:
    """One command that posts to the node; `tier` is the default of --tier, None for a command without."""

    def run(config_path: Path | None, socket_path: Path | None, *, as_json: bool, **wanted: Any) -> None:
        model = wanted.pop("name")
        body = {**{key: value for key, value in wanted.items() if value}, **fixed}
        node = Node(config_path, socket_path)
        if act == "prefetch" and not _elsewhere(body):
            answer = _watched(node, model, body)
        else:
            answer = node.post(_path(model, act), body, timeout_s=BRING_S)
        tell(answer, as_json=as_json)
        if any(row["outcome"] == "failed" for row in answer.get("nodes", ())):
            fail("not every node has it; ask again for those that failed", FAILURE)

    run.__doc__ = help_text
    command: Any = node_options(run)
    if tier is not None:
        command = click.option(
            "--tier", type=click.Choice(["disk", "device"]), default=tier, show_default=True
        )(command)
        command = click.option("--worker", default="", help="One worker: its name, or its number here.")(
            command
        )
    if act == "prefetch" and not fixed:
        command = click.option("--region", default="", help="To the disks of all nodes of a region.")(command)
        command = click.option(
            "--node", "nodes", multiple=True, help="To the disk of that node; may be repeated."
        )(command)
    command = click.option("--version", default="", help="Without, the current one.")(command)
    models.command(name)(click.argument("name")(command))


def _elsewhere(body: dict[str, Any]) -> bool:
    return bool(body.get("nodes") or body.get("region"))


_act("pull", "Bring a model to this node's disk.", "prefetch", tier=None, fixed={"tier": "disk"})
_act(
    "prefetch",
    "Bring a model to this node's disk or a device, or to the disks of other nodes.",
    "prefetch",
    tier="disk",
    fixed={},
)
_act(
    "evict",
    "Let a model go from the devices of this node, or from its disk.",
    "evict",
    tier="device",
    fixed={},
)
_act(
    "pin", "Keep a model on this node until `unpin`, over restarts.", "pin", tier=None, fixed={"pinned": True}
)
_act("unpin", "A pinned model may go again.", "pin", tier=None, fixed={"pinned": False})

for _command in (*CARE, *PUBLISH):
    models.add_command(_command)


WEIGHTS: Final = (weights, models)
