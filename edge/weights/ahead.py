"""A node that fetches a blob too, as a source of what it has of it by now.

`watch` blocks in a thread of its own and keeps what the node tells of its chunks; `range` blocks in
the threads of a fetch and asks for nothing that is not there: that is to be waited for (NotYetError).
Who such a node is, and for how long it is waited for, is decided elsewhere.
"""

import threading
from collections.abc import Iterator
from typing import Final

from edge.weights.growth import NOTHING, TOLD_MAX_BYTES, Growth, Heard, hear
from edge.weights.manifest import BlobFile
from edge.weights.peersource import Peer, PeerError
from edge.weights.sources import NotYetError

#: Until the next question: after an answer with more in it, after one without, after none.
PAUSE_S: Final = 0.01
IDLE_S: Final = 0.05
SILENT_S: Final = 0.25
_NOT_FOUND: Final = 404


class Ahead:
    """One node and one blob, as `edge.weights.chunks.Ranges`. For several threads at a time."""

    def __init__(self, peer: Peer, file: BlobFile) -> None:
        self._peer = peer
        self._file = file
        self._over = threading.Event()
        self._heard: Heard | None = None
        self._silent = False

    @property
    def has_all(self) -> bool:
        """Has it told that it has the whole blob?"""
        return self._heard is not None and self._heard.whole

    @property
    def came_bytes(self) -> int:
        """Grows while anything comes to it."""
        return self._heard.came_bytes if self._heard is not None else 0

    def exceeds(self, mine: Growth | None) -> bool:
        """May it have anything that is not here? Of one that was not heard yet nobody knows."""
        return not self._silent and (self._heard is None or self._heard.exceeds(mine))

    def watch(self) -> None:
        """Keep what it tells, until it has the whole blob or `end`."""
        while not self._over.is_set() and not self.has_all:
            self._over.wait(self._ask())

    def end(self) -> None:
        """`watch` returns soon; what was told stays."""
        self._over.set()

    def _ask(self) -> float:
        """Ask once; seconds to wait before the next time."""
        known = self._heard or NOTHING
        path = f"blobs/{self._file.blake3}/chunks?beyond={known.count}"
        try:
            heard = hear(self._peer.small(path, TOLD_MAX_BYTES), self._file)
        except (PeerError, NotYetError) as error:
            # It has not begun, or is just between its last chunk and the whole.
            nothing = getattr(error, "answered", 0) == _NOT_FOUND
            self._silent = not nothing
            self._heard = known if nothing else self._heard
            return IDLE_S if nothing else SILENT_S
        self._silent = heard is None
        self._heard = heard or self._heard
        return PAUSE_S if heard is not None and heard.count > known.count else IDLE_S

    def range(self, path: str, start: int, end: int, *, object_bytes: int) -> Iterator[memoryview]:
        """Bytes of chunks that it has. Raises NotYetError, or PeerError as `Peer.range` does."""
        heard = self._heard or NOTHING
        chunks = range(start // self._file.chunk_bytes, (end - 1) // self._file.chunk_bytes + 1)
        if self._silent or not all(map(heard.has, chunks)):
            raise NotYetError(
                f"{self._peer.node} has not come to chunk {chunks[-1]} of {self._file.blake3}",
                here_bytes=heard.came_bytes,
            )
        try:
            yield from self._peer.range(path, start, end, object_bytes=object_bytes)
        except PeerError as error:
            if error.answered != _NOT_FOUND:
                raise
            if heard.whole:
                # It had all of it, and let it go.
                self._heard = NOTHING
            raise NotYetError(error.message, here_bytes=heard.came_bytes) from error
