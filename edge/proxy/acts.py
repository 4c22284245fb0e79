"""What an operator may do to this node's weights: bring them near, let them go, keep them.

Each act answers what was done, or refuses with a sentence. Who may ask, and over which
door, is not its business.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from edge import clock
from edge.errors import EdgeError, Reason
from edge.policy.facts import State
from edge.proxy.device import LOADING, Entry, Stage
from edge.proxy.holds import FETCH_MS, SILENT_S
from edge.proxy.loader import ROOM_S
from edge.proxy.models import Models
from edge.proxy.worker import LocalWorker
from edge.wire import calls, states
from edge.wire.dial import Dialer

#: A model in use may become idle within this; then it is evicted after all.
IDLE_S: Final = 5.0
CALL_S: Final = 30.0
#: What the store takes at most to read a model, or one blob of it, and to mend it.
VERIFY_S: Final = 3_630.0
COLLECT_S: Final = 120.0

Place = Literal["disk", "device"]

log = logging.getLogger(__name__)


class Act(msgspec.Struct, omit_defaults=True):
    """What was done, for people and programs.

    `outcome`: resident | on-disk (brought, or there already) · evicted, pinned, unpinned | absent.
    """

    digest: str
    tier: Place
    outcome: str
    workers: tuple[str, ...] = ()
    residency: str = ""
    moved_bytes: int = 0
    freed_bytes: int = 0
    ms: float = 0.0


class Acts:
    """The acts of one node; `workers` by endpoint name, none on a node without a device."""

    def __init__(self, store: Dialer, models: Models, workers: Mapping[str, LocalWorker]) -> None:
        self._store = store
        self._models = models
        self._workers = workers

    async def prefetch(
        self, digest: str, tier: Place, *, worker: str = "", far: tuple[calls.FarSource, ...] = ()
    ) -> Act:
        """Bring a model to the disk, or to a device: the one named, or the one with the most room.

        Raises EdgeError as a cold request does, NO_ENDPOINT where no such worker is up.
        """
        began_ms = clock.now_ms()
        if tier == "disk":
            head = calls.Ensure(digest=digest, deadline_ms=FETCH_MS, hold=False, far=far)
            reply = await self._store.shared().request(head, timeout_s=FETCH_MS / 1000.0 + SILENT_S)
            await reply.whole()
            if not isinstance(reply.head, calls.Ensured):
                raise EdgeError(Reason.PROTOCOL, "the weight store answered something else")
            done = Act(digest, tier, "on-disk", (), reply.head.residency, reply.head.moved_bytes)
        else:
            manifest = await self._models.manifest(digest)
            chosen = self._choose(digest, worker)
            entry = chosen.claim(digest, manifest.name, far)
            try:
                ready = await chosen.ensure(entry, FETCH_MS)
            finally:
                chosen.unclaim(entry)
            moved_bytes = entry.moved_bytes if ready.waited_ms else 0
            done = Act(digest, tier, "resident", (chosen.name,), ready.residency, moved_bytes)
        done.ms = clock.now_ms() - began_ms
        return done

    async def verify(
        self, digest: str, blob: int | None = None
    ) -> tuple[calls.Verified, tuple[str, ...], tuple[str, ...]]:
        """Read a model on this disk again, or one of its blobs; a bad one is set aside and fetched anew.

        Then the workers that let it go, as what they had mapped was bad, to load it again when it is
        asked for; and those that could not, as it stayed in use.
        """
        reply = await self._store.shared().request(calls.Verify(digest, blob=blob), timeout_s=VERIFY_S)
        done = reply.head
        if not isinstance(done, calls.Verified):
            raise EdgeError(Reason.PROTOCOL, "the weight store answered something else")
        left: list[str] = []
        stayed: list[str] = []
        for worker in self._workers.values() if done.bad else ():
            entry = worker.book.find(digest)
            if entry is not None:
                try:
                    await _evict(worker, entry, pinned_too=True)
                    left.append(worker.name)
                except EdgeError:
                    stayed.append(worker.name)
        return done, tuple(left), tuple(stayed)

    async def take_off(self, digest: str) -> None:
        """Off every device that has it now, once it is idle there: what is mapped of it was found bad."""
        await asyncio.gather(*[self._take_off(worker, digest) for worker in self._workers.values()])

    @staticmethod
    async def _take_off(worker: LocalWorker, digest: str) -> None:
        entry = worker.book.find(digest)
        while entry is not None and entry.stage is not Stage.GONE:
            log.warning("weights were found bad", extra={"digest": digest, "taken_off": worker.name})
            with contextlib.suppress(EdgeError):
                await _evict(worker, entry, pinned_too=True)

    async def collect(self, *, dry_run: bool) -> calls.Collected:
        """Let go of what no version of the catalogue, no pin and no hold needs on this disk."""
        return await self._collected(calls.Collect(dry_run=dry_run), COLLECT_S)

    async def _collected(self, head: calls.Head, timeout_s: float) -> calls.Collected:
        reply = await self._store.shared().request(head, timeout_s=timeout_s)
        if not isinstance(reply.head, calls.Collected):
            raise EdgeError(Reason.PROTOCOL, "the weight store answered something else")
        return reply.head

    async def evict(self, digest: str, tier: Place, *, worker: str = "") -> Act:
        """Let go of a model: on every device that has it, or the named one; or on the disk.

        Raises EdgeError(BUSY): it is pinned, is in use and stays so for 5 s, or, for the disk,
        is on a device.
        """
        began_ms = clock.now_ms()
        if tier == "disk":
            on = [name for name, one in self._workers.items() if self._has(one, digest)]
            if on:
                raise _busy(f"{digest} is on {', '.join(on)}; evict it from the device first")
            went = await self._collected(calls.Drop(digest=digest), CALL_S)
            outcome = "evicted" if went.bytes else "absent"
            return Act(digest, tier, outcome, freed_bytes=went.bytes, ms=clock.now_ms() - began_ms)
        asked = [self._named(worker)] if worker else list(self._workers.values())
        freed: list[str] = []
        freed_bytes = 0
        for one in asked:
            entry = one.book.find(digest)
            if entry is not None:
                freed_bytes += await _evict(one, entry)
                freed.append(one.name)
        outcome = "evicted" if freed else "absent"
        return Act(digest, tier, outcome, tuple(freed), freed_bytes=freed_bytes, ms=clock.now_ms() - began_ms)

    async def stored(self) -> list[calls.StoredModel]:
        """What lies on this disk, whether the catalogue names it or not: all that is pinned, and the rest
        as far as the store lists it.
        """
        reply = await self._store.shared().request(calls.Status(), timeout_s=CALL_S)
        return states.weights_state(reply.head, await reply.whole()).models

    async def pin(self, digest: str, pinned: bool) -> Act:
        """Keep a model from being evicted, on the disk and on every device it comes to; or no longer.

        The store remembers it over restarts. Raises EdgeError; then nothing changed.
        """
        began_ms = clock.now_ms()
        await self._store.shared().request(calls.Pin(digest=digest, pinned=pinned), timeout_s=CALL_S)
        for one in self._workers.values():
            one.book.pinned = one.book.pinned | {digest} if pinned else one.book.pinned - {digest}
        return Act(digest, "disk", "pinned" if pinned else "unpinned", ms=clock.now_ms() - began_ms)

    def _named(self, worker: str) -> LocalWorker:
        found = self._workers.get(worker)
        if found is None:
            known = ", ".join(self._workers) or "none"
            raise EdgeError(Reason.NO_ENDPOINT, f"there is no worker {worker!r} here; there are: {known}")
        return found

    def _choose(self, digest: str, worker: str) -> LocalWorker:
        asked = [self._named(worker)] if worker else list(self._workers.values())
        up = [one for one in asked if one.endpoint.state is State.UP]
        if not up:
            told = "; ".join([f"{one.name} is {one.endpoint.state}: {one.last_error}" for one in asked])
            raise EdgeError(Reason.NO_ENDPOINT, told or "this node has no worker", retry_after_s=2)
        holders = [one for one in up if one.book.find(digest) is not None]
        return (holders or sorted(up, key=lambda one: one.used_bytes - one.book.limit_bytes))[0]

    @staticmethod
    def _has(worker: LocalWorker, digest: str) -> bool:
        return any(entry.digest == digest for entry in worker.book.entries())


async def _evict(worker: LocalWorker, entry: Entry, *, pinned_too: bool = False) -> int:
    """Off this device, once nobody uses it; the bytes that became free."""
    digest = entry.digest
    if digest in worker.book.pinned and not pinned_too:
        raise _busy(f"{digest} is pinned; unpin it first")
    until_ms = clock.now_ms() + IDLE_S * 1000.0
    while entry.in_use or entry.stage in LOADING:
        left_ms = until_ms - clock.now_ms()
        if left_ms <= 0.0:
            doing = "being loaded" if entry.stage in LOADING else f"used by {entry.in_use} requests"
            raise _busy(f"{digest} is {doing} on {worker.name}; ask again, or drain the node first")
        await asyncio.wait({_idle(entry)}, timeout=left_ms / 1000.0)
    freed_bytes = entry.device_bytes
    if entry.stage is Stage.RESIDENT:
        worker.loader.begin_leaving(entry)
    if entry.leaving is not None:
        await asyncio.wait({entry.leaving}, timeout=ROOM_S)
    if entry.stage is not Stage.GONE:
        raise _busy(f"{digest} is still leaving {worker.name}; its last request has not ended")
    return freed_bytes


def _idle(entry: Entry) -> "asyncio.Future[str] | asyncio.Future[None]":
    """Ends when it is loaded, or when its last request ends."""
    if entry.loading is not None:
        return entry.loading
    if entry.on_idle is None or entry.on_idle.done():
        entry.on_idle = asyncio.get_running_loop().create_future()
    return entry.on_idle


def _busy(message: str) -> EdgeError:
    return EdgeError(Reason.BUSY, message, retryable=True, retry_after_s=int(IDLE_S))
