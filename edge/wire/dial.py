"""Keep one shared link to somebody open, and open more on request.

The other end may be a process that is still starting (its parent holds the listening
socket, so the connection succeeds before anybody answers) or a node that is away. `run`
connects, greets, waits for the loss, and begins again with backoff; what a greeting is and
what its success means is the caller's business.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from edge.errors import EdgeError, Reason, Source
from edge.wire.frame import FrameError
from edge.wire.link import Link

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 1.0


class Dialer:
    """One address. `greet` runs on each new link and raises EdgeError when it is of no use."""

    def __init__(
        self,
        name: str,
        *,
        unix_path: str | None = None,
        address: tuple[str, int] | None = None,
        tls: ssl.SSLContext | None = None,
        greet: Callable[[Link], Awaitable[None]],
        on_lost: Callable[[], None],
        connect_timeout_s: float = 2.0,
        max_body_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self.name = name
        self._unix_path = unix_path
        self._address = address
        self._tls = tls
        self._greet = greet
        self._on_lost = on_lost
        self._connect_timeout_s = connect_timeout_s
        self._max_body_bytes = max_body_bytes
        self.link: Link | None = None
        self.last_error = "not connected yet"
        self._up = asyncio.Event()

    async def run(self) -> None:
        """Keep the shared link open until cancelled."""
        backoff_s = BACKOFF_FIRST_S
        while True:
            try:
                closed = asyncio.Event()
                link = self.link = await self._connect(exclusive=False, closed=closed)
                try:
                    await self._greet(link)
                    self.last_error = ""
                    self._up.set()
                    backoff_s = BACKOFF_FIRST_S
                    await closed.wait()
                finally:
                    link.close()
                    self._forget(link)
            except (OSError, EdgeError, FrameError, TimeoutError) as error:
                self.last_error = str(error) or type(error).__name__
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    def _forget(self, link: Link) -> None:
        """In the same turn of the loop in which the link was lost: nobody is sent to it any more."""
        if self.link is link:
            self.link, self.last_error = None, "the link was lost"
            self._up.clear()
            self._on_lost()

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

    async def exclusive(self) -> Link:
        """A link for one large exchange; the caller closes it. Raises EdgeError(LINK_LOST, retryable)."""
        try:
            return await self._connect(exclusive=True, closed=None)
        except (OSError, TimeoutError) as error:
            raise EdgeError(
                Reason.LINK_LOST, f"no link to {self.name}: {error}", source=Source.UPSTREAM, retryable=True
            ) from error

    async def _connect(self, *, exclusive: bool, closed: asyncio.Event | None) -> Link:
        loop = asyncio.get_running_loop()

        def on_closed(link: Link) -> None:
            if closed is not None:
                self._forget(link)
                closed.set()

        def make() -> Link:
            return Link(on_closed=on_closed, max_body_bytes=self._max_body_bytes, exclusive=exclusive)

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
