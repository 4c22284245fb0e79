"""A blob server of the tests' own over a shelf of files, a client of it, and a server that lies."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from blake3 import blake3

from edge.weights.peersource import Peer
from edge.weights.serve import BlobServer, Lender, Lent
from edge.weights.tls import context
from netlab.ca import Ca
from tests.support.region import papers
from tests.support.wait import wait_until


class Shelf:
    """Files that a server may lend, and what is lent now."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keys: dict[str, int] = {}
        self.lent: Counter[str] = Counter()
        self.most_lent = 0

    def put(self, content: bytes, *, claim_bytes: int | None = None) -> str:
        digest = str(blake3(content).hexdigest())
        path = self.root / "blobs" / digest
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        self.keys[f"blobs/{digest}"] = len(content) if claim_bytes is None else claim_bytes
        return digest

    def lend(self, key: str) -> Lent | None:
        if key not in self.keys:
            return None
        self.lent[key] += 1
        self.most_lent = max(self.most_lent, self.lent.total())
        return Lent(key, self.root / key, self.keys[key])

    def take_back(self, lent: Lent) -> None:
        self.lent[lent.key] -= 1


class Running:
    """A blob server, and a client of it."""

    def __init__(self, shelf: Shelf, server: BlobServer, port: int, tls: ssl.SSLContext) -> None:
        self.shelf = shelf
        self.server = server
        self.port = port
        self.tls = tls
        self.stop = threading.Event()
        self.peer = Peer("fra-a", ("127.0.0.1", port), tls, self.stop)

    async def get(self, digest: str, start: int, end: int, size: int) -> bytes:
        def whole() -> bytes:
            path = f"blobs/{digest}"
            return b"".join(bytes(part) for part in self.peer.range(path, start, end, object_bytes=size))

        return await asyncio.to_thread(whole)

    async def raw(self, request: str) -> bytes:
        """The answer to a request as it stands, until the server closes."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.tls, server_hostname="fra-a"
        )
        try:
            writer.write(f"{request}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            async with asyncio.timeout(5):
                return await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def blob_server(root: Path, ca: Ca, node: str = "fra-a") -> AsyncIterator[Running]:
    shelf = Shelf(root)
    mine = papers(ca, node)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    crashes: list[None] = []
    server = BlobServer(
        listener,
        context(ssl.Purpose.CLIENT_AUTH, mine),
        Lender(shelf.lend, shelf.take_back),
        lambda: crashes.append(None),
    )
    server.start()
    running = Running(shelf, server, port, context(ssl.Purpose.SERVER_AUTH, papers(ca, "ber-a")))
    try:
        yield running
        await wait_until(lambda: shelf.lent.total() == 0)
    finally:
        running.peer.close()
        await asyncio.to_thread(server.stop)
    assert not crashes


class Liar:
    """A TLS server that answers each request with the same bytes."""

    def __init__(self, answer: bytes, *, drip_s: float = 0.0) -> None:
        self.answer = answer
        self.drip_s = drip_s
        self.requests = 0
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                for at in range(len(self.answer)) if self.drip_s else (0,):
                    writer.write(self.answer[at : at + 1] if self.drip_s else self.answer)
                    await writer.drain()
                    await asyncio.sleep(self.drip_s)
                if b"cut" in self.answer[:200]:
                    break
        writer.close()


@contextlib.asynccontextmanager
async def lying(ca: Ca, answer: bytes, *, drip_s: float = 0.0) -> AsyncIterator[tuple[Liar, Peer]]:
    liar = Liar(answer, drip_s=drip_s)
    tls = context(ssl.Purpose.CLIENT_AUTH, papers(ca, "fra-a"))
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0, ssl=tls)
    client = context(ssl.Purpose.SERVER_AUTH, papers(ca, "ber-a"))
    peer = Peer("fra-a", ("127.0.0.1", server.sockets[0].getsockname()[1]), client, threading.Event())
    async with server:
        yield liar, peer
        peer.close()


def right(
    body: bytes = b"x" * 100, span: str = "bytes 0-99/100", more: str = "", status: str = "206 x"
) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Range: {span}\r\nContent-Length: 100\r\n{more}\r\n".encode() + body
