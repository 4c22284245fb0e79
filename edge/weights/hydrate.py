"""Bring a model's manifest and blobs to this disk: one flight under many callers.

Room for all blobs of a model is made and booked at once, before the first byte moves, so
that two models can't each wait for the half that the other has. Knows the disk and the
origin; who wants the model, and for how long, is `edge.weights.keeper`'s business.
"""

import asyncio
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import NamedTuple

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.weights.budget import Shelf
from edge.weights.disk import Disk
from edge.weights.fetch import CorruptError, Limits, Meter, fetch_blob
from edge.weights.flights import Failures, Flights, Work, landed
from edge.weights.ingest import ingest_bytes
from edge.weights.layout import Found, blob_key, ingest_key, manifest_key
from edge.weights.manifest import DIGEST, MANIFEST_MAX_BYTES, BlobFile, Manifest, decode
from edge.weights.origin import Origin

log = logging.getLogger(__name__)


class Threads(NamedTuple):
    """Where blocking work runs: short requests to the origin, and whole blobs."""

    origin: Executor
    fetch: Executor


class Hydrator:
    """All that is on its way. `manifests` are those on disk, `fetches` and `fetched_bytes` only grow."""

    def __init__(
        self,
        disk: Disk,
        origin: Origin,
        threads: Threads,
        limits: Limits,
        flights: Flights,
        stop: threading.Event,
    ) -> None:
        self.disk = disk
        self.manifests: dict[str, Manifest] = {}
        self.fetches = 0
        self.fetched_bytes = 0
        disk.on_gone = self.forget
        self._origin = origin
        self._threads = threads
        self._limits = limits
        self._flights = flights
        self._stop = stop
        self._failures = Failures()
        self._unverified: set[str] = set()
        self._blob_flights: dict[str, asyncio.Task[int | EdgeError]] = {}
        self._manifest_flights: dict[str, asyncio.Task[tuple[bytes, Manifest] | EdgeError]] = {}

    def begin(self, found: Found) -> None:
        """Start from what lies in the store. After an unclean stop each blob is read once before use."""
        ledger = self.disk.ledger
        self.manifests = {key: known for key, known in found.manifests.items() if manifest_key(key) in ledger}
        if not found.clean:
            self._unverified = {key.removeprefix("blobs/") for key in ledger.keys(Shelf.BLOBS)}
            log.warning(
                "the last stop was not clean: %d blobs are verified before use", len(self._unverified)
            )

    def forget(self, key: str) -> None:
        """A file was evicted."""
        name = key.rpartition("/")[2]
        if key.startswith("blobs/"):
            self._unverified.discard(name)
        elif key.startswith("manifests/"):
            self.manifests.pop(name.removesuffix(".json"), None)

    # --- manifests

    async def manifest(self, digest: str) -> tuple[bytes, Manifest]:
        """A manifest's bytes, digest-checked, from disk or origin; one request under many callers.

        Raises EdgeError: PROTOCOL for no digest, BLOB_CORRUPT, ORIGIN_DOWN.
        """
        if DIGEST.fullmatch(digest) is None:
            raise EdgeError(Reason.PROTOCOL, f"{digest[:80]!r} is no digest", source=Source.DOWNSTREAM)
        if (flight := self._manifest_flights.get(digest)) is None:
            flight = self._flights.start(self._bring_manifest(digest))
            self._manifest_flights[digest] = flight
            flight.add_done_callback(lambda _: self._manifest_flights.pop(digest, None))
        return await landed(flight)

    async def _bring_manifest(self, digest: str) -> tuple[bytes, Manifest]:
        key = manifest_key(digest)
        if key in self.disk.ledger:
            try:
                raw = await self.disk.run(self.disk.store.read_manifest, digest)
                known = decode(raw, expect_digest=digest)
            except EdgeError as error:
                log.warning("a manifest on disk is unusable and is fetched again: %s", error.message)
            else:
                self.manifests[digest] = known
                return raw, known
        self._failures.check(digest)
        raw = await self._from_origin(f"manifests/{digest}.json", MANIFEST_MAX_BYTES)
        try:
            fetched = decode(raw, expect_digest=digest)
        except EdgeError as error:
            self._failures.remember(digest, error)
            raise

        def write() -> str:
            self.disk.store.write_manifest(digest, raw)
            return key

        try:
            await self.disk.keep(write, len(raw), f"manifest {digest}")
            self.manifests[digest] = fetched
        except EdgeError as error:
            # It serves all the same; only the next asker has to fetch it again.
            log.warning("a manifest is not kept: %s", error.message)
        return raw, fetched

    async def _from_origin(self, path: str, max_bytes: int) -> bytes:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads.origin, self._origin.small, path, max_bytes)
        return found.raw if found is not None else b""

    # --- blobs

    async def bring(self, files: Mapping[str, BlobFile]) -> tuple[int, bool]:
        """All of these are here and verified; (bytes that this call set in motion, did anything move).

        The caller has pinned them. Raises EdgeError: NO_SPACE at once, ORIGIN_DOWN, BLOB_CORRUPT.
        """
        mine, joined = await landed(self._flights.start(self._start_flights(files)))
        moved = [await landed(flight) for flight in mine]
        others = [await landed(flight) for flight in joined]
        fetched = any(moved) or any(others)
        if not fetched:
            self._flights.start(self._warm(list(files)))
        return sum(moved), fetched

    async def _warm(self, digests: list[str]) -> None:
        for digest in digests:
            await self.disk.run(self.disk.store.warm, digest)

    async def _start_flights(
        self, files: Mapping[str, BlobFile]
    ) -> "tuple[list[asyncio.Task[int | EdgeError]], list[asyncio.Task[int | EdgeError]]]":
        """Flights of all blobs that are not here: those started now, with room made for all, and others'."""
        ledger = self.disk.ledger
        async with self.disk.lock:
            joined = [self._blob_flights[digest] for digest in files if digest in self._blob_flights]
            todo = [file for file in files.values() if file.blake3 not in self._blob_flights]
            absent = [file for file in todo if blob_key(file.blake3) not in ledger]
            suspect = [file for file in todo if file not in absent and self._is_suspect(file)]
            for file in (*absent, *suspect):
                self._failures.check(_claim(file))
            for file in absent:
                ledger.pin(ingest_key(file.blake3))
            try:
                await self._make_room_for(absent)
            except BaseException:
                for file in absent:
                    ledger.unpin(ingest_key(file.blake3), clock.now_ms())
                raise
            mine = [self._fly(file, self._fetch(file)) for file in absent]
            mine += [self._fly(file, self._verify(file)) for file in suspect]
        return mine, joined

    def _is_suspect(self, file: BlobFile) -> bool:
        here = self.disk.ledger.size_bytes(blob_key(file.blake3))
        return file.blake3 in self._unverified or here != file.size_bytes

    async def _make_room_for(self, files: list[BlobFile]) -> None:
        """Book the ingest directories of `files`, whole. With the lock held."""
        ledger = self.disk.ledger
        wanted = {ingest_key(file.blake3): ingest_bytes(file) for file in files}
        more = sum(size - ledger.size_bytes(key) for key, size in wanted.items())
        await self.disk.make_room(more, "; ".join(file.name for file in files)[:200])
        for key, size in wanted.items():
            ledger.put(key, size, clock.now_ms())

    def _fly(self, file: BlobFile, work: Work[int]) -> "asyncio.Task[int | EdgeError]":
        flight = self._flights.start(work)
        self._blob_flights[file.blake3] = flight
        flight.add_done_callback(lambda _: self._blob_flights.pop(file.blake3, None))
        return flight

    async def _verify(self, file: BlobFile) -> int:
        """Read a blob of which we are not sure; a bad one is set aside and fetched anew."""
        key, ledger = blob_key(file.blake3), self.disk.ledger
        ledger.pin(key)
        try:
            if await self.disk.run(self.disk.store.verify, file.blake3):
                self._unverified.discard(file.blake3)
                self._check_size(file)
                return 0
            log.warning("blob %s on disk is corrupt: set aside, fetched again", file.blake3)
            self._unverified.discard(file.blake3)
            await self.disk.set_aside(key, file.blake3)
        finally:
            ledger.unpin(key, clock.now_ms())
        async with self.disk.lock:
            await self._make_room_for([file])
            ledger.pin(ingest_key(file.blake3))
        return await self._fetch(file)

    def _check_size(self, file: BlobFile) -> None:
        here = self.disk.ledger.size_bytes(blob_key(file.blake3))
        if here != file.size_bytes:
            error = EdgeError(
                Reason.BLOB_CORRUPT,
                f"blob {file.blake3} has {here} bytes, the manifest says {file.size_bytes}; "
                "publish the model again",
                source=Source.UPSTREAM,
            )
            self._failures.remember(_claim(file), error)
            raise error

    async def _fetch(self, file: BlobFile) -> int:
        """Fetch a blob for which room is booked and pinned; bytes moved. Leaves the book as the disk is."""
        key, ledger = ingest_key(file.blake3), self.disk.ledger
        meter = Meter()
        loop = asyncio.get_running_loop()
        self.fetches += 1
        try:
            await loop.run_in_executor(
                self._threads.fetch,
                fetch_blob,
                file,
                self.disk.store,
                self._origin,
                self._limits,
                meter,
                self._stop,
            )
        except CorruptError as error:
            self._failures.remember(_claim(file), error)
            await self._set_fetched_aside(file, error.index)
            raise
        else:
            ledger.put(blob_key(file.blake3), file.size_bytes, clock.now_ms())
            ledger.drop(key)
        finally:
            self.fetched_bytes += meter.moved_bytes
            if key in ledger:
                # What is left of it, for the next attempt or to be evicted.
                ledger.put(key, await self.disk.run(self.disk.store.size_bytes, key), clock.now_ms())
            ledger.unpin(key, clock.now_ms())
        return meter.moved_bytes

    async def _set_fetched_aside(self, file: BlobFile, index: int | None) -> None:
        """Keep the evidence: the bad chunk, beside good ones that the next attempt need not fetch again."""
        log.warning("blob %s from the origin is corrupt (chunk %s): set aside", file.blake3, index)
        if index is None:
            await self.disk.set_aside(ingest_key(file.blake3), file.blake3)
            return
        size_bytes = min(file.chunk_bytes, file.size_bytes - index * file.chunk_bytes)
        try:
            await self.disk.keep(
                lambda: self.disk.store.quarantine_chunk(file, index),
                size_bytes,
                f"chunk {index} of {file.blake3}",
            )
        except EdgeError as error:
            log.warning("the bad chunk is not kept: %s", error.message)


def _claim(file: BlobFile) -> str:
    """What failures are remembered by: a manifest that lies of a blob must not spoil it for others."""
    return f"{file.blake3}/{file.size_bytes}"
