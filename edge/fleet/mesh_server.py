"""The listening side of the mesh: who may come in, and what needs no thought.

Accepts links, learns the node's name from its certificate, answers greetings and probes, and
hands every other call to `on_call`. A link whose certificate names no node, or that greets as
somebody else, is closed. What an inference is stands elsewhere.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

from edge.background import Background
from edge.errors import EdgeError, Reason, Source
from edge.fleet.publish import Publisher
from edge.fleet.tls import named
from edge.wire import calls, meshcalls
from edge.wire.exchange import Incoming
from edge.wire.link import Link

log = logging.getLogger(__name__)

HANDSHAKE_S: Final = 5.0
#: After an accept that failed (descriptors ran out) nothing is accepted for so long.
BACK_OFF_S: Final = 0.1


class MeshServer:
    """`on_call` gets each call but greetings and probes, from nodes whose name is proven."""

    def __init__(
        self,
        *,
        me: str,
        version: str,
        publisher: Publisher,
        on_call: Callable[[Incoming], None],
        max_body_bytes: int,
        max_calls: int,
        max_links: int,
    ) -> None:
        self._welcome = meshcalls.Welcome(me, version)
        self._publisher = publisher
        self._on_call = on_call
        self._max_body_bytes = max_body_bytes
        self._max_calls = max_calls
        self._max_links = max_links
        self._names: dict[Link, tuple[str, ...]] = {}
        self._subscribed: dict[Link, str] = {}
        self._handshakes = 0
        self._listener: socket.socket | None = None
        self._tls: ssl.SSLContext | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._empty = asyncio.Event()
        self._background = Background()
        #: Connections that never became a link, by what was wrong: full | tls | nameless | greeting.
        self.refused: dict[str, int] = {}
        self.last_refusal = ""

    @property
    def links(self) -> int:
        """Open links."""
        return len(self._names)

    def node_of(self, link: Link) -> str | None:
        """The node at the other end: as it greeted, else as its certificate says first; None when closed."""
        found = self._subscribed.get(link)
        if found is None:
            names = self._names.get(link)
            found = names[0] if names else None
        return found

    async def start(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        """Accept on a listening socket, which is this server's from now on."""
        listener.setblocking(False)
        self._listener, self._tls = listener, tls
        self._accepting = self._background.spawn(self._accept_forever(listener))

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Accept no more, ask every node to dial again, wait until they have left, and close the links."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait((self._accepting,))
        if self._listener is not None:
            self._listener.close()
        for link in list(self._names):
            link.goodbye()
        # A node that heard it closes the link once its calls there are answered; to look only at the calls
        # that have arrived would lose those that are still on their way.
        if self._names:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_s):
                    await self._empty.wait()
        for link in list(self._names):
            link.close()
        await self._background.close()

    # --- accepting

    async def _accept_forever(self, listener: socket.socket) -> None:
        # Not the loop's own server: it would know a connection only after its handshake, so that any
        # number of them could be kept waiting in one.
        loop = asyncio.get_running_loop()
        while True:
            try:
                conn, address = await loop.sock_accept(listener)
            except OSError as error:
                self._refuse("accept", str(error))
                await asyncio.sleep(BACK_OFF_S)
                continue
            if len(self._names) + self._handshakes >= self._max_links:
                self._refuse("full", f"{self._max_links} links are open")
                conn.close()
                continue
            self._handshakes += 1
            self._background.spawn(self._admit(conn, address))

    async def _admit(self, conn: socket.socket, address: object) -> None:
        link = self._make_link()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: link, conn, ssl=self._tls, ssl_handshake_timeout=HANDSHAKE_S
            )
        except OSError as error:  # ssl.SSLError, resets and the handshake's time-out are all of this kind
            self._refuse("tls", f"{address}: {error}")
        finally:
            self._handshakes -= 1
            if link.transport is None:
                conn.close()

    def _make_link(self) -> Link:
        # An accepting link cannot know whether it will be shared; it pauses for the body it carries
        # only when nothing else is on it, which is what `exclusive` callers guarantee.
        link = Link(
            on_call=self._called,
            on_event=lambda head, _: self._told(link, head),
            on_open=self._opened,
            on_closed=self._closed,
            max_body_bytes=self._max_body_bytes,
            max_calls=self._max_calls,
            exclusive=True,
        )
        return link

    def _opened(self, link: Link) -> None:
        names = named(link.transport) if link.transport is not None else ()
        if names:
            self._names[link] = names
        else:
            self._refuse("nameless", "the certificate names no node")
            link.abort()

    def _closed(self, link: Link) -> None:
        self._names.pop(link, None)
        self._subscribed.pop(link, None)
        self._publisher.unsubscribe(link)
        if not self._names:
            self._empty.set()

    def _refuse(self, why: str, text: str) -> None:
        if why not in self.refused:
            log.warning("a mesh connection was refused", extra={"why": why, "error": text})
        self.refused[why] = self.refused.get(why, 0) + 1
        self.last_refusal = text

    # --- calls

    def _called(self, incoming: Incoming) -> None:
        if incoming.link not in self._names:
            incoming.fail(_forbidden("the certificate names no node"))
            return
        match incoming.head:
            case meshcalls.Probe():
                incoming.reply(calls.Done())
            case meshcalls.Subscribe(node):
                self._greeted(incoming, node)
            case _:
                self._on_call(incoming)

    def _greeted(self, incoming: Incoming, node: str) -> None:
        link = incoming.link
        names = self._names[link]
        if node not in names:
            text = f"the certificate names {', '.join(names)}, not {node[:64]!r}"
            self._refuse("greeting", text)
            incoming.fail(_forbidden(text))
            link.close()
            return
        self._subscribed[link] = node
        incoming.reply(self._welcome)
        self._publisher.subscribe(link)

    def _told(self, link: Link, head: calls.Head) -> None:
        if isinstance(head, meshcalls.Resync):
            self._publisher.resync(link)


def _forbidden(text: str) -> EdgeError:
    return EdgeError(Reason.FORBIDDEN, text, source=Source.DOWNSTREAM)
