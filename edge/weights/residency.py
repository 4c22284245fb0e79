"""How much of what is held really lies in memory, measured now and then, and kept there.

A hold counts against `host_bytes` whether or not its pages are in the page cache; on a host with less
memory than that the kernel drops them, and the next load reads the disk again. This measures what is
there, and reads in what is away, piece by piece and at half of the disk's speed: `edge.weights.hot` says
which and when. Nothing is locked in memory: where the kernel takes it again, that is told.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from edge import clock
from edge.weights.disk import Disk
from edge.weights.hot import Hot
from edge.weights.pagecache import PIECE_BYTES, read_piece, resident_bytes

SAMPLE_S: Final = 5.0

log = logging.getLogger(__name__)


class Residency:
    """What was measured last of the blobs that are held; nothing is known of one before its first turn.

    `undersized`: what was read in went out of memory again soon. `read_bytes` were read in, and only grow.
    """

    def __init__(self, disk: Disk, held: Callable[[], Mapping[str, int]]) -> None:
        """`held` are the sizes of the blobs that somebody holds now."""
        self.measured: dict[str, int] = {}
        self.undersized = False
        self.read_bytes = 0
        self._disk = disk
        self._held = held
        self._hot = Hot()
        self._away: asyncio.Queue[str] = asyncio.Queue()

    async def run(self) -> None:
        """Measure every SAMPLE_S and read in what is away, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_in())
            while True:
                await asyncio.sleep(SAMPLE_S)
                await self.sample()

    async def sample(self) -> None:
        """Measure what is held now, in a thread."""
        held = self._held()
        paths = {blob: self._disk.store.blob_path(blob) for blob in held}
        self.measured = await self._disk.run(_measure, paths)
        for blob in self._hot.plan(held, self.measured, clock.now_ms()):
            self._away.put_nowait(blob)
        undersized = bool(self._hot.lost)
        if undersized and not self.undersized:
            log.warning(
                "of %d bytes of weights that are held %d lie in memory, and what is read in goes out again: "
                "this host has less memory than weights.host_bytes says; lower it, or models are read from "
                "the disk again and again",
                sum(held[blob] for blob in self.measured),
                sum(self.measured.values()),
            )
        self.undersized = undersized

    async def _read_in(self) -> None:
        while True:
            blob = await self._away.get()
            try:
                await self.read_in(blob)
            finally:
                self._hot.ended(blob, clock.now_ms())

    async def read_in(self, blob: str) -> None:
        """Read a blob into memory as long as it is held, and rest for as long as each piece took."""
        path = self._disk.store.blob_path(blob)
        for at in range(0, self._held().get(blob, 0), PIECE_BYTES):
            began_ms = clock.now_ms()
            if blob not in self._held():
                return
            count = await self._disk.run(read_piece, path, at)
            self.read_bytes += count
            if count < PIECE_BYTES:
                return
            await asyncio.sleep((clock.now_ms() - began_ms) / 1000.0)

    def of(self, blobs: Mapping[str, int]) -> int | None:
        """Bytes in memory of these (digest -> size); None while any of them was not measured."""
        if any(blob not in self.measured for blob in blobs):
            return None
        return sum(self.measured[blob] for blob in blobs)


def _measure(paths: Mapping[str, Path]) -> dict[str, int]:
    measured = {}
    for blob, path in paths.items():
        try:
            measured[blob] = resident_bytes(path)
        except OSError as error:
            log.info("how much of blob %s is in memory can't be told: %s", blob, error.strerror)
    return measured
