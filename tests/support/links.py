"""Links over real sockets: a server whose links answer, links to it, and answers that stream."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from edge.background import Background
from edge.wire import calls
from edge.wire.exchange import Incoming
from edge.wire.frame import SHARED_BODY_BYTES
from edge.wire.link import Link


class Answerer:
    """A listening end. `links` are those it accepted, in order."""

    def __init__(self, server: asyncio.Server, links: list[Link], address: Any) -> None:
        self.server = server
        self.links = links
        self.address = address

    async def dial(self, **options: Any) -> Link:
        """One link to it."""
        loop = asyncio.get_running_loop()
        if isinstance(self.address, str):
            _, link = await loop.create_unix_connection(lambda: Link(**options), self.address)
        else:
            _, link = await loop.create_connection(lambda: Link(**options), *self.address)
        return link


@contextlib.asynccontextmanager
async def answerer(
    where: str | int, on_call: Callable[[Incoming], None], **options: Any
) -> AsyncIterator[Answerer]:
    """Listens at a UNIX path, or at a TCP port of the loopback (0: any)."""
    loop = asyncio.get_running_loop()
    links: list[Link] = []

    def make() -> Link:
        return Link(on_call=on_call, on_open=links.append, exclusive=True, **options)

    if isinstance(where, str):
        server = await loop.create_unix_server(make, where)
        there = Answerer(server, links, where)
    else:
        server = await loop.create_server(make, "127.0.0.1", where, reuse_address=True, reuse_port=True)
        there = Answerer(server, links, server.sockets[0].getsockname())
    try:
        yield there
    finally:
        server.close()
        for link in links:
            link.abort()
        await server.wait_closed()


class Streamer:
    """Answers each call with what `chunks(incoming)` yields; keeps what became of it."""

    def __init__(self, chunks):
        self.chunks = chunks
        self.background = Background()
        self.incoming = []
        self.tasks = []
        self.taken = 0
        self.closed = 0

    def on_call(self, incoming):
        """For a link: `echo` is answered at once, all else is streamed."""
        if incoming.body == b"echo":
            incoming.reply(calls.Inferred(), b"echo")
            return
        self.incoming.append(incoming)
        self.tasks.append(self.background.spawn(incoming.stream(calls.Inferred(), self._counted(incoming))))

    async def _counted(self, incoming):
        try:
            async for chunk in self.chunks(incoming):
                self.taken += len(chunk)
                yield chunk
        finally:
            self.closed += 1


def slices(count):
    """A source of `count` slices, each of another byte."""

    async def chunks(incoming):
        for number in range(count):
            yield bytes([number % 251]) * SHARED_BODY_BYTES

    return chunks


async def forever(incoming):
    """A source without an end."""
    while True:
        yield bytes(SHARED_BODY_BYTES)


async def one_then_stall(incoming):
    """A source that yields once and then waits for ever."""
    yield b"first"
    await asyncio.Event().wait()
