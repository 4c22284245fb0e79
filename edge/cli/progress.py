"""How a person sees that bytes move: a bar on a terminal, a line per second elsewhere.

Everything goes to stderr; stdout is for results. Knows nothing of what the bytes are.
"""

import sys
from typing import Final, Protocol, Self

import click

from edge import clock

LINE_S: Final = 1.0


class Progress(Protocol):
    """What a long command tells while it works."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""

    def begins(self, what: str, total_bytes: int) -> None:
        """The next thing; 0 bytes: nobody knows how many."""

    def moved(self, count_bytes: int) -> None:
        """So many more bytes of it."""


class Lines:
    """For logs and pipes."""

    def __init__(self) -> None:
        self._what, self._total, self._done = "", 0, 0
        self._began_s = self._said_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def begins(self, what: str, total_bytes: int) -> None:
        """Say what begins."""
        self._what, self._total, self._done = what, total_bytes, 0
        self._began_s = self._said_s = clock.now_s()
        size = f" ({total_bytes / 1e6:.1f} MB)" if total_bytes else ""
        click.echo(f"{what}{size}", err=True)

    def moved(self, count_bytes: int) -> None:
        """At most one line per second."""
        self._done += count_bytes
        now_s = clock.now_s()
        if now_s - self._said_s >= LINE_S:
            self._said_s = now_s
            rate = self._done / (now_s - self._began_s)
            of = f" of {self._total / 1e6:.1f}" if self._total else ""
            left = f", {(self._total - self._done) / rate:.0f} s left" if rate and self._total else ""
            click.echo(f"{self._what}: {self._done / 1e6:.1f}{of} MB, {rate / 1e6:.1f} MB/s{left}", err=True)


class Bar:
    """Bytes, rate and time left where the size is known; a pulse where it is not."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.update(self._task, visible=False)
        self._progress.stop()

    def begins(self, what: str, total_bytes: int) -> None:
        """Start the bar again."""
        self._progress.reset(self._task, total=total_bytes or None, description=what, visible=True)

    def moved(self, count_bytes: int) -> None:
        """Move the bar."""
        self._progress.advance(self._task, count_bytes)


def progress() -> Progress:
    """A bar if stderr is a terminal, lines otherwise."""
    return Bar() if sys.stderr.isatty() else Lines()
