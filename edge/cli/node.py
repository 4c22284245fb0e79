"""Which node a command means, how it is asked, and how its answer is shown. Knows no command."""

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


def node_options(command: Any) -> Any:
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


def load_config(path: Path) -> Any:
    """The node's configuration; a file that can't be used ends the program."""
    from edge.config_file import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        fail(str(error), FAILURE)


def asked(
    method: str,
    path: str,
    config_path: Path | None,
    socket_path: Path | None,
    body: Any = None,
    *,
    timeout_s: float = ASK_TIMEOUT_S,
) -> Any:
    """The node's JSON answer; any other outcome ends the program with its status."""
    if (config_path is None) == (socket_path is None):
        fail("give either -c FILE or --socket PATH, to say which node", USAGE)
    if config_path is not None:
        socket_path = Path(load_config(config_path).run_dir) / "admin.sock"
    from edge.cli.ask import AskError, ask

    try:
        return ask(str(socket_path), method, path, body, timeout_s=timeout_s)
    except FileNotFoundError:
        fail(f"no node runs here: {socket_path} is not there", NOT_FOUND)
    except TimeoutError:
        fail(f"the node did not answer within {timeout_s:.0f} s", TIMEOUT)
    except AskError as error:
        fail(str(error), NOT_FOUND if error.status == 404 else FAILURE)
    except PermissionError:
        fail(
            f"{socket_path} is closed to uid {os.getuid()}; run this as root or in the proxy's group", FAILURE
        )
    except OSError as error:
        fail(f"{socket_path}: {error.strerror or error}", FAILURE)


def show(answer: Any, *, as_json: bool) -> None:
    """An answer as text for people, or as it came."""
    if as_json:
        click.echo(json.dumps(answer))
        return
    from edge.cli.show import text

    click.echo(text(answer), nl=False)
