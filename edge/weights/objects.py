"""Objects that requests name: here, verified, held for as long as who asked needs them.

Their blobs come and stay like a model's (one fetch per region, peers, chunks checked), but all
objects together may have only a share of the disk: a stranger with a list of names must not
push the models out. They do not count as host memory. Which blob a name stands for is told by
`edge.weights.entries`; what a request does with its bytes is the worker's.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.oip.objects import MAX_OBJECTS, is_object_name
from edge.weights.budget import Shelf, shelf_of
from edge.weights.entries import Entries
from edge.weights.entry import Entry
from edge.weights.flights import Flights
from edge.weights.hydrate import Hydrator
from edge.weights.keeper import MAX_DEADLINE_MS, Holder
from edge.weights.layout import blob_key, ingest_key
from edge.weights.origin import Origin
from edge.weights.sources import Kind, Moved
from edge.wire import calls

#: Objects on one disk, however small: each is an entry in the ledger.
MAX_BLOBS: Final = 4_096
#: What all of them together may have, in parts of `weights.disk_bytes`.
SHARE: Final = 4
#: Used within this, it is likely to be named again: nobody's garbage.
LATELY_MS: Final = 3_600_000.0
#: For how long room is looked for: who holds an object may be done with it, or it is still being written.
PATIENCE_S: Final = 0.5
AGAIN_S: Final = 0.02
#: Of their own: strangers' names must not wait in front of manifests.
ENTRY_THREADS: Final = 4


class Objects:
    """All objects of this node, and who holds them."""

    def __init__(self, hydrator: Hydrator, origin: Origin, flights: Flights) -> None:
        self._threads = ThreadPoolExecutor(ENTRY_THREADS, "weights-entry")
        self.entries = Entries(origin, self._threads, flights)
        self.share_bytes = hydrator.disk.ledger.capacity_bytes // SHARE
        #: Bytes of objects on this disk or on their way.
        self.used_bytes = 0
        self._hydrator = hydrator
        self._ledger = hydrator.disk.ledger
        #: Least recently used first.
        self._blobs: OrderedDict[str, int] = OrderedDict()
        self._good_until_ms: dict[str, float] = {}
        self._room = asyncio.Lock()
        self._holds: dict[Holder, Counter[str]] = {}
        hydrator.disk.on_gone.append(self._gone)

    def begin(self) -> None:
        """Blobs that no manifest here names are taken for objects of an earlier run."""
        models = self._of_models()
        for key in self._ledger.keys(Shelf.BLOBS):
            digest = key.rpartition("/")[2]
            if digest not in models:
                self._enter(digest, self._ledger.size_bytes(key))

    def close(self) -> None:
        """Ask nothing any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def lately(self) -> frozenset[str]:
        """Digests of those that are held, or were within LATELY_MS."""
        since_ms = clock.now_ms() - LATELY_MS
        keys = {digest: blob_key(digest) for digest in self._blobs}
        return frozenset(
            digest
            for digest, key in keys.items()
            if self._ledger.pinned(key) or self._ledger.last_held_ms(key) > max(0.0, since_ms)
        )

    # --- for who asks

    async def ensure(
        self, names: tuple[str, ...], max_bytes: int, deadline_ms: float, holder: Holder
    ) -> calls.EnsuredObjects:
        """Each object's blob here, verified and held for `holder`, or the reason why it is not.

        Raises EdgeError: DEADLINE, and PROTOCOL for names that no proxy sends; then nothing is held.
        """
        if len(names) > MAX_OBJECTS or len(set(names)) != len(names) or not all(map(is_object_name, names)):
            raise EdgeError(Reason.PROTOCOL, "these can't be names of objects", source=Source.DOWNSTREAM)
        if (at_hand := self._at_once(names, max_bytes, holder)) is not None:
            return at_hand
        pinned: list[str] = []
        try:
            async with asyncio.timeout(min(deadline_ms, MAX_DEADLINE_MS) / 1000.0 if deadline_ms > 0 else 0):
                found, moved = await self._ensure(names, max_bytes, pinned)
        except BaseException as error:
            self._unpin(pinned)
            if isinstance(error, TimeoutError):
                raise EdgeError(
                    Reason.DEADLINE,
                    f"{', '.join(names)[:200]}: not here within {deadline_ms:.0f} ms; the fetch goes on",
                    retryable=True,
                ) from error
            raise
        held = Counter([one.digest for one in found if not one.reason])
        self._unpin((Counter(pinned) - held).elements())
        self._holds.setdefault(holder, Counter()).update(held)
        return calls.EnsuredObjects(tuple(found), moved.total_bytes, moved.outside_bytes)

    def _at_once(self, names: tuple[str, ...], max_bytes: int, holder: Holder) -> calls.EnsuredObjects | None:
        """As `ensure`, if nothing has to be waited for; None otherwise, and nothing is held."""
        entries = [entry for name in names if (entry := self.entries.at_once(name)) is not None]
        if len(entries) < len(names) or sum([entry.size_bytes for entry in entries]) > max_bytes:
            return None
        if not all(map(self._is_good, entries)):
            return None
        for entry in entries:
            self._blobs.move_to_end(entry.blake3)
            self._ledger.pin(blob_key(entry.blake3))
        self._holds.setdefault(holder, Counter()).update([entry.blake3 for entry in entries])
        return calls.EnsuredObjects(tuple([_here(entry) for entry in entries]))

    async def _ensure(
        self, names: tuple[str, ...], max_bytes: int, pinned: list[str]
    ) -> tuple[list[calls.ObjectHere], Moved]:
        """Entries first: what is too much together is refused before a byte of it moves."""
        answers = await asyncio.gather(*[self.entries.get(name) for name in names])
        moved = Moved()
        moved.by[Kind.ORIGIN] = sum([answer.moved_bytes for answer in answers])
        wanted_bytes = 0
        found: dict[str, calls.ObjectHere] = {}
        coming: dict[str, asyncio.Task[tuple[calls.ObjectHere, Moved]]] = {}
        async with asyncio.TaskGroup() as group:
            for name, (said, _) in zip(names, answers, strict=True):
                if isinstance(said, EdgeError):
                    found[name] = _absent(name, said)
                    continue
                wanted_bytes += said.size_bytes
                if wanted_bytes > max_bytes:
                    found[name] = _absent(name, _too_large(said, wanted_bytes, max_bytes))
                    continue
                # From here on, so that it can't go between its coming and its hold.
                self._ledger.pin(blob_key(said.blake3))
                pinned.append(said.blake3)
                coming[name] = group.create_task(self._bring(said))
        for name, task in coming.items():
            found[name], came = task.result()
            moved = moved.plus(came)
        return [found[name] for name in names], moved

    def release(self, digests: tuple[str, ...], holder: Holder) -> None:
        """Give back one hold on each; those that are not held are passed over."""
        holds = self._holds.get(holder, Counter())
        for digest in digests:
            if holds[digest] > 0:
                holds[digest] -= 1
                if not holds[digest]:
                    del holds[digest]
                self._unpin([digest])

    def drop(self, holder: Holder) -> None:
        """The holder is gone, and all of its holds with it."""
        self._unpin(self._holds.pop(holder, Counter()).elements())

    def _unpin(self, digests: Iterable[str]) -> None:
        now_ms = clock.now_ms()
        for digest in digests:
            self._ledger.unpin(blob_key(digest), now_ms)

    # --- blobs

    def _is_good(self, entry: Entry) -> bool:
        """Is it here, and was it found good within the time that an entry is believed?"""
        key = blob_key(entry.blake3)
        booked = entry.blake3 in self._blobs
        known_good = booked and self._good_until_ms.get(entry.blake3, 0.0) > clock.now_ms()
        return known_good and key in self._ledger and self._ledger.size_bytes(key) == entry.size_bytes

    async def _bring(self, entry: Entry) -> tuple[calls.ObjectHere, Moved]:
        """Its blob is here and verified, or why not. The caller has pinned it."""
        digest = entry.blake3
        try:
            await self._book(entry)
            if self._is_good(entry):
                return _here(entry), Moved()
            moved, _ = await self._hydrator.bring({digest: entry.file})
        except EdgeError as error:
            if blob_key(digest) not in self._ledger:
                self._forget(digest)
            return _absent(entry.name, error), Moved()
        if digest not in self._blobs:
            # Another's fetch of it failed meanwhile, and its booking went with that.
            self._enter(digest, entry.size_bytes)
        self._good_until_ms[digest] = clock.now_ms() + self.entries.fresh_ms
        return _here(entry), moved

    async def _book(self, entry: Entry) -> None:
        """Its bytes are an object's from now on; what was not used for longest goes for it."""
        if entry.blake3 in self._blobs:
            self._blobs.move_to_end(entry.blake3)
            return
        until_s = clock.now_s() + PATIENCE_S
        while not await self._made_room(entry):
            never = entry.size_bytes > self.share_bytes
            if never or clock.now_s() >= until_s:
                raise EdgeError(
                    Reason.NO_SPACE,
                    f"the object {entry.name} has {entry.size_bytes} bytes: objects may have "
                    f"{self.share_bytes} of this disk, and {self.used_bytes} are in use",
                    source=Source.UPSTREAM,
                    retryable=not never,
                    retry_after_s=None if never else 1,
                )
            await asyncio.sleep(AGAIN_S)

    async def _made_room(self, entry: Entry) -> bool:
        """Book it, if enough of the others can go now."""
        async with self._room:
            if entry.blake3 in self._blobs:
                return True
            while self.used_bytes + entry.size_bytes > self.share_bytes or len(self._blobs) >= MAX_BLOBS:
                if entry.size_bytes > self.share_bytes or not await self._drop_oldest():
                    return False
            self._enter(entry.blake3, entry.size_bytes)
        return True

    def _enter(self, digest: str, size_bytes: int) -> None:
        self._forget(digest)
        self._blobs[digest] = size_bytes
        self.used_bytes += size_bytes

    def _forget(self, digest: str) -> None:
        self.used_bytes -= self._blobs.pop(digest, 0)
        self._good_until_ms.pop(digest, None)

    def _gone(self, key: str) -> None:
        """Somebody let a file go. What is on its way here again stays booked."""
        if shelf_of(key) is Shelf.BLOBS and not self._ledger.pinned(key):
            self._forget(key.rpartition("/")[2])

    async def _drop_oldest(self) -> bool:
        """The least recently used one that nobody needs goes; False if all are needed."""
        models = self._of_models()
        for digest in list(self._blobs):
            key = blob_key(digest)
            if self._ledger.pinned(key) or self._ledger.pinned(ingest_key(digest)):
                continue
            if digest in models or key not in self._ledger or not await self._hydrator.disk.drop([key]):
                self._forget(digest)
                return True
        return False

    def _of_models(self) -> set[str]:
        return {file.blake3 for known in self._hydrator.manifests.known.values() for file in known.files}


def _here(entry: Entry) -> calls.ObjectHere:
    return calls.ObjectHere(entry.name, entry.blake3, entry.size_bytes)


def _absent(name: str, error: EdgeError) -> calls.ObjectHere:
    return calls.ObjectHere(
        name,
        reason=str(error.reason),
        message=error.message,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
    )


def _too_large(entry: Entry, wanted_bytes: int, max_bytes: int) -> EdgeError:
    return EdgeError(
        Reason.TOO_LARGE,
        f"the object {entry.name} has {entry.size_bytes} bytes, {wanted_bytes} with those named before it; "
        f"at most {max_bytes} are read for one request",
        source=Source.DOWNSTREAM,
    )
