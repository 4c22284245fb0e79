"""Bring one model onto a device, and take one off it: fetch, queue, make room, open; unload.

One load at a time per device, over any number of fetches. The worker's own count decides what
fits: it is asked before anything is evicted. Who waits for a load, and why, is not known here.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.proxy.device import Entry, Stage
from edge.proxy.estimates import Estimates
from edge.proxy.holds import Holds
from edge.proxy.models import Models
from edge.proxy.moves import Moves
from edge.weights.manifest import Manifest
from edge.wire import calls
from edge.wire.dial import Dialer

log = logging.getLogger(__name__)

LOAD_MS: Final = 60_000.0
#: A worker that does not even say that its deadline passed.
SILENT_S: Final = 10.0
#: A worker that died is waited for this long by a load.
WORKER_BACK_S: Final = 10.0
#: What still runs in a victim may end within this, and the runtime give its memory back.
ROOM_S: Final = 30.0
UNLOAD_S: Final = 10.0
UNLOAD_AGAIN_S: Final = 1.0
#: The store's link may die under a fetch so often; what it had verified is on its disk.
FETCH_TRIES: Final = 3
#: The device may have filled between the worker's Status and the load: a prepacked session, another proxy.
OPEN_TRIES: Final = 3


class Loader:
    """The loads and evictions of one worker. `refresh` takes over the worker's Status into the book."""

    def __init__(
        self,
        name: str,
        *,
        dialer: Dialer,
        moves: Moves,
        holds: Holds,
        models: Models,
        estimates: Estimates,
        refresh: Callable[[], Coroutine[Any, Any, None]],
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
    ) -> None:
        self._name = name
        self._dialer = dialer
        self._moves = moves
        self._book = moves.book
        self._holds = holds
        self._models = models
        self._estimates = estimates
        self._refresh = refresh
        self._spawn = spawn
        self.evictions = 0
        self._order = asyncio.Lock()

    async def load(self, entry: Entry, far: tuple[calls.FarSource, ...]) -> str:
        """From FETCHING to RESIDENT, or GONE with an EdgeError. Returns where the weights were."""
        try:
            try:
                residency, raw = await self._fetch(entry, far)
            finally:
                self._estimates.ends(entry.digest)
            manifest = self._models.remember(entry.digest, raw)
            self._moves.fetched(entry, manifest)
            with self._lost_while_loading():
                await self._dialer.wait_shared(WORKER_BACK_S)
                # Two that plan for the same free bytes at once would both fail.
                async with self._order:
                    self._moves.to(entry, Stage.OPENING)
                    await self._open(entry, manifest, raw)
        except BaseException:
            self._moves.gone(entry)
            raise
        return residency

    async def _fetch(self, entry: Entry, far: tuple[calls.FarSource, ...]) -> tuple[str, bytes]:
        """Its blobs are on the disk and held; again when the store died meanwhile."""
        for left in reversed(range(FETCH_TRIES)):
            try:
                ensured, reply = await self._holds.take(entry, far)
                raw = await reply.whole()
            except EdgeError as error:
                if error.reason is not Reason.LINK_LOST:
                    raise
                if not left:
                    # Whoever asked may ask again, here or elsewhere: nothing ran.
                    text = f"the weight store of {self._name} is away: {error.message}"
                    raise EdgeError(Reason.LINK_LOST, text, retryable=True, retry_after_s=2) from error
            else:
                self._estimates.fetched(entry.digest, ensured)
                entry.moved_bytes += ensured.moved_bytes
                entry.far_bytes += ensured.outside_bytes
                return ensured.residency, raw
        raise AssertionError("the last try returns or raises")

    @contextlib.contextmanager
    def _lost_while_loading(self) -> Iterator[None]:
        """A worker that is away, or died in a load, ran nothing: here or elsewhere it may be tried again."""
        try:
            yield
        except EdgeError as error:
            if error.reason is not Reason.LINK_LOST:
                raise
            text = f"worker {self._name} was lost while it was to load the model: {error.message}"
            raise EdgeError(
                Reason.WORKER_LOST, text, source=Source.UPSTREAM, retryable=True, retry_after_s=1
            ) from error

    async def _open(self, entry: Entry, manifest: Manifest, raw: bytes) -> None:
        """Room on the device, then the worker loads it."""
        need_bytes = max(manifest.device_bytes, manifest.size_bytes)
        for left in reversed(range(OPEN_TRIES)):
            entry.device_bytes = 0
            await self._make_room(entry, need_bytes)
            entry.device_bytes = need_bytes
            try:
                loaded = await self._ask_to_load(entry.digest, raw)
            except EdgeError as error:
                if error.reason is not Reason.NO_MEMORY or not left:
                    raise
                continue
            self._moves.opened(entry, manifest, loaded)
            return

    async def _ask_to_load(self, digest: str, raw: bytes) -> calls.Loaded:
        link = self._dialer.shared()
        head = calls.Load(digest=digest, deadline_ms=LOAD_MS)
        loaded = (await link.request(head, raw, timeout_s=LOAD_MS / 1000.0 + SILENT_S)).head
        if not isinstance(loaded, calls.Loaded):
            raise EdgeError(Reason.PROTOCOL, f"{self._name} answered a load with something else")
        if self._dialer.link is not link:
            # Its answer and its end came in one read.
            raise EdgeError(Reason.LINK_LOST, "the link was lost", source=Source.UPSTREAM)
        return loaded

    async def _make_room(self, entry: Entry, need_bytes: int) -> None:
        """Evict until it fits by the worker's own count.

        One victim at a time, each chosen when its turn comes: what was claimed meanwhile stays.
        """
        until_ms = clock.now_ms() + ROOM_S * 1000.0
        while True:
            going = [other.leaving for other in self._book.leaving() if other.leaving is not None]
            if going:
                await asyncio.wait(going, timeout=max(0.0, until_ms - clock.now_ms()) / 1000.0)
            await self._refresh()
            victims = self._book.victims(entry, need_bytes, clock.now_ms())
            leaving = self._book.leaving()
            # An earlier stay that has not ended would take this one with it.
            again = any(other.digest == entry.digest for other in leaving)
            if victims == () and not again:
                return
            if victims is None or clock.now_ms() >= until_ms:
                raise self._no_memory(need_bytes, leaving)
            for victim in victims[:1]:
                log.info(
                    "evicting", extra={"worker": self._name, "digest": victim.digest, "for": entry.digest}
                )
                self.begin_leaving(victim)

    def _no_memory(self, need_bytes: int, leaving: list[Entry]) -> EdgeError:
        book = self._book
        never = need_bytes > book.limit_bytes
        if never:
            why = "it never fits; raise device_bytes or choose a smaller model"
        elif leaving:
            why = f"{len(leaving)} models are still leaving"
        else:
            why = f"{book.used_bytes} are taken, and what is in use, pinned or loading stays"
        return EdgeError(
            Reason.NO_MEMORY,
            f"the model needs {need_bytes} bytes on {self._name}, whose budget is {book.limit_bytes}: {why}",
            retryable=True,
            retry_after_s=None if never else 2,
        )

    def begin_leaving(self, entry: Entry) -> "asyncio.Task[None]":
        """A resident model leaves from now on; the task ends when its memory is free."""
        self.evictions += 1
        self._moves.to(entry, Stage.LEAVING)
        entry.leaving = self._spawn(self._unload(entry))
        return entry.leaving

    async def _unload(self, entry: Entry) -> None:
        """Ask until the worker has let go of it; a lost worker has."""
        while entry.stage is Stage.LEAVING:
            try:
                link = self._dialer.shared()
                await link.request(calls.Unload(digest=entry.digest), timeout_s=UNLOAD_S)
            except EdgeError as error:
                log.warning("not unloaded yet", extra={"digest": entry.digest, "error": error.message})
                await asyncio.sleep(UNLOAD_AGAIN_S)
            else:
                self._moves.gone(entry)
