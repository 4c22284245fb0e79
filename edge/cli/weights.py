"""`popctl` for weights: what lies where, bring it near, keep it, let it go."""

from pathlib import Path
from typing import Any, Final

import click

from edge.cli.node import asked, node_options, show

#: Bringing a model may take as long as its origin needs.
BRING_S: Final = 600.0


@click.command()
@node_options
def weights(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """The node's weight store: budgets, the region's index, and every model on its disk."""
    answer = asked("GET", "/edge/weights", config_path, socket_path)
    show(answer if as_json else answer.get("weights", answer), as_json=as_json)


@click.group()
def models() -> None:
    """What a running node serves."""


@models.command("ls")
@node_options
def models_ls(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """Every model of the catalogue, and where it lies."""
    answer = asked("GET", "/edge/models", config_path, socket_path)
    show(answer if as_json else answer.get("models", answer), as_json=as_json)


@models.command("show")
@click.argument("name")
@node_options
def models_show(config_path: Path | None, socket_path: Path | None, *, as_json: bool, name: str) -> None:
    """One model: its versions, where they lie, what it takes and gives."""
    show(asked("GET", _path(name), config_path, socket_path), as_json=as_json)


def _path(name: str, act: str = "") -> str:
    from urllib.parse import quote

    return f"/edge/models/{quote(name, safe='')}" + (f"/{act}" if act else "")


def _act(name: str, help_text: str, act: str, *, tier: str | None, fixed: dict[str, Any]) -> None:
    """One command that posts to the node; `tier` is the default of --tier, None for a command without."""

    def run(config_path: Path | None, socket_path: Path | None, *, as_json: bool, **wanted: Any) -> None:
        model = wanted.pop("name")
        body = {**{key: value for key, value in wanted.items() if value}, **fixed}
        answer = asked("POST", _path(model, act), config_path, socket_path, body, timeout_s=BRING_S)
        show(answer, as_json=as_json)

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

WEIGHTS: Final = (weights, models)
