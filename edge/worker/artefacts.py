"""Graphs as ONNX Runtime has optimised them, kept for the next load of the same model on this device.

What a load from a hot page cache, first run included, gains by it, measured (2 cores, medians): minilm 33
-> 29 ms (its sessions alone 23 -> 18), a 24-layer encoder of 1.2 GB 258 -> 224 ms, 96 layers 282 -> 137 ms,
a chain of 30 products nothing. magika would gain 5 %: its folded constants make the kept graph a hundred
times the published one, and such a graph is not kept.

The worker can't write to the store and is not believed by anybody who could: a graph that it made could
answer wrong for every node of a region. So nothing is shared. It writes into a directory of its own on
this machine, and reads there what a worker before it wrote; a digest finds a torn file, and what is read
passes the same gate as a published graph. Workers of one node share a uid: one that somebody took over
may leave a wrong graph for the next; `rm -r` of the directory forgets it. Knows no sessions.
"""

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from edge.weights.manifest import digest

log = logging.getLogger("edge.worker")

#: All kept graphs together; beyond, those go that were used longest ago.
KEPT_MAX_BYTES: Final = 64 * 1024 * 1024
#: A kept graph may be so many times the published one, and this much more.
GROWTH_MAX: Final = 2
GROWTH_FREE_BYTES: Final = 64 * 1024
_DIGEST_CHARS: Final = 64
_PIPE_BYTES: Final = 1 << 16


class Artefacts:
    """The kept graphs of one device; without a folder none are found and none are kept.

    `facts` say for what they were made: a graph is found only by whoever has the same.
    """

    def __init__(self, folder: Path | None, facts: Sequence[str], max_bytes: int = KEPT_MAX_BYTES) -> None:
        self.enabled = folder is not None and os.access(folder, os.R_OK | os.W_OK | os.X_OK)
        self._folder = folder or Path()
        self._facts = "\n".join(facts)
        self._max_bytes = max_bytes
        if folder is not None and not self.enabled:
            log.warning("optimised graphs are not kept: %s can't be written", folder)

    def find(self, graph: str) -> bytes | None:
        """The kept form of the graph of this digest."""
        if not self.enabled:
            return None
        path = self._path(graph)
        try:
            with open(path, "rb", opener=_no_follow) as opened:
                raw = opened.read(self._max_bytes + _DIGEST_CHARS)
            os.utime(path)
        except OSError:
            return None
        told, raw = raw[:_DIGEST_CHARS], raw[_DIGEST_CHARS:]
        if digest(raw).encode() != told:
            self.drop(graph)
            return None
        return raw

    def keep(self, graph: str, raw: bytes) -> None:
        """Remember the form that was made of it; a disk that is full costs the next load, nothing else."""
        if not self.enabled or len(raw) > self._max_bytes:
            return
        path = self._path(graph)
        written = path.with_suffix(f".{os.getpid()}")
        try:
            written.write_bytes(digest(raw).encode() + raw)
            written.rename(path)
            self._make_room()
        except OSError as error:
            log.warning("an optimised graph is not kept: %s", error.strerror)
            with contextlib.suppress(OSError):
                written.unlink()

    def drop(self, graph: str) -> None:
        """It was of no use."""
        with contextlib.suppress(OSError):
            self._path(graph).unlink()

    def _path(self, graph: str) -> Path:
        return self._folder / digest(f"{self._facts}\n{graph}".encode())

    def _make_room(self) -> None:
        """A worker that died in `keep` left a file, which goes with its turn."""
        found = sorted(
            ((path.stat(), path) for path in self._folder.iterdir()), key=lambda one: one[0].st_mtime
        )
        total = sum(stat.st_size for stat, _ in found)
        for stat, path in found:
            if total <= self._max_bytes:
                return
            path.unlink()
            total -= stat.st_size


class Capture:
    """What somebody writes who can write to a path only, as bytes: `content`, None if it was too much."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.content: bytes | None = None


@contextlib.contextmanager
def captured(graph_bytes: int) -> Iterator[Capture]:
    """A pipe with a path, read until the block ends: no more is taken than a kept graph may have.

    The writer gets an error where it writes more. A file would have to be bounded too, and a limit on
    file sizes would hold for the log as well.
    """
    reading, writing = os.pipe()
    capture = Capture(f"/proc/self/fd/{writing}", GROWTH_MAX * graph_bytes + GROWTH_FREE_BYTES)
    reader = threading.Thread(target=_read, args=(reading, capture), name="artefact", daemon=True)
    reader.start()
    try:
        yield capture
    finally:
        os.close(writing)
        reader.join()


def _read(reading: int, capture: Capture) -> None:
    content = bytearray()
    try:
        while part := os.read(reading, _PIPE_BYTES):
            content += part
            if len(content) > capture.max_bytes:
                return
        capture.content = bytes(content) or None
    finally:
        os.close(reading)


def _no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def make_folder(folder: Path, name: str, prefix: str, max_bytes: int) -> Path:
    """A directory in `folder`, made or found; others of the prefix go, the ones used longest ago first.

    Raises OSError.
    """
    made = folder / name
    made.mkdir(mode=0o700, exist_ok=True)
    os.utime(made)
    others = sorted(
        (path for path in folder.glob(f"{prefix}*") if path.is_dir() and path != made),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    left_bytes = max_bytes - _size(made)
    for path in others:
        left_bytes -= _size(path)
        if left_bytes < 0:
            shutil.rmtree(path, ignore_errors=True)
    return made


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def processor() -> str:
    """What this machine's processor can do: ONNX Runtime lays graphs out for it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return os.uname().machine
