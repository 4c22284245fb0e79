"""`popctl`: run a node, and ask a running one.

stdout carries data only; what went wrong is one line on stderr, and the exit status says
which kind: 0 done, 1 failed, 2 wrong usage, 3 something is missing on this machine, 4 not
found, 6 no answer in time, 130 interrupted. Heavy imports wait until a command needs them.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import click

FAILURE, USAGE, NOT_FOUND, TIMEOUT, INTERRUPTED = 1, 2, 4, 6, 130
ASK_TIMEOUT_S: Final = 10.0


def fail(message: str, status: int) -> NoReturn:
    """Say it on stderr and leave with `status`."""
    click.echo(f"popctl: {message}", err=True)
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Run an edgepop node, and ask a running one."""


def _node_options(command: Any) -> Any:
    """The options of every command that talks to a running node."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="JSON instead of text."),
        click.option("--socket", "socket_path", type=Path, help="The node's admin.sock."),
        click.option(
            "-c", "--config", "config_path", type=Path, help="The node's file, which names run_dir."
        ),
    ):
        command = option(command)
    return command


@commands.command()
@click.option(
    "-c", "--config", "config_path", type=Path, required=True, help="The node's file, see edge/node.yaml."
)
def serve(config_path: Path) -> None:
    """Run a node in the foreground until SIGTERM or SIGINT."""
    config = _load(config_path)
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
    _show(found, as_json=as_json)


@commands.command()
@_node_options
def status(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """What a running node says of itself: processes, announcement, endpoints, weights."""
    _show(_ask("GET", "/edge/state", config_path, socket_path), as_json=as_json)


@commands.group()
def models() -> None:
    """What a running node serves."""


@models.command("ls")
@_node_options
def models_ls(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """Every model of the catalogue, and where it lies."""
    answer = _ask("GET", "/edge/models", config_path, socket_path)
    if not as_json and isinstance(answer, dict):
        answer = answer.get("models", answer)
    _show(answer, as_json=as_json)


@commands.command()
@_node_options
def withdraw(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """Stop attracting clients until `announce`; running requests end as they may."""
    _show(_ask("POST", "/edge/withdraw", config_path, socket_path), as_json=as_json)


@commands.command()
@_node_options
def announce(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """Attract clients again, as soon as the proxy is well."""
    _show(_ask("POST", "/edge/announce", config_path, socket_path), as_json=as_json)


def _load(path: Path) -> Any:
    from edge.config_file import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        fail(str(error), FAILURE)


def _own_version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("edgepop")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _ask(method: str, path: str, config_path: Path | None, socket_path: Path | None) -> Any:
    """The node's JSON answer; any other outcome ends the program with its status."""
    if (config_path is None) == (socket_path is None):
        fail("give either -c FILE or --socket PATH, to say which node", USAGE)
    if config_path is not None:
        socket_path = Path(_load(config_path).run_dir) / "admin.sock"
    from edge.cli.ask import AskError, ask

    try:
        return ask(str(socket_path), method, path, timeout_s=ASK_TIMEOUT_S)
    except FileNotFoundError:
        fail(f"no node runs here: {socket_path} is not there", NOT_FOUND)
    except TimeoutError:
        fail(f"the node did not answer within {ASK_TIMEOUT_S:.0f} s", TIMEOUT)
    except AskError as error:
        fail(str(error), NOT_FOUND if error.status == 404 else FAILURE)
    except PermissionError:
        fail(
            f"{socket_path} is closed to uid {os.getuid()}; run this as root or in the proxy's group", FAILURE
        )
    except OSError as error:
        fail(f"{socket_path}: {error.strerror or error}", FAILURE)


def _show(answer: Any, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer))
        return
    from edge.cli.show import text

    click.echo(text(answer), nl=False)


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
