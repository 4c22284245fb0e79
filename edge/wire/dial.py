"""Keep one shared link to somebody open, and open more on request.

The other end may be a process that is still starting (its parent holds the listening
socket, so the connection succeeds before anybody answers) or a node that is away. `run`
connects, greets, waits for the loss, and begins again with backoff; what a greeting is and
what its success means is the caller's business.

An end that is being replaced says goodbye: its link is no longer given out, a new one is
dialed at once, and the old one stays until what is under way on it has been answered.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.wire import calls
from edge.wire.frame import FrameError
from edge.wire.link import IDLE_S, Link

BACKOFF_FIRST_S: Final = 0.05
#: A node that can be reached again is to be found within a second, handshakes included.
BACKOFF_MAX_S: Final = 0.25
#: A goodbye is followed at once, unless the link had lived shorter than this.
REDIAL_S: Final = 1.0


class Dialer:
    """One address. `greet` runs on each new link and raises EdgeError when it is of no use.

    `greet` is cancelled when its link is lost. `on_lost` runs once for each link that was lost with
    nothing in its place; after a goodbye only when the next dial fails too. `on_event` gets the
    events of shared links, also of one that is being retired.
    """

    def __init__(
        self,
        name: str,
        *,
        unix_path: str | None = None,
        address: tuple[str, int] | None = None,
        tls: ssl.SSLContext | None = None,
        greet: Callable[[Link], Awaitable[None]],
        on_lost: Callable[[], None],
        on_retired: Callable[[], None] | None = None,
        on_event: Callable[[Link, calls.Head, bytes], None] | None = None,
        connect_timeout_s: float = 2.0,
        max_body_bytes: int = 64 * 1024 * 1024,
        idle_s: float = IDLE_S,
    ) -> None:
        self.name = name
        self._unix_path = unix_path
        self._address = address
        self._tls = tls
        self._greet = greet
        self._on_lost = on_lost
        self._on_retired = on_retired
        self._on_event = on_event
        self._connect_timeout_s = connect_timeout_s
        self._max_body_bytes = max_body_bytes
        self._idle_s = idle_s
        self.link: Link | None = None
        self.last_error = "not connected yet"
        self._up = asyncio.Event()
        self._over = asyncio.Event()
        self._greeting: asyncio.Task[None] | None = None
        self._retired: set[Link] = set()
        #: A link was retired and no other has come in its place yet.
        self._replacing = False

    async def run(self) -> None:
        """Keep the shared link open until cancelled; then every link of it is closed."""
        backoff_s = BACKOFF_FIRST_S
        try:
            while True:
                dialed_s = clock.now_s()
                if await self._one_link():
                    # A planned restart is followed at once, but not one that comes every moment.
                    at_once = self._replacing and clock.now_s() - dialed_s >= REDIAL_S
                    backoff_s = 0.0 if at_once else BACKOFF_FIRST_S
                await asyncio.sleep(backoff_s)
                backoff_s = min(max(backoff_s * 2, BACKOFF_FIRST_S), BACKOFF_MAX_S)
        finally:
            for link in list(self._retired):
                link.close()

    async def _one_link(self) -> bool:
        """Connect, greet, and wait until this link is lost or retired; False when it never came so far."""
        self._over.clear()
        try:
            link = self.link = await self._connect(shared=True)
            self._replacing = False
            try:
                await self._greeted(link)
                if self.link is link:
                    self.last_error = ""
                    self._up.set()
                    await self._over.wait()
                return True
            finally:
                if link not in self._retired:
                    link.close()
                    self._forget(link)
        except (OSError, EdgeError, FrameError, TimeoutError) as error:
            self.last_error = str(error) or type(error).__name__
            if self._replacing:
                self._replacing = False
                self._on_lost()
            return False

    async def _greeted(self, link: Link) -> None:
        """Greet; the moment the link is lost the greeting ends, so that it can't succeed after the loss."""
        greeting = self._greeting = asyncio.get_running_loop().create_task(self._greet_on(link))
        if link.closed:
            greeting.cancel()
        try:
            await asyncio.wait((greeting,))
        finally:
            self._greeting = None
            greeting.cancel()
            await asyncio.gather(greeting, return_exceptions=True)
        if greeting.cancelled():
            raise EdgeError(Reason.LINK_LOST, "the link was lost while greeting", source=Source.UPSTREAM)
        greeting.result()

    async def _greet_on(self, link: Link) -> None:
        await self._greet(link)

    def _forget(self, link: Link) -> None:
        """In the same turn of the loop in which the link was lost: nobody is sent to it any more."""
        if self.link is link:
            self.link, self.last_error = None, "the link was lost"
            self._end_of_shared()
            self._on_lost()

    def _retire(self, link: Link) -> None:
        """The same for a goodbye; its exchanges go on, and a new link is dialed."""
        if self.link is link:
            self.link, self.last_error = None, "the other end is being replaced"
            self._retired.add(link)
            self._replacing = True
            self._end_of_shared()
            if self._on_retired is not None:
                self._on_retired()

    def _end_of_shared(self) -> None:
        self._up.clear()
        self._over.set()
        if self._greeting is not None:
            self._greeting.cancel()

    def shared(self) -> Link:
        """The shared link. Raises EdgeError(LINK_LOST, retryable) while there is none."""
        if self.link is None or self.link.closed:
            raise EdgeError(
                Reason.LINK_LOST,
                f"no link to {self.name}: {self.last_error}",
                source=Source.UPSTREAM,
                retryable=True,
            )
        return self.link

    async def wait_shared(self, within_s: float) -> Link:
        """The shared link, waited for while the other end is being restarted. Raises EdgeError(LINK_LOST)."""
        try:
            async with asyncio.timeout(within_s):
                await self._up.wait()
        except TimeoutError:
            pass
        return self.shared()

    @property
    def replacing(self) -> bool:
        """The other end said goodbye and a new link to it is being dialed: it will be there soon."""
        return self._replacing or (bool(self._retired) and not self._up.is_set() and self.link is not None)

    async def exclusive(self) -> Link:
        """A link for one large exchange; the caller closes it. Raises EdgeError(LINK_LOST, retryable)."""
        try:
            return await self._connect(shared=False)
        except (OSError, TimeoutError) as error:
            raise EdgeError(
                Reason.LINK_LOST, f"no link to {self.name}: {error}", source=Source.UPSTREAM, retryable=True
            ) from error

    async def _connect(self, *, shared: bool) -> Link:
        loop = asyncio.get_running_loop()

        def make() -> Link:
            if not shared:
                return Link(max_body_bytes=self._max_body_bytes, idle_s=self._idle_s, exclusive=True)
            link = Link(
                on_event=lambda head, body: self._told(link, head, body),
                on_closed=self._closed,
                on_retired=self._retire,
                max_body_bytes=self._max_body_bytes,
                idle_s=self._idle_s,
            )
            return link

        async with asyncio.timeout(self._connect_timeout_s):
            if self._unix_path is not None:
                _, link = await loop.create_unix_connection(make, self._unix_path)
            elif self._address is not None:
                host, port = self._address
                name = self.name if self._tls is not None else None
                _, link = await loop.create_connection(make, host, port, ssl=self._tls, server_hostname=name)
            else:
                raise ValueError("a Dialer needs unix_path or address")
        return link

    def _closed(self, link: Link) -> None:
        self._retired.discard(link)
        self._forget(link)

    def _told(self, link: Link, head: calls.Head, body: bytes) -> None:
        if self._on_event is not None:
            self._on_event(link, head, body)
