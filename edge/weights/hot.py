"""Which blobs of the host tier are to be read into memory again, told what of each lies there. Pure.

The kernel may take pages of a held blob whenever it needs memory, and mostly it is right; a blob that is
away is read in once, and not again before `AGAIN_MS` have passed. Is it away again by then, this host has
less memory than is held on it: that is said (`lost`), and the pause doubles, so that nobody fights the
kernel. It knows no files, and nothing of how they are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: A blob of which less than this share lies in memory is away: nobody counts single pages.
HOT: Final = 0.9
AGAIN_MS: Final = 300_000.0
AGAIN_MAX_MS: Final = 3_600_000.0


@dataclass(slots=True)
class _Read:
    """When its reading ended (none: it is being read), and the pause before the next one."""

    ended_ms: float | None = None
    pause_ms: float = AGAIN_MS
    lost: bool = False


class Hot:
    """What was read in lately."""

    def __init__(self) -> None:
        self._read: dict[str, _Read] = {}

    @property
    def lost(self) -> frozenset[str]:
        """Blobs that went out of memory again soon after they were read in, and did not stay since."""
        return frozenset([blob for blob, read in self._read.items() if read.lost])

    def plan(self, held: Mapping[str, int], measured: Mapping[str, int], now_ms: float) -> tuple[str, ...]:
        """What to read in now, of blobs held (digest -> size) and measured (digest -> bytes in memory).

        Each is to be ended with `ended`.
        """
        for blob in self._read.keys() - held.keys():
            del self._read[blob]
        return tuple(
            [blob for blob in held if blob in measured and self._is_due(blob, held, measured, now_ms)]
        )

    def _is_due(self, blob: str, held: Mapping[str, int], measured: Mapping[str, int], now_ms: float) -> bool:
        away = measured[blob] < HOT * held[blob]
        read = self._read.get(blob)
        if read is None:
            if away:
                self._read[blob] = _Read()
            return away
        if read.ended_ms is None:
            return False
        since_ms = now_ms - read.ended_ms
        if not away:
            if since_ms >= AGAIN_MS:
                del self._read[blob]
            return False
        if since_ms < AGAIN_MS:
            read.lost = True
        if since_ms < read.pause_ms:
            return False
        read.pause_ms = min(2.0 * read.pause_ms, AGAIN_MAX_MS) if read.lost else AGAIN_MS
        read.ended_ms = None
        return True

    def ended(self, blob: str, now_ms: float) -> None:
        """It was read in, or could not be."""
        read = self._read.get(blob)
        if read is not None:
            read.ended_ms = now_ms
