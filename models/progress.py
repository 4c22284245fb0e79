"""How a person sees that models are being made: a bar on a terminal, plain lines elsewhere.

Everything goes to stderr; stdout is for results. Knows nothing of models.
"""

import sys
from typing import Self

import click


class Lines:
    """One line per stage, for logs and pipes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def stage(self, model: str, stage: str, total_bytes: int | None) -> None:
        """Say what begins."""
        size = "" if total_bytes is None else f" ({total_bytes / 1e6:.0f} MB)"
        click.echo(f"{model}: {stage}{size}", err=True)

    def advance(self, done_bytes: int) -> None:
        """Lines don't move."""


class Bar:
    """A bar that moves by bytes where their number is known, and pulses where it is not."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("models", total=None, visible=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.update(self._task, visible=False)
        self._progress.stop()

    def stage(self, model: str, stage: str, total_bytes: int | None) -> None:
        """Start the bar again for what begins."""
        self._progress.reset(self._task, total=total_bytes, description=f"{model}: {stage}", visible=True)

    def advance(self, done_bytes: int) -> None:
        """Move the bar."""
        self._progress.advance(self._task, done_bytes)


def reporter() -> Lines | Bar:
    """A bar if stderr is a terminal, lines otherwise."""
    return Bar() if sys.stderr.isatty() else Lines()
