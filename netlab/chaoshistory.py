"""What happened, in one append-only file: a JSON line per event, of users, nodes and chaos itself.

Events of one request carry its id, whoever writes them. The file is bounded: a run whose history
is full ends early instead of forgetting. It refuses to know what the events mean.
"""

import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

MAX_BYTES: Final = 256 << 20
#: What a node's log calls an event, and what it is called here.
_LOGGED: Final = {
    "request": "answered",
    "request forwarded here": "forwarded",
    "request taken": "taken",
}


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. `t` is the wall clock, seconds; `at` is who saw it.

    Users (`at` is a city): `asked`, `ended` with the outcome: a status, or refused, unreachable,
    reset, closed, truncated, late; `surplus`: bytes that nobody asked for. Nodes (`fra-a/proxy`,
    `fra-a/worker-0`): `answered`, `forwarded` (it came from another node), `taken` (to be run).
    chaos: `breaking`, `broken`, `healing`, `healed` with target, kind and how; `well`, `unwell`.
    """

    t: float
    at: str
    what: str
    id: str = ""
    model: str = ""
    family: int = 4
    fresh: bool = False
    outcome: str = ""
    reason: str = ""
    retry_after: bool = False
    wrong: str = ""
    served_by: str = ""
    target: str = ""
    kind: str = ""
    how: str = ""
    text: str = ""


class History:
    """The file and the same events in memory. Any thread may note."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        """Raises OSError when the file can't be opened."""
        self.path = path
        self.events: list[Event] = []
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._file = path.open("ab", buffering=0)
        self._bytes = 0

    def note(self, event: Event) -> None:
        """Add one. Beyond the bound nothing is written: `full` says so."""
        line = msgspec.json.encode(event) + b"\n"
        with self._lock:
            if self._bytes + len(line) > self._max_bytes:
                self._bytes = self._max_bytes
                return
            self._bytes += len(line)
            self._file.write(line)
            self.events.append(event)

    @property
    def full(self) -> bool:
        """Whether events were left out."""
        return self._bytes >= self._max_bytes

    def close(self) -> None:
        """The file is whole."""
        self._file.close()


def read(path: Path) -> list[Event]:
    """The events of a file. Raises msgspec.DecodeError for a line that is none."""
    return [msgspec.json.decode(line, type=Event) for line in path.read_bytes().splitlines()]


def logged(lines: Iterable[bytes], prefix: str) -> Iterator[Event]:
    """What a node's log says of requests whose id begins with `prefix`."""
    mark = f'"id":"{prefix}'.encode()
    for line in lines:
        if mark not in line:
            continue
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:
            continue  # cut off by a death
        if (what := _LOGGED.get(str(said.get("event")))) is None:
            continue
        code = said.get("code")
        yield Event(
            t=float(said["ts"]),
            at=str(said["who"]),
            what=what,
            id=str(said["id"]),
            model=str(said.get("model", "")),
            served_by=str(said.get("served_by", "")),
            outcome="" if code is None else str(code),
        )
