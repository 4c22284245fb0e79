"""Sources of blobs in this process, told what to do wrong and when: as `edge.weights.terms.Ranges`."""

import threading
from collections.abc import Callable, Iterator

from edge.errors import EdgeError, Reason, Source

PIECE = 4096
#: What a source does with one range: told which request it is and the right bytes, it yields what comes.
Act = Callable[[int, bytes], Iterator[bytes]]


def pieces(content: bytes, piece: int = PIECE) -> Iterator[bytes]:
    """All of it, in buffers."""
    for at in range(0, len(content), piece):
        yield content[at : at + piece]


def lost(message: str) -> EdgeError:
    """A source that can't deliver."""
    return EdgeError(Reason.LINK_LOST, message, source=Source.UPSTREAM, retryable=True)


class Memory:
    """A blob in memory. `starts` are the ranges asked for, in order."""

    def __init__(self, content: bytes, act: Act | None = None) -> None:
        self.content = content
        self.starts: list[int] = []
        self._act = act or (lambda _, right: pieces(right))
        self._lock = threading.Lock()

    def range(self, path: str, start: int, end: int, *, object_bytes: int) -> Iterator[bytes]:
        assert object_bytes == len(self.content)
        with self._lock:
            number = len(self.starts)
            self.starts.append(start)
        yield from self._act(number, self.content[start:end])


class Gate:
    """Held until it is opened, or for so long that a test has failed."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def open(self) -> None:
        """Whoever waits goes on."""
        self._event.set()

    def rest(self, within_s: float) -> None:
        """Return when it was opened, or after so long."""
        self._event.wait(within_s)

    def wait(self, within_s: float = 20.0) -> None:
        """Raises what a source raises that never answers."""
        if not self._event.wait(within_s):
            raise lost("never opened")
