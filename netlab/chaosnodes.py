"""What a lab's nodes say of single requests: have them tell it, and read it.

A node tells of each request at log level debug (`request`, `request forwarded here`, `request
taken`). SIGUSR1 makes a running node do so; its node.yaml is changed too, for one that is started
again meanwhile. It refuses to know what the records mean.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from netlab import state
from netlab.chaoshistory import Event, logged
from netlab.lab import Lab

_LINE: Final = "log_level: debug  # poplab chaos\n"


@contextmanager
def telling(lab: Lab) -> Iterator[dict[str, int]]:
    """While the block runs nodes tell of every request; where each one's log ended before."""
    offsets = {node.name: state.log_of(node.name).stat().st_size for node in lab.topology.nodes}
    try:
        for node in lab.topology.nodes:
            _write(_config(node.name), debug=True)
            lab.node(node.name).signal(signal.SIGUSR1, "parent")
        yield offsets
    finally:
        for node in Lab.running().topology.nodes:
            _write(_config(node.name), debug=False)
            lab.node(node.name).signal(signal.SIGUSR2, "parent")


def records(offsets: dict[str, int], run: str) -> Iterator[Event]:
    """What the nodes told of this run's requests, from there on."""
    for node, offset in offsets.items():
        with state.log_of(node).open("rb") as log:
            log.seek(offset)
            yield from logged(log, run)


def _write(config: Path, *, debug: bool) -> None:
    """The node's file with the line once or not at all, whole at every moment."""
    text = config.read_text(encoding="utf-8").replace(_LINE, "") + _LINE * debug
    draft = config.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(config)


def _config(node: str) -> Path:
    return state.node_home(node) / "node.yaml"
