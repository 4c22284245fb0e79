"""Objects that a request names, for the length of that request: asked of the weight store, given back.

The store brings them and holds them on the link they were asked on; the worker is told their blobs
and opens those itself. Knows no tensors, and not whether the request needs what it seems to name.
"""

import asyncio
import contextlib
from typing import Final

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.wire import calls
from edge.wire.dial import Dialer
from edge.wire.exchange import Reply
from edge.wire.link import Link

#: A store that died is waited for this long.
STORE_BACK_S: Final = 10.0
#: How long after the deadline the store may take to say that it passed; then it is not there.
SILENT_S: Final = 30.0


class Asked:
    """The objects of one request, on their way or here. `give_back` ends it, whatever came of it."""

    def __init__(self, names: tuple[str, ...], link: Link, answer: "asyncio.Future[Reply]") -> None:
        self.told: tuple[calls.ObjectHere, ...] = ()
        self.outside_bytes = 0
        self.waited_ms = 0.0
        self._names = names
        self._link = link
        self._answer = answer

    async def wait(self, deadline_ms: float) -> None:
        """Until the store has told of each. Raises EdgeError: DEADLINE, or LINK_LOST, retryable."""
        began_ms = clock.now_ms()
        try:
            async with asyncio.timeout(deadline_ms / 1000.0):
                # Not cancelled with its request: the answer may be on the way, and holds with it.
                reply = await asyncio.shield(self._answer)
        except TimeoutError:
            text = f"the deadline passed while {', '.join(self._names)[:200]} was fetched"
            raise EdgeError(Reason.DEADLINE, text) from None
        except EdgeError as error:
            if error.reason is Reason.LINK_LOST:
                raise _away(error) from error
            raise
        found = self._ensured(reply)
        self.told, self.outside_bytes = found.objects, found.outside_bytes
        self.waited_ms = clock.now_ms() - began_ms

    def give_back(self) -> None:
        """The request is done with them; what has not come yet is given back when it has."""
        if self._answer.done():
            self._release(self._answer)
        else:
            self._answer.add_done_callback(self._release)

    def _release(self, answer: "asyncio.Future[Reply]") -> None:
        if answer.cancelled() or answer.exception() is not None or self._link.closed:
            return
        with contextlib.suppress(EdgeError):
            digests = tuple([one.digest for one in self._ensured(answer.result()).objects if not one.reason])
            if digests:
                # In order on its link: nobody need wait for what it answers.
                _, released = self._link.submit(calls.ReleaseObjects(digests), timeout_s=SILENT_S)
                released.add_done_callback(_heard)

    def _ensured(self, reply: Reply) -> calls.EnsuredObjects:
        head = reply.head
        if not isinstance(head, calls.EnsuredObjects) or tuple(o.name for o in head.objects) != self._names:
            raise EdgeError(
                Reason.PROTOCOL, "the weight store answered something else", source=Source.UPSTREAM
            )
        return head


class Objects:
    """The objects of all requests that run on this node; one of them may name `max_bytes`."""

    def __init__(self, store: Dialer, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes

    async def ask(self, names: tuple[str, ...], deadline_ms: float) -> Asked:
        """Let the store begin. Raises EdgeError(LINK_LOST, retryable) while there is none."""
        try:
            link = await self._store.wait_shared(min(STORE_BACK_S, deadline_ms / 1000.0))
            head = calls.EnsureObjects(names, self._max_bytes, deadline_ms)
            _, answer = link.submit(head, timeout_s=deadline_ms / 1000.0 + SILENT_S)
        except EdgeError as error:
            raise _away(error) from error
        return Asked(names, link, answer)


def _away(error: EdgeError) -> EdgeError:
    """Nothing ran: here or elsewhere the request may be tried again."""
    text = f"the weight store is away: {error.message}"
    return EdgeError(Reason.LINK_LOST, text, source=Source.UPSTREAM, retryable=True, retry_after_s=2)


def _heard(answer: "asyncio.Future[Reply]") -> None:
    if not answer.cancelled():
        answer.exception()
