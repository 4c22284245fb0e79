"""Which node a command means, how it is asked, and how its answer is shown. Knows no command."""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from edge import clock
from edge.cli.ask import AskError, ask

FAILURE, USAGE, NOT_FOUND, DAMAGED, TIMEOUT, INTERRUPTED = 1, 2, 4, 5, 6, 130
ASK_TIMEOUT_S: Final = 10.0
LOOK_S: Final = 0.25


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


class Node:
    """A running node, by its file or by its socket; what goes wrong ends the program with its status."""

    def __init__(self, config_path: Path | None, socket_path: Path | None) -> None:
        if (config_path is None) == (socket_path is None):
            fail("give either -c FILE or --socket PATH, to say which node", USAGE)
        if config_path is not None:
            socket_path = Path(load_config(config_path).run_dir) / "admin.sock"
        self._socket = str(socket_path)

    def get(self, path: str) -> Any:
        """The node's JSON."""
        with self._or_fail(ASK_TIMEOUT_S):
            return ask(self._socket, "GET", path, timeout_s=ASK_TIMEOUT_S)

    def post(self, path: str, body: Any = None, *, timeout_s: float = ASK_TIMEOUT_S) -> Any:
        """The node's JSON when it is done."""
        with self._or_fail(timeout_s):
            return ask(self._socket, "POST", path, body, timeout_s=timeout_s)

    def post_watching(self, path: str, body: Any, look: Callable[["Node"], None], *, timeout_s: float) -> Any:
        """As `post`; meanwhile `look` runs now and then, with a node that it may ask."""
        answers: list[Any] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                answers.append(ask(self._socket, "POST", path, body, timeout_s=timeout_s))
            except (AskError, OSError) as error:
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(LOOK_S)
            if thread.is_alive():
                look(self)
        with self._or_fail(timeout_s):
            if errors:
                raise errors[0]
        return answers[0]

    def try_get(self, path: str) -> Any:
        """The node's JSON, None when it can't be had now: a proxy that is replaced is away for a moment."""
        try:
            return ask(self._socket, "GET", path, timeout_s=ASK_TIMEOUT_S)
        except (AskError, OSError):
            return None

    def wait_until(
        self, path: str, over: Callable[[Any], bool], line: Callable[[Any], str], *, within_s: float
    ) -> Any:
        """What the node says at `path` once `over` it is; `line` tells how far it is, on stderr."""
        until_s = clock.now_s() + within_s
        pause = threading.Event()
        said = ""
        while True:
            seen = self.try_get(path)
            if seen is not None and over(seen):
                return seen
            told = "the node does not answer" if seen is None else line(seen)
            if told != said:
                click.echo(told, err=True)
                said = told
            if clock.now_s() >= until_s:
                fail(f"not over within {within_s:.0f} s: {told}; look again with popctl status", TIMEOUT)
            pause.wait(LOOK_S)

    @contextlib.contextmanager
    def _or_fail(self, timeout_s: float) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            fail(f"no node runs here: {self._socket} is not there; start one with popctl serve", NOT_FOUND)
        except TimeoutError:
            fail(f"the node did not answer within {timeout_s:.0f} s; it may still do it", TIMEOUT)
        except AskError as error:
            fail(str(error), NOT_FOUND if error.status == 404 else FAILURE)
        except PermissionError:
            fail(
                f"{self._socket} is closed to uid {os.getuid()}; run this as root or in the proxy's group",
                FAILURE,
            )
        except OSError as error:
            fail(f"{self._socket}: {error.strerror or error}", FAILURE)


def tell(answer: Any, *, as_json: bool, as_text: Callable[[Any], str] | None = None) -> None:
    """An answer as it came, or as text for people: by `as_text`, or as any JSON is drawn."""
    if as_json:
        click.echo(json.dumps(answer))
        return
    from edge.cli.show import text

    click.echo((as_text or text)(answer), nl=False)
