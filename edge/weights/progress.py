"""How far fetches are: bytes here, bytes to come, and how fast they came lately.

A book of what is under way, kept by whoever fetches and read by whoever reports. Times are
arguments; it moves nothing and knows no source.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from edge.weights.fetch import Meter
from edge.weights.manifest import BlobFile, Manifest
from edge.wire import calls

#: A rate is what came since the oldest of so many looks, which are at least so far apart.
MAX_LOOKS: Final = 9
LOOK_MS: Final = 200.0


class _Blob:
    """One fetch of one blob, and when how much of it had come."""

    def __init__(self, file: BlobFile, meter: Meter, now_ms: float) -> None:
        self.meter = meter
        self.size_bytes = file.size_bytes
        self._looks = deque([(now_ms, 0)], maxlen=MAX_LOOKS)

    def done_bytes(self) -> int:
        """Never more than there is: what came twice counts once."""
        return min(self.size_bytes, self.meter.present_bytes + self.meter.moved_bytes)

    def bytes_per_s(self, now_ms: float) -> float:
        moved = self.meter.moved_bytes
        if now_ms - self._looks[-1][0] >= LOOK_MS:
            self._looks.append((now_ms, moved))
        since_ms, before = self._looks[0]
        return (moved - before) / (now_ms - since_ms) * 1000.0 if now_ms > since_ms else 0.0


class UnderWay:
    """Blobs that are being fetched."""

    def __init__(self) -> None:
        self._blobs: dict[str, _Blob] = {}

    def __len__(self) -> int:
        return len(self._blobs)

    def begin(self, file: BlobFile, meter: Meter, now_ms: float) -> None:
        """This blob is fetched from now on, as `meter` will tell."""
        self._blobs[file.blake3] = _Blob(file, meter, now_ms)

    def end(self, file: BlobFile) -> None:
        """It came, or did not."""
        self._blobs.pop(file.blake3, None)

    def of(
        self, digest: str, manifest: Manifest, is_here: Callable[[str], bool], now_ms: float
    ) -> calls.Fetching | None:
        """How far a model is; None when nothing of it is under way. `is_here` of a blob: all of it."""
        sizes = {file.blake3: file.size_bytes for file in manifest.files}
        coming = [self._blobs[blob] for blob in sizes if blob in self._blobs]
        if not coming:
            return None
        here_bytes = sum(size for blob, size in sizes.items() if blob not in self._blobs and is_here(blob))
        sources: Counter[str] = Counter()
        for blob in coming:
            sources.update({str(kind): count for kind, count in blob.meter.moved.by.items() if count})
        return calls.Fetching(
            digest,
            here_bytes + sum(blob.done_bytes() for blob in coming),
            sum(sizes.values()),
            sum(blob.bytes_per_s(now_ms) for blob in coming),
            dict(sources),
        )
