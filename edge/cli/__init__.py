"""`popctl`: run a node, and ask a running one.

stdout carries data only; what went wrong is one line on stderr, and the exit status says
which kind: 0 done, 1 failed, 2 wrong usage, 3 something is missing on this machine, 4 not
found, 5 damage was found and repaired, 6 no answer in time, 130 interrupted. Heavy imports
wait until a command needs them.
"""

import sys
from pathlib import Path

import click

from edge.cli.data import DATA
from edge.cli.node import FAILURE, INTERRUPTED, USAGE, load_config, tell
from edge.cli.operate import OPERATE
from edge.cli.weights import WEIGHTS


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Run an edgepop node, and ask a running one."""


@commands.command()
@click.option(
    "-c", "--config", "config_path", type=Path, required=True, help="The node's file, see edge/node.yaml."
)
def serve(config_path: Path) -> None:
    """Run a node in the foreground until SIGTERM or SIGINT."""
    config = load_config(config_path)
    from edge.parent.tree import serve as serve_node

    sys.exit(serve_node(config))


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def version(*, as_json: bool) -> None:
    """Versions of edgepop and of what it stands on."""
    import importlib.metadata
    import platform

    found = {"edgepop": _own_version(), "python": platform.python_version()}
    for package in ("aiohttp", "onnxruntime-gpu", "uvloop"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    tell(found, as_json=as_json)


def _own_version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("edgepop")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


for _command in (*OPERATE, *WEIGHTS, *DATA):
    commands.add_command(_command)


def main() -> None:
    """The entry point of `popctl`."""
    try:
        commands.main(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(FAILURE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
