"""Print the lab's logs, one file or all, as they are or as they grow.

It refuses to know what is written in them: a log line is its process's business.
"""

import os
from collections.abc import Callable
from pathlib import Path

from netlab.clock import pause_s

FOLLOW_EVERY_S = 0.2


def files(directory: Path) -> dict[str, Path]:
    """name -> file of every log, by name; empty when there are none."""
    if not directory.is_dir():
        return {}
    return {path.stem: path for path in sorted(directory.glob("*.log"))}


def show(logs: dict[str, Path], echo: Callable[[str], None], *, follow: bool) -> None:
    """Print every line; with more than one log each line says whose it is. `follow` ends with Ctrl-C."""
    width = max(len(name) for name in logs)
    offsets = dict.fromkeys(logs, 0)
    while True:
        for name, path in logs.items():
            mark = f"{name:<{width}} | " if len(logs) > 1 else ""
            lines, offsets[name] = _read(path, offsets[name], partial=not follow)
            for line in lines:
                echo(mark + line)
        if not follow or not any(path.exists() for path in logs.values()):
            return
        pause_s(FOLLOW_EVERY_S)


def _read(path: Path, offset: int, *, partial: bool) -> tuple[list[str], int]:
    """Whole lines from `offset` on and where to go on; the last line may lack its end if `partial`."""
    lines: list[str] = []
    try:
        with path.open("rb") as log:
            size = os.fstat(log.fileno()).st_size
            offset = offset if offset <= size else 0  # it was started anew
            log.seek(offset)
            for raw in log:
                if not raw.endswith(b"\n") and not partial:
                    break
                offset += len(raw)
                lines.append(raw.decode(errors="replace").rstrip("\n"))
    except FileNotFoundError:
        return [], offset
    return lines, offset
