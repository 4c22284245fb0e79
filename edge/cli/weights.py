"""`popctl` for weights: what lies where, bring it near, keep it, let it go."""

from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from edge.cli import tables
from edge.cli.node import Node, node_options, tell
from edge.cli.progress import progress
from edge.cli.publish import PUBLISH

#: Bringing a model may take as long as its origin needs.
BRING_S: Final = 660.0


@click.command()
@node_options
def weights(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """The node's weight store: budgets, the region's index, and every model on its disk."""
    answer = Node(config_path, socket_path).get("/edge/weights")
    tell(answer if as_json else answer.get("weights", answer), as_json=as_json)


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
    return f"/edge/models/{quote(name, safe='')}" + (f"/{act}" if act else "")


def _watched(node: Node, model: str, body: dict[str, Any]) -> Any:
    """A prefetch, and how many bytes its node has fetched meanwhile."""
    versions = node.get(_path(model))["versions"]
    wanted = body.get("version")
    chosen = [row for row in versions if (row["version"] == wanted if wanted else row["current"])]
    before = _fetched_bytes(node)
    with progress() as report:
        seen: list[int] = [before]

        def look(still: Node) -> None:
            if len(seen) == 1:
                report.begins(f"{model} to {body['tier']}", chosen[0]["bytes"] if chosen else 0)
            fetched = _fetched_bytes(still)
            report.moved(max(0, fetched - seen[-1]))
            seen.append(max(fetched, seen[-1]))

        return node.post_watching(_path(model, "prefetch"), body, look, timeout_s=BRING_S)


def _fetched_bytes(node: Node) -> int:
    told = node.try_get("/edge/weights") or {}
    return int((told.get("weights") or {}).get("fetched_bytes", 0))


def _act(name: str, help_text: str, act: str, *, tier: str | None, fixed: dict[str, Any]) -> None:
    """One command that posts to the node; `tier` is the default of --tier, None for a command without."""

    def run(config_path: Path | None, socket_path: Path | None, *, as_json: bool, **wanted: Any) -> None:
        model = wanted.pop("name")
        body = {**{key: value for key, value in wanted.items() if value}, **fixed}
        node = Node(config_path, socket_path)
        if act == "prefetch":
            answer = _watched(node, model, body)
        else:
            answer = node.post(_path(model, act), body, timeout_s=BRING_S)
        tell(answer, as_json=as_json)

    run.__doc__ = help_text
    command: Any = node_options(run)
    if tier is not None:
        command = click.option(
            "--tier", type=click.Choice(["disk", "device"]), default=tier, show_default=True
        )(command)
        command = click.option("--worker", default="", help="One worker: its name, or its number here.")(
            command
        )
    command = click.option("--version", default="", help="Without, the current one.")(command)
    models.command(name)(click.argument("name")(command))


_act("prefetch", "Bring a model to this node's disk, or to a device.", "prefetch", tier="disk", fixed={})
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

for _command in PUBLISH:
    models.add_command(_command)


WEIGHTS: Final = (weights, models)
