"""Bring a model's blobs to this disk: one flight under many callers.

Room for all blobs of a model is made and booked at once, before the first byte moves, so
that two models can't each wait for the half that the other has. Knows the disk; who has a
blob is told by `edge.weights.regional`, and who wants the model by `edge.weights.keeper`.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from enum import Enum, auto

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.weights.budget import Shelf
from edge.weights.choice import Party
from edge.weights.disk import Disk
from edge.weights.errand import Errand
from edge.weights.fetch import Choice, CorruptError, Limits, Meter, fetch_blob
from edge.weights.flights import Failures, Flights, Work, landed
from edge.weights.growth import Growth
from edge.weights.ingest import ingest_bytes
from edge.weights.layout import Found, blob_key, ingest_key, manifest_key
from edge.weights.manifest import BlobFile
from edge.weights.manifests import Far, Manifests
from edge.weights.progress import UnderWay
from edge.weights.regional import Regional
from edge.weights.sources import Kind, Moved
from edge.weights.turns import Queue, Turns

log = logging.getLogger(__name__)


Flight = asyncio.Task[Moved | EdgeError]


class Condition(Enum):
    """What a reading of a whole blob showed. A wrong one was set aside."""

    RIGHT = auto()
    WRONG = auto()
    GONE = auto()


class Hydrator:
    """All that is on its way. `fetches` and `fetched` only grow."""

    def __init__(
        self,
        disk: Disk,
        manifests: Manifests,
        regional: Regional,
        choice: Choice,
        threads: Executor,
        limits: Limits,
        flights: Flights,
        stop: threading.Event,
    ) -> None:
        self.disk = disk
        self.manifests = manifests
        self.fetches = 0
        self.fetched = Moved()
        self.under_way = UnderWay()
        disk.on_gone.append(self.forget)
        #: Hears of a blob that was found bad where it lay, while who held it may have it mapped.
        self.on_spoiled: Callable[[str], None] = lambda digest: None
        self._regional = regional
        self._choice = choice
        self._threads = threads
        self._turns = Turns()
        self._limits = limits
        self._flights = flights
        self._stop = stop
        #: Not all that lies here is known to be durable: the next start verifies it.
        self.in_doubt = False
        self._failures = Failures()
        self._unverified: set[str] = set()
        self._seals: dict[str, int] = {}
        self._checks: dict[str, asyncio.Task[Condition | EdgeError]] = {}
        self._blob_flights: dict[str, Flight] = {}

    def begin(self, found: Found) -> None:
        """Start from what lies in the store. After an unclean stop each blob is read once before use,
        after a clean one each that was touched since.
        """
        self.manifests.begin(found.manifests)
        blobs = {key.removeprefix("blobs/") for key in self.disk.ledger.keys(Shelf.BLOBS)}
        if found.clean:
            self._seals = dict(found.seals)
            self._unverified = blobs - self._seals.keys()
        else:
            self._unverified = blobs
            log.warning(
                "the last stop was not clean: %d blobs are verified before use", len(self._unverified)
            )

    def forget(self, key: str) -> None:
        """A file was evicted, or set aside."""
        name = key.rpartition("/")[2]
        if key.startswith("blobs/"):
            self._unverified.discard(name)
            self._seals.pop(name, None)
            self._regional.lost(name)
        elif key.startswith("manifests/"):
            self.manifests.forget(name.removesuffix(".json"))

    def may_give(self, key: str) -> bool:
        """Does this file lie here whole and verified, so that another node may have it?"""
        return key in self.disk.ledger and key.removeprefix("blobs/") not in self._unverified

    def stored(self) -> dict[str, int]:
        """Bytes of all blobs and manifests that other nodes may have, by digest."""
        ledger = self.disk.ledger
        keys = [*ledger.keys(Shelf.BLOBS), *(manifest_key(digest) for digest in self.manifests.known)]
        return {
            key.rpartition("/")[2].removesuffix(".json"): ledger.size_bytes(key)
            for key in keys
            if self.may_give(key)
        }

    async def settle_doubts(self) -> None:
        """Verify, one after another, what an unclean stop left in doubt; a bad blob is set aside."""
        for digest in list(self._unverified):
            if digest in self._unverified:
                with contextlib.suppress(EdgeError):
                    await self.recheck(digest)

    # --- blobs

    async def bring(self, files: Mapping[str, BlobFile], far: Far = ()) -> tuple[Moved, Kind | None]:
        """All of these are here and verified; bytes that this call set in motion, and the farthest
        class that any of them came from (None: all were here).

        The caller has pinned them. Raises EdgeError: NO_SPACE at once, ORIGIN_DOWN, BLOB_CORRUPT.
        """
        mine, joined = await landed(self._flights.start(self._start_flights(files, far)))
        moved, together = Moved(), Moved()
        for flight in mine:
            moved = moved.plus(await landed(flight))
        for flight in joined:
            together = together.plus(await landed(flight))
        farthest = moved.plus(together).farthest
        if farthest is None:
            self._flights.start(self._warm(list(files)))
        return moved, farthest

    async def _warm(self, digests: list[str]) -> None:
        for digest in digests:
            await self.disk.run(self.disk.store.warm, digest)

    async def _start_flights(
        self, files: Mapping[str, BlobFile], far: Far
    ) -> tuple[list[Flight], list[Flight]]:
        """Flights of all blobs that are not here: those started now, with room made for all, and others'."""
        ledger = self.disk.ledger
        async with self.disk.lock:
            seals = await self.disk.run(self.disk.store.seals, list(files))
            booked = {blob_key(digest) for digest in files if digest not in seals}
            if unseen := [key for key in booked if key in ledger]:
                await self.disk.strike(unseen)
            joined = [self._blob_flights[digest] for digest in files if digest in self._blob_flights]
            todo = [file for file in files.values() if file.blake3 not in self._blob_flights]
            absent = [file for file in todo if blob_key(file.blake3) not in ledger]
            suspect = [file for file in todo if file not in absent and self._is_suspect(file, seals)]
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
            queue = self._turns.queue()
            mine = [self._fly(file, self._fetch(file, far, queue)) for file in absent]
            mine += [self._fly(file, self._verify(file, far, queue)) for file in suspect]
        return mine, joined

    def _is_suspect(self, file: BlobFile, seals: Mapping[str, int]) -> bool:
        """In doubt since the start, of another size, or touched since it was verified."""
        digest = file.blake3
        if digest in seals and seals[digest] != self._seals.get(digest):
            self._unverified.add(digest)
        here = self.disk.ledger.size_bytes(blob_key(digest))
        return digest in self._unverified or here != file.size_bytes

    async def _make_room_for(self, files: list[BlobFile]) -> None:
        """Book the ingest directories of `files`, whole. With the lock held."""
        ledger = self.disk.ledger
        wanted = {ingest_key(file.blake3): ingest_bytes(file) for file in files}
        more = sum(size - ledger.size_bytes(key) for key, size in wanted.items())
        await self.disk.make_room(more, "; ".join(file.name for file in files)[:200])
        for key, size in wanted.items():
            ledger.put(key, size, clock.now_ms())

    def _fly(self, file: BlobFile, work: Work[Moved]) -> Flight:
        flight = self._flights.start(work)
        self._blob_flights[file.blake3] = flight
        flight.add_done_callback(lambda _: self._blob_flights.pop(file.blake3, None))
        return flight

    async def _verify(self, file: BlobFile, far: Far, queue: Queue) -> Moved:
        """Read a blob of which we are not sure; a bad one is set aside and fetched anew."""
        condition = await self.recheck(file.blake3)
        if condition is Condition.RIGHT:
            self._check_size(file)
            return Moved()
        if condition is Condition.WRONG:
            self.on_spoiled(file.blake3)
        async with self.disk.lock:
            await self._make_room_for([file])
            self.disk.ledger.pin(ingest_key(file.blake3))
        return await self._fetch(file, far, queue)

    async def recheck(self, digest: str) -> Condition:
        """Read a blob of this disk whole, whatever is known of it, once under many callers; a bad one is
        set aside.
        """
        if (check := self._checks.get(digest)) is None:
            check = self._flights.start(self._read_whole(digest))
            self._checks[digest] = check
            check.add_done_callback(lambda _: self._checks.pop(digest, None))
        return await landed(check)

    async def _read_whole(self, digest: str) -> Condition:
        key, ledger = blob_key(digest), self.disk.ledger
        ledger.pin(key)
        try:
            if key not in ledger:
                return Condition.GONE
            seals = await self.disk.run(self.disk.store.seals, [digest])
            right = await self.disk.run(self.disk.store.verify, digest)
            if not right or not await self.disk.settle(digest):
                return await self.condemn(digest, "is corrupt")
            self._unverified.discard(digest)
            self._seals |= seals
            self._regional.has(digest, ledger.size_bytes(key))
            return Condition.RIGHT
        finally:
            ledger.unpin(key, clock.now_ms())

    async def condemn(self, digest: str, why: str) -> Condition:
        """Set aside a blob that was not right when read. The caller has pinned it, and is not cancelled."""
        key = blob_key(digest)
        # Not trusted while it lies here, which it does longer if it can't be set aside.
        self._unverified.add(digest)
        if not await self.disk.set_aside(key, digest):
            self._unverified.discard(digest)
            return Condition.GONE
        log.warning("blob %s on disk %s: set aside", digest, why)
        self.forget(key)
        return Condition.WRONG

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

    async def _fetch(self, file: BlobFile, far: Far, queue: Queue) -> Moved:
        """Fetch a blob for which room is booked and pinned; bytes moved. Leaves the book as the disk is."""
        key, ledger = ingest_key(file.blake3), self.disk.ledger
        meter = Meter()
        self.under_way.begin(file, meter, clock.now_ms())
        self.fetches += 1
        try:
            async with contextlib.AsyncExitStack() as stack:
                # The region's lease is asked for by who has a thread, not by who waits for one.
                async with queue.turn(file.size_bytes):
                    errand = await stack.enter_async_context(
                        self._regional.errand(file, far, lambda: self._growth(file.blake3))
                    )
                    await self._until_here(file, errand, meter, queue.party)
                # First of all: until it is booked, nodes that follow are told that it is not here.
                ledger.put(blob_key(file.blake3), file.size_bytes, clock.now_ms())
                self.disk.removed.discard(blob_key(file.blake3))
                ledger.drop(key)
                self._seals |= await self.disk.run(self.disk.store.seals, [file.blake3])
                self._flights.start(self._settle(file.blake3, stack.pop_all()))
        except CorruptError as error:
            self._failures.remember(_claim(file), error)
            await self._set_fetched_aside(file, error.index)
            raise
        finally:
            self.under_way.end(file)
            self.fetched = self.fetched.plus(meter.moved)
            if key in ledger:
                # What is left of it, for the next attempt or to be evicted.
                ledger.put(key, await self.disk.run(self.disk.store.size_bytes, key), clock.now_ms())
            ledger.unpin(key, clock.now_ms())
        return meter.moved

    async def _settle(self, digest: str, errand: contextlib.AsyncExitStack) -> None:
        """Durable, then told to the region: its turn goes on until then. Who waited for it has it already."""
        key, ledger = blob_key(digest), self.disk.ledger
        async with errand:
            ledger.pin(key)
            try:
                if await self.disk.settle(digest) and key in ledger:
                    self._regional.has(digest, ledger.size_bytes(key))
                else:
                    async with self.disk.lock:
                        await self.disk.strike([key])
            except EdgeError as error:
                self.in_doubt = True
                log.warning("blob %s is set aside: %s", digest, error.message)
                if key in ledger:
                    try:
                        await self.disk.set_aside(key, digest)
                    except EdgeError:
                        self._unverified.add(digest)
                        raise
                    self.forget(key)
                raise
            finally:
                ledger.unpin(key, clock.now_ms())

    def _growth(self, digest: str) -> Growth | None:
        ingest = self.disk.store.ingests.get(digest)
        return ingest.growth if ingest is not None else None

    async def _until_here(self, file: BlobFile, errand: Errand, meter: Meter, party: Party) -> None:
        """One attempt after another while this node follows others; what came stays for the next one."""
        while True:
            was_outside = await errand.may_begin()
            try:
                await self._fetch_now(file, errand, meter, party)
            except EdgeError as error:
                if self._stop.is_set() or not await errand.tries_on(error, was_outside=was_outside):
                    raise
                log.info("%s: trying on: %s", file.blake3, error.message)
            else:
                return

    async def _fetch_now(self, file: BlobFile, errand: Errand, meter: Meter, party: Party) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(
            self._threads,
            fetch_blob,
            file,
            self.disk.store,
            errand.feeds,
            self._choice,
            self._limits,
            meter,
            self._stop,
            party,
        )

    async def _set_fetched_aside(self, file: BlobFile, index: int | None) -> None:
        """Keep the evidence: the bad chunk, beside good ones that the next attempt need not fetch again."""
        log.warning("blob %s came corrupt (chunk %s): set aside", file.blake3, index)
        if index is None:
            try:
                await self.disk.set_aside(ingest_key(file.blake3), file.blake3)
            except EdgeError as error:
                log.warning("the bad blob stays where it is: %s", error.message)
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
    return f"{file.blake3}/{file.size_bytes}/{file.chunk_bytes}/{hash(file.chunks)}"
