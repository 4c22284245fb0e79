"""Keep one hold in the weight store for each model on a device or on its way there.

A hold lives on the link it was taken on and ends with it, so an entry records that link. The
reconciler compares it with the store's present link and takes holds again until both agree:
after a restart of the store, of this proxy, or a load that the worker went on with alone.
It knows nothing of devices beyond their book.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.proxy.device import LOADING, Book, Entry, Stage
from edge.wire import calls, states
from edge.wire.dial import Dialer
from edge.wire.exchange import Reply
from edge.wire.link import Link

log = logging.getLogger(__name__)

#: A store that died is waited for this long by a cold request.
STORE_BACK_S: Final = 10.0
#: What a fetch may take; who waits for it has a deadline of his own.
FETCH_MS: Final = 600_000.0
#: A store that says nothing for so long after that is not there: its link is given up.
SILENT_S: Final = 30.0
LOOK_S: Final = 0.25
AGAIN_FIRST_MS: Final = 250.0
AGAIN_MAX_MS: Final = 10_000.0


class Holds:
    """All holds of one device."""

    def __init__(
        self, store: Dialer, book: Book, spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
    ) -> None:
        self._store = store
        self._book = book
        self._spawn = spawn
        self._awake = asyncio.Event()
        self._pins_of: Link | None = None
        self.retaken = 0

    def wake(self) -> None:
        """Something changed: look now instead of soon."""
        self._awake.set()

    async def take(self, entry: Entry, far: tuple[calls.FarSource, ...] = ()) -> tuple[calls.Ensured, Reply]:
        """Bring the model's blobs here and hold them for `entry`. Raises EdgeError; then it holds nothing."""
        entry.taking = True
        try:
            link = await self._store.wait_shared(STORE_BACK_S)
            reply = await self._ensure(link, entry.digest, far)
        finally:
            entry.taking = False
        entry.held_on = link
        if entry.stage is Stage.GONE:
            self.give_back(entry)
        if not isinstance(reply.head, calls.Ensured):
            raise EdgeError(Reason.PROTOCOL, "the weight store answered something else")
        return reply.head, reply

    @staticmethod
    async def _ensure(link: Link, digest: str, far: tuple[calls.FarSource, ...]) -> Reply:
        head = calls.Ensure(digest=digest, deadline_ms=FETCH_MS, far=far)
        try:
            return await link.request(head, timeout_s=FETCH_MS / 1000.0 + SILENT_S)
        except calls.UpstreamError:
            # It was answered, be it that the fetch goes on: the store lives, and holds nothing for it.
            raise
        except EdgeError as error:
            if error.reason is Reason.DEADLINE:
                # Nobody can tell whether it was taken; it ends with the link.
                link.abort()
            raise

    def give_back(self, entry: Entry) -> None:
        """The entry is gone: so is its hold. Sent in order on its link, so no answer need be awaited."""
        link, entry.held_on = entry.held_on, None
        if link is None or link.closed:
            return
        with contextlib.suppress(EdgeError):
            _, answer = link.submit(calls.Release(digest=entry.digest), timeout_s=SILENT_S)
            answer.add_done_callback(_released)

    def is_held(self, entry: Entry) -> bool:
        """Does its hold live on the store's present link?"""
        link = entry.held_on
        return link is not None and link is self._store.link and not link.closed

    async def run(self) -> None:
        """Take again what was lost, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._awake.wait()
            self._awake.clear()
            link = self._store.link
            if link is None or link.closed:
                continue
            if link is not self._pins_of:
                self._pins_of = link
                self._spawn(self._read_pins(link))
            now_ms = clock.now_ms()
            for entry in self._book.entries():
                if self._wants(entry) and now_ms >= entry.hold_again_at_ms:
                    entry.taking = True
                    self._spawn(self._retake(entry))

    def _wants(self, entry: Entry) -> bool:
        """Resident, or past its fetch; what still fetches takes its own hold, what leaves needs none."""
        past = entry.stage is Stage.RESIDENT or (entry.stage in LOADING and entry.stage is not Stage.FETCHING)
        return past and not entry.taking and not self.is_held(entry)

    async def _retake(self, entry: Entry) -> None:
        try:
            await self.take(entry)
        except EdgeError as error:
            if error.message != entry.hold_error:
                log.warning("hold not renewed", extra={"digest": entry.digest, "error": error.message})
            entry.hold_error = error.message
            pause_ms = min(AGAIN_FIRST_MS * 2.0**entry.hold_tries, AGAIN_MAX_MS)
            entry.hold_tries = min(entry.hold_tries + 1, 16)
            entry.hold_again_at_ms = clock.now_ms() + pause_ms
        else:
            entry.hold_error, entry.hold_tries = "", 0
            self.retaken += 1

    async def _read_pins(self, link: Link) -> None:
        """Pins outlive this process: the store keeps them."""
        try:
            reply = await link.request(calls.Status(), timeout_s=SILENT_S)
            state = states.weights_state(reply.head, await reply.whole())
        except EdgeError:
            # The next link is asked again; this one is asked again unless it was lost.
            self._pins_of = None
            return
        self._book.pinned = frozenset([model.digest for model in state.models if model.pinned])


def _released(answer: "asyncio.Future[Reply]") -> None:
    error = None if answer.cancelled() else answer.exception()
    if isinstance(error, EdgeError) and error.reason is Reason.PROTOCOL and error.source is Source.DOWNSTREAM:
        # The book and the store disagree: a fault here, and worth a line.
        log.warning("the weight store knew no such hold: %s", error.message)
