"""Links to the other nodes of this POP, over mutual TLS.

A peer is up while it answers a probe and says that it has workers. Both ends of a link
prove that they belong to this fleet: TLS 1.3, certificates of the fleet's own CA, and the
asking side checks that the certificate names the node it meant.
"""

import asyncio
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge.config import Mesh, Peer, host_port
from edge.errors import EdgeError, Reason, Source
from edge.fleet.snapshot import EndpointState
from edge.policy.facts import State
from edge.wire import calls
from edge.wire.dial import Dialer
from edge.wire.exchange import Incoming
from edge.wire.link import Link

PROBE_S: Final = 0.5
PROBE_TIMEOUT_S: Final = 1.5


def tls_context(purpose: ssl.Purpose, *, ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """A TLS 1.3 context that demands a certificate of `ca` from the other side. Arguments are PEM text."""
    context = ssl.SSLContext(
        ssl.PROTOCOL_TLS_SERVER if purpose is ssl.Purpose.CLIENT_AUTH else ssl.PROTOCOL_TLS_CLIENT
    )
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=ca)
    # The ssl module reads a key from a file only; this one exists for the length of the call.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        Path(file.name).chmod(0o600)
        file.write(certificate + "\n" + key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


class PeerNode:
    """One other node: its endpoint in the snapshot, and the link to it."""

    def __init__(
        self, peer: Peer, mesh: Mesh, tls: ssl.SSLContext, endpoint: EndpointState, *, max_body_bytes: int
    ) -> None:
        self.peer = peer
        self.endpoint = endpoint
        self.dialer = Dialer(
            peer.node,
            address=host_port(peer.address),
            tls=tls,
            greet=self._probe,
            on_lost=lambda: endpoint.set_state(State.DOWN),
            connect_timeout_s=mesh.connect_timeout_ms / 1000.0,
            max_body_bytes=max_body_bytes,
        )

    async def run(self) -> None:
        """Keep the link and the endpoint's state true until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.dialer.run())
            tasks.create_task(self._probe_forever())

    async def _probe_forever(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            link = self.dialer.link
            if link is None or link.closed:
                continue
            try:
                await self._probe(link)
            except EdgeError as error:
                self.dialer.last_error = str(error)
                self.endpoint.set_state(State.DOWN)
                link.abort()

    async def _probe(self, link: Link) -> None:
        reply = await link.request(calls.Status(), timeout_s=PROBE_TIMEOUT_S)
        head = reply.head
        if not isinstance(head, calls.PeerState) or head.node != self.peer.node:
            raise EdgeError(
                Reason.PROTOCOL, f"{self.peer.node} answered as somebody else", source=Source.UPSTREAM
            )
        starting = State.STARTING if head.workers_starting else State.DOWN
        state = State.UP if head.workers_up else starting
        if state is not self.endpoint.state:
            self.endpoint.set_state(state)
        self.endpoint.warm.clear()
        self.endpoint.warm.update(head.warm)


class MeshServer:
    """The listening side: every accepted link's calls go to `on_call`."""

    def __init__(self, *, on_call: Callable[[Incoming], None], max_body_bytes: int, max_calls: int) -> None:
        self._on_call = on_call
        self._max_body_bytes = max_body_bytes
        self._max_calls = max_calls
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        """Accept on a listening socket."""
        self._server = await asyncio.get_running_loop().create_server(
            self._make_link,
            sock=listener,
            ssl=tls,
            ssl_handshake_timeout=5.0,
        )

    def _make_link(self) -> Link:
        # An accepting link cannot know whether it will be shared; it pauses for the body it carries
        # only when nothing else is on it, which is what `exclusive` callers guarantee.
        return Link(
            on_call=self._on_call,
            on_open=self._links.add,
            on_closed=self._links.discard,
            max_body_bytes=self._max_body_bytes,
            max_calls=self._max_calls,
            exclusive=True,
        )

    async def close(self) -> None:
        """Stop accepting and close the links."""
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.close()
