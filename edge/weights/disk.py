"""The one owner of the disk budget: no byte is written before it has room here.

`Disk` joins the ledger (what there is), the store (how it goes) and the threads that do the
work. Decisions are `edge.weights.budget`'s. Everything here runs in the event loop; nothing
here touches a file but through the pool.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from types import MappingProxyType
from typing import Final, ParamSpec, TypeVar

from edge import clock
from edge.errors import EdgeError, Reason
from edge.policy.worth import NOTHING, Worth
from edge.weights.appraisal import Appraiser, encode_uses
from edge.weights.budget import Entry, Fits, Ledger, Refused, Shelf, excess, make_room, shelf_of
from edge.weights.flights import Flights, landed
from edge.weights.ingest import settle
from edge.weights.layout import Found
from edge.weights.store import Store
from edge.weights.unlinked import Evicted, Gone

SETTLE_THREADS: Final = 2
QUARANTINE_MAX_BYTES: Final = 256 * 1024 * 1024
_QUARANTINE_SHARE: Final = 10

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


class Disk:
    """The store, its book and its threads.

    Who enters bytes takes `lock`, calls `make_room`, and then writes to `ledger` before it
    awaits anything, all of it in a flight: what a thread has begun is booked, though nobody waits
    for it any more. `on_gone` hears the key of whatever was evicted; without an `appraiser` the
    least recently held goes first.
    """

    def __init__(self, store: Store, capacity_bytes: int, pool: Executor, flights: Flights) -> None:
        self.store = store
        self.ledger = Ledger(capacity_bytes)
        self.lock = asyncio.Lock()
        self.evictions = 0
        self._pool = pool
        self._flights = flights
        self._settlers = ThreadPoolExecutor(SETTLE_THREADS, "weights-settle")
        self.on_gone: list[Callable[[str], None]] = []
        self.appraiser: Appraiser | None = None
        #: Blobs that somebody else removed, until they are here again.
        self.removed: set[str] = set()
        self._quarantine_quota_bytes = min(QUARANTINE_MAX_BYTES, capacity_bytes // _QUARANTINE_SHARE)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Blocking disk work, in a thread. A task that changes the store must not be cancelled in here."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: work(*args, **kwargs))

    async def settle(self, digest: str) -> bool:
        """Make a blob durable; False if it has gone. In threads of its own: a disk that writes back
        gigabytes keeps no answer waiting.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._settlers, settle, self.store.blob_path(digest))

    async def open(self, begin: Callable[[Found], None]) -> Found:
        """Take the store and enter all that lies in it; what exceeds the budget goes.

        `begin` sees what was found before that, and may pin some of it.
        """
        found = await self.run(self.store.open)
        for order, (key, size_bytes) in enumerate(found.sizes.items()):
            # Older than anything that is held in this run, in order of their age among each other.
            self.ledger.put(key, size_bytes, float(order - len(found.sizes)))
        if self.appraiser is not None:
            self.appraiser.begin(found)
        begin(found)
        async with self.lock:
            try:
                await self.make_room(0, "what lies in the store")
            except EdgeError as error:
                log.warning("the store is over its budget: %s", error.message)
        return found

    async def make_room(self, wanted_bytes: int, what: str) -> None:
        """Evict until `wanted_bytes` more fit. Only with `lock` held. Raises EdgeError(NO_SPACE)."""
        for name in await self.run(self.store.sweep):
            self.ledger.drop(name)
        busy: set[str] = set()
        capacity_bytes = self.ledger.capacity_bytes
        while True:
            if self.ledger.used_bytes + wanted_bytes <= capacity_bytes:
                return
            value: Callable[[str, int], Worth] = _worthless
            if self.appraiser is not None:
                value = self.appraiser.survey(clock.now_ms(), self.ledger.keys(Shelf.BLOBS))
            entries = self.ledger.entries(busy, value)
            match make_room(entries, capacity_bytes, wanted_bytes):
                case Fits(victims):
                    by_key = {entry.key: entry for entry in entries}
                    why = {key: _why(by_key[key], what, wanted_bytes) for key in victims}
                    await self._evict(victims, busy, why)
                case Refused(missing_bytes):
                    raise EdgeError(
                        Reason.NO_SPACE,
                        f"{what}: {wanted_bytes} bytes do not fit: weights.disk_bytes is {capacity_bytes}, "
                        f"{self.ledger.used_bytes} are used, and {missing_bytes} would be missing even after "
                        "evicting all that nobody holds",
                        retryable=wanted_bytes <= capacity_bytes,
                        retry_after_s=10 if wanted_bytes <= capacity_bytes else None,
                    )

    async def _evict(
        self, victims: tuple[str, ...], busy: set[str], why: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Let these go; those that can't are added to `busy`."""
        for key in victims:
            self.ledger.leave(key)
        outcome: list[Evicted] = []
        try:
            outcome = await self.run(self.store.evict, victims)
        finally:
            for key in set(victims).difference(evicted.key for evicted in outcome):
                self.ledger.stay(key)
        for key, gone, lingers_as in outcome:
            if gone is Gone.IN_USE:
                self.ledger.stay(key)
                busy.add(key)
                continue
            if gone is Gone.LINGERS:
                self.ledger.put(lingers_as, self.ledger.size_bytes(key), clock.now_ms())
            size_bytes = self.ledger.size_bytes(key)
            log.info("evicted %s (%s bytes, %s)%s", key, size_bytes, gone.value, why.get(key, ""))
            self.ledger.drop(key)
            self.evictions += 1
            self._tell_gone(key)

    async def drop(self, keys: Iterable[str]) -> set[str]:
        """Evict these now, in order; returns those that somebody uses. A pinned one: none is evicted."""
        return await landed(self._flights.start(self._drop(list(keys))))

    async def _drop(self, keys: list[str]) -> set[str]:
        async with self.lock:
            present = tuple(key for key in keys if key in self.ledger)
            busy = {key for key in present if self.ledger.pinned(key)}
            for key in () if busy else present:
                await self._evict((key,), busy)
                if busy:
                    break
        return busy

    def close(self, *, clean: bool) -> None:
        """Let go of the store. How often models were used is kept after a clean stop, if it fits."""
        if clean and self.appraiser is not None:
            raw = encode_uses(self.appraiser.uses)
            if self.ledger.used_bytes + len(raw) <= self.ledger.capacity_bytes:
                try:
                    self.store.write_uses(raw)
                except EdgeError as error:
                    log.warning("how often models were used is not kept: %s", error.message)
        self._settlers.shutdown(wait=False)
        self.store.close(clean=clean)

    async def set_aside(self, key: str, digest: str) -> bool:
        """Move a bad blob or unfinished blob into quarantine: the same bytes under another key.

        False: somebody else had removed it.
        """
        async with self.lock:
            kept = await self.run(self.store.quarantine, key, digest)
            if kept:
                size_bytes = self.ledger.size_bytes(key)
                # The same bytes under another name, so those in use do not grow.
                self.ledger.drop(key)
                self.ledger.put(kept, size_bytes, clock.now_ms())
            else:
                await self.strike([key])
        await self._trim_quarantine()
        return bool(kept)

    async def strike(self, keys: Iterable[str]) -> None:
        """Those of these that somebody else removed leave the book. Only with `lock` held, under which
        this process itself removes and renames.

        One that was held, and is mapped, goes on counting until nobody maps it.
        """
        for key in await self.run(self.store.removed, list(keys)):
            lingers_as = await self.run(self.store.unlinked.lost, key)
            if key in self.ledger:
                log.warning("%s was removed by somebody else: it is fetched again when it is needed", key)
                if lingers_as:
                    self.ledger.put(lingers_as, self.ledger.size_bytes(key), clock.now_ms())
                self.ledger.drop(key)
                if shelf_of(key) is Shelf.BLOBS:
                    self.removed.add(key)
                self._tell_gone(key)

    async def keep(self, write: Callable[[], str], size_bytes: int, what: str) -> None:
        """Make room for one small file and write it; `write` returns its key. EdgeError(NO_SPACE).

        One that takes the place of `what`, and is no larger, is written also where nothing fits any
        more: it may say that something need not be kept.
        """
        await landed(self._flights.start(self._keep(write, size_bytes, what)))

    async def _keep(self, write: Callable[[], str], size_bytes: int, what: str) -> None:
        async with self.lock:
            try:
                await self.make_room(size_bytes, what)
            except EdgeError:
                if size_bytes > self.ledger.size_bytes(what):
                    raise
            # Entered under a name of its own until it is there: nothing else may take its room.
            pending = f"pending/{what}"
            self.ledger.put(pending, size_bytes, clock.now_ms())
            try:
                key = await self.run(write)
                self.ledger.put(key, size_bytes, clock.now_ms())
            finally:
                self.ledger.drop(pending)
        await self._trim_quarantine()

    def _tell_gone(self, key: str) -> None:
        for heard in self.on_gone:
            heard(key)

    async def _trim_quarantine(self) -> None:
        async with self.lock:
            shelved = [entry for entry in self.ledger.entries() if entry.shelf is Shelf.QUARANTINE]
            await self._evict(excess(shelved, self._quarantine_quota_bytes), set())

    async def sweep(self) -> None:
        """Book as free what lingered and does no more, and what somebody else removed."""
        async with self.lock:
            for name in await self.run(self.store.sweep):
                self.ledger.drop(name)
            if await self.run(self.store.changed):
                await self.strike(
                    key for shelf in (Shelf.BLOBS, Shelf.QUARANTINE) for key in self.ledger.keys(shelf)
                )


def _worthless(_key: str, _size_bytes: int) -> Worth:
    return NOTHING


def _why(entry: Entry, what: str, wanted_bytes: int) -> str:
    new = ", published a moment ago" if entry.worth.spared else ""
    return (
        f" so that {wanted_bytes} more fit for {what}: wanted {entry.worth.frequency:.2f} times, "
        f"{entry.worth.refetch_s:.2f} s to have again{new}"
    )
