"""Read all blobs of this disk again, slowly and for ever: a medium can change without a write.

What is written to a blob shows in its seal (`edge.weights.layout.seals_in`) and is verified before the
next use; what rots where it lies shows nowhere but in its bytes. A blob that is not what its name says
is set aside like any other, and one that somebody holds is fetched again at once. A fetch goes first,
and an eviction need not wait. Remembers nothing over a restart.
"""

import asyncio
import errno
import logging
import sys
from typing import Final

from edge import clock
from edge.errors import EdgeError
from edge.weights.budget import Shelf
from edge.weights.flights import Flights, landed
from edge.weights.hydrate import Condition, Hydrator
from edge.weights.layout import BLOBS, blob_key
from edge.weights.manifest import BlobFile
from edge.weights.slowread import LetGoError
from edge.wire import calls

#: The first pass begins so long after the start, when all is quieter; earlier where passes are frequent.
FIRST_S: Final = 3_600.0
#: How often it is looked again whether fetches have ended.
YIELD_S: Final = 0.5

log = logging.getLogger(__name__)


class Scrub:
    """One node's. `bytes_per_s` 0: never; a pass begins at most every `every_s`."""

    def __init__(self, hydrator: Hydrator, flights: Flights, *, bytes_per_s: int, every_s: float) -> None:
        self._hydrator = hydrator
        self._disk = hydrator.disk
        self._reader = hydrator.disk.store.reader
        self._flights = flights
        self._bytes_per_s = bytes_per_s
        self._every_s = every_s
        self._told = calls.Scrubbed()
        self._passed_ms: float | None = None

    def state(self) -> calls.Scrubbed:
        """What was read since the start."""
        since_ms = None if self._passed_ms is None else round(clock.now_ms() - self._passed_ms, 3)
        self._told.since_pass_ms = since_ms
        return self._told

    async def run(self) -> None:
        """Pass after pass, until cancelled."""
        if not self._bytes_per_s:
            return
        await asyncio.sleep(min(FIRST_S, self._every_s))
        while True:
            began_s = clock.now_s()
            await self._pass()
            await asyncio.sleep(max(0.0, began_s + self._every_s - clock.now_s()))

    async def _pass(self) -> None:
        ledger = self._disk.ledger
        for key in sorted(ledger.keys(Shelf.BLOBS)):
            if key in ledger:
                await self._look_at(key.removeprefix(BLOBS))
        self._told.passes += 1
        self._passed_ms = clock.now_ms()

    async def _look_at(self, digest: str) -> None:
        """Read one blob; what is wrong with it has its consequences."""
        try:
            if await self._read(digest) == [digest]:
                self._told.blobs += 1
                return
            why = await self._what_is_wrong(digest)
        except LetGoError:
            return
        except FileNotFoundError:
            async with self._disk.lock:
                await self._disk.strike([blob_key(digest)])
            return
        except OSError as error:
            if error.errno != errno.EIO:
                log.warning("blob %s is not scrubbed: %s", digest, error.strerror)
                return
            why = "can't be read any more"
        self._told.blobs += 1
        if why:
            await landed(self._flights.start(self._condemn(digest, why)))

    async def _what_is_wrong(self, digest: str) -> str:
        """Where, for whoever looks after that disk; "" if it reads right now. Raises as `_read` does."""
        model, file = self._file(digest)
        if file is None:
            wrong = await self._read(digest) != [digest]
            return "rotted where it lay" if wrong else ""
        got = await self._read(digest, file.chunk_bytes)
        chunks = [
            index for index, (one, other) in enumerate(zip(got, file.chunks, strict=False)) if one != other
        ]
        if not chunks and len(got) == len(file.chunks):
            log.warning("blob %s was read wrong and then right: its disk is not to be trusted", digest)
            return ""
        where = f"chunk {chunks[0]}" if chunks else "its end"
        return f"({file.name} of {model}) rotted where it lay, at {where} of {len(file.chunks)}"

    def _file(self, digest: str) -> tuple[str, BlobFile | None]:
        """A model that it belongs to, and what that says of it; nothing says it of an object."""
        for manifest in self._hydrator.manifests.known.values():
            for file in manifest.files:
                if file.blake3 == digest:
                    return f"{manifest.name} version {manifest.version}", file
        return "", None

    async def _read(self, digest: str, span_bytes: int = sys.maxsize) -> list[str]:
        """Digests of its spans, at `bytes_per_s`. Raises OSError; LetGoError when it is evicted meanwhile."""
        run, reader = self._disk.run, self._reader
        await run(reader.begin, self._disk.store.blob_path(digest), span_bytes)
        while True:
            while len(self._hydrator.under_way):  # noqa: ASYNC110 -- looking costs nothing, an event many lines
                await asyncio.sleep(YIELD_S)
            began_s = clock.now_s()
            count = await run(reader.piece)
            if not count:
                return await run(reader.end)
            self._told.bytes += count
            await asyncio.sleep(max(0.0, began_s + count / self._bytes_per_s - clock.now_s()))

    async def _condemn(self, digest: str, why: str) -> None:
        """Set it aside; fetch it again at once if somebody holds it, else when it is needed."""
        key, ledger = blob_key(digest), self._disk.ledger
        if key not in ledger:
            return
        held = ledger.pinned(key)
        ledger.pin(key)
        try:
            if await self._hydrator.condemn(digest, why) is not Condition.WRONG:
                return
            self._told.bad += 1
            self._hydrator.on_spoiled(digest)
            _, file = self._file(digest)
            if held and file is not None:
                await self._hydrator.bring({digest: file})
        except EdgeError as error:
            log.warning("blob %s is not here again: %s", digest, error.message)
        finally:
            ledger.unpin(key, clock.now_ms())
