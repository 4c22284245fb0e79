"""What a lab's nodes say of single requests: have them tell it, and read it.

A node tells of each request at log level debug (`request`, `request forwarded here`, `request
taken`). SIGUSR1 makes a running node do so; its node.yaml is changed too, for one that is started
again meanwhile. It refuses to know what the records mean.
"""

import fcntl
import os
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
    """While the block runs nodes tell of every request; where each one's log ended before.

    Raises RuntimeError while another chaos runs: either would silence the other's nodes.
    """
    with _alone() as alone:
        if not alone:
            raise RuntimeError("another poplab chaos runs; wait until it is over")
        offsets = {node.name: state.log_of(node.name).stat().st_size for node in lab.topology.nodes}
        try:
            for node in lab.topology.nodes:
                _write(_config(node.name), debug=True)
                lab.node(node.name).signal(signal.SIGUSR1, "parent")
            yield offsets
        finally:
            _silence(Lab.running())


def quieten() -> bool:
    """Have nodes be quiet again whom a killed chaos left telling; whether there were any."""
    lab = Lab.running()
    with _alone() as alone:
        left = alone and any(
            _LINE in _config(node.name).read_text(encoding="utf-8")
            for node in lab.topology.nodes
            if _config(node.name).exists()
        )
        if left:
            _silence(lab)
    return left


def _silence(lab: Lab) -> None:
    for node in lab.topology.nodes:
        _write(_config(node.name), debug=False)
        lab.node(node.name).signal(signal.SIGUSR2, "parent")


@contextmanager
def _alone() -> Iterator[bool]:
    """Whether no other chaos runs; none begins meanwhile."""
    descriptor = os.open(state.ROOT / "chaos.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


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
    draft.chmod(config.stat().st_mode)
    draft.replace(config)


def _config(node: str) -> Path:
    return state.node_home(node) / "node.yaml"
