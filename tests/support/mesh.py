"""Nodes of a mesh in one process: real TLS sockets, a book that writes everything down, an evil peer."""

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import msgspec

from edge.config import Mesh
from edge.fleet.mesh_server import MeshServer
from edge.fleet.peers import Peer
from edge.fleet.publish import Publisher
from edge.fleet.tls import tls_context
from edge.wire import calls, meshcalls
from edge.wire.frame import Kind, encode
from edge.wire.link import Link
from netlab.ca import issue, write_ca
from tests.support.beacons import beacon
from tests.support.ports import free_port


def mesh(**changes):
    """Short times, so that a test of silence takes a second."""
    short = {
        "coalesce_ms": 10,
        "heartbeat_ms": 40,
        "suspect_ms": 250,
        "unroutable_ms": 500,
        "forget_ms": 1_000,
    }
    paths = {"listen": "127.0.0.1:1", "ca": "ca.pem", "certificate": "c.pem", "key": "k.pem"}
    return Mesh(**(paths | {"connect_timeout_ms": 1_000} | short | changes))


class Pki:
    """A fleet's authority, and certificates of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = write_ca(directory)

    def pair(self, node, **options):
        return issue(self.ca, node, ["127.0.0.1"], self.directory, **options)

    def context(self, node, purpose=ssl.Purpose.SERVER_AUTH, **options):
        certificate, key = self.pair(node, **options)
        return tls_context(
            purpose, ca=self.ca.path.read_text(), certificate=certificate.read_text(), key=key.read_text()
        )


class Book:
    """What a peer reports, in order."""

    def __init__(self):
        self.beacons = {}
        self.links = []
        self.standings = []
        self.rtts_ms = []
        self.forgotten = []

    def take(self, beacon, at_ms):
        self.beacons[beacon.node] = beacon

    def linked(self, node, up):
        self.links.append((node, up))

    def measured_rtt(self, node, rtt_ms):
        self.rtts_ms.append(rtt_ms)

    def standing(self, node, standing):
        self.standings.append((node, standing))

    def forget(self, node):
        self.forgotten.append(node)
        self.beacons.pop(node, None)

    def seq(self, node="fra-a"):
        return self.beacons[node].seq if node in self.beacons else 0


class Station:
    """A node that listens: its state is a beacon that the test changes."""

    def __init__(self, pki, node="fra-a", *, held=3, boot=7, config=None, listener=None, port=0, **options):
        self.node = node
        self.config = config or mesh()
        self.state = beacon(held, node=node, boot=boot)
        self.made = 0
        self.calls = []
        self.publisher = Publisher(
            self._make, coalesce_ms=self.config.coalesce_ms, heartbeat_ms=self.config.heartbeat_ms
        )
        self.server = MeshServer(
            me=node,
            version="0.1.0",
            publisher=self.publisher,
            on_call=self.calls.append,
            **({"max_body_bytes": 1 << 24, "max_calls": 64, "max_links": self.config.max_links} | options),
        )
        self._context = pki.context(node, ssl.Purpose.CLIENT_AUTH)
        self.port = port
        self._listener = listener
        self._telling = None

    def _make(self, seq):
        self.made += 1
        return msgspec.structs.replace(self.state, seq=seq)

    def change(self, **changes):
        self.state = msgspec.structs.replace(self.state, **changes)
        self.publisher.changed()

    async def start(self, tasks):
        listener = self._listener or socket.create_server(("127.0.0.1", self.port or free_port()))
        self.port = listener.getsockname()[1]
        await self.server.start(listener, self._context)
        self._telling = tasks.create_task(self.publisher.run())
        return self

    async def fall_silent(self):
        """The link stays; nothing is told on it."""
        self._telling.cancel()
        await asyncio.wait((self._telling,))

    async def stop(self, drain_s=0.0):
        await self.server.close(drain_s=drain_s)
        await self.fall_silent()


@contextlib.asynccontextmanager
async def station(pki, node="fra-a", **options):
    async with asyncio.TaskGroup() as tasks:
        one = await Station(pki, node, **options).start(tasks)
        try:
            yield one
        finally:
            await one.stop()


@contextlib.asynccontextmanager
async def peering(pki, port, *, node="fra-a", me="iad-a", config=None, context=None):
    """(a peer that runs, its book)."""
    book = Book()
    peer = Peer(
        node,
        ("127.0.0.1", port),
        me=me,
        version="0.1.0",
        mesh=config or mesh(),
        tls=context or pki.context(me),
        book=book,
        max_body_bytes=1 << 24,
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(peer.run())
        try:
            yield peer, book
        finally:
            running.cancel()


class Evil:
    """A node of the fleet, by its certificate, that says what the test wants."""

    def __init__(self):
        self.links = []
        self.heard = []
        self.port = 0

    def _call(self, incoming):
        incoming.reply(
            meshcalls.Welcome("fra-a") if isinstance(incoming.head, meshcalls.Subscribe) else calls.Done()
        )

    def _make(self):
        return Link(
            on_call=self._call,
            on_event=lambda head, _: self.heard.append(head),
            on_open=self.links.append,
            on_closed=self.links.remove,
            exclusive=True,
        )

    def say(self, body, head=None):
        """One `BeaconNews`, on every link."""
        for link in self.links:
            link.event(head or meshcalls.BeaconNews(), body)

    def say_frame(self, head, body=b""):
        """An event whose head is any bytes."""
        for link in self.links:
            link.transport.write(encode(Kind.EVENT, 0, head, body))


@contextlib.asynccontextmanager
async def evil(pki):
    one = Evil()
    loop = asyncio.get_running_loop()
    context = pki.context("fra-a", ssl.Purpose.CLIENT_AUTH)
    server = await loop.create_server(one._make, "127.0.0.1", 0, ssl=context)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        for link in list(one.links):
            link.abort()
        await server.wait_closed()
