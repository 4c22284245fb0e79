"""Nodes of one region as far as weights go: certificates of one fleet, blob servers, weights processes."""

import asyncio
import contextlib
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from edge.config import Index, Weights
from edge.weights.parts import WeightsBoot
from edge.weights.tls import Papers
from edge.wire.link import Link
from netlab.ca import Ca, issue, write_ca
from tests.support.redis import Place, RedisServer
from tests.support.wait import wait_until
from tests.support.weights import PROGRAM, Running


def papers(ca: Ca, node: str, **more: Any) -> Papers:
    """One node's, as texts."""
    certificate, key = issue(ca, node, ["127.0.0.1"], ca.path.parent, **more)
    return Papers(ca.path.read_text(), certificate.read_text(), key.read_text())


class Fleet:
    """Starts weights processes that may give each other blobs; a restarted one keeps its store and port."""

    def __init__(self, root: Path, origin_url: str, redis: Place | None) -> None:
        self.root = root
        self.redis = redis
        self._origin_url = origin_url
        self.ca = write_ca(root / "ca")
        self._papers: dict[str, Papers] = {}
        self._listeners: dict[str, tuple[socket.socket, socket.socket]] = {}
        self.running: list[Running] = []

    def address(self, node: str) -> str:
        """host:port of its blob server."""
        return f"127.0.0.1:{self._sockets(node)[1].getsockname()[1]}"

    def _sockets(self, node: str) -> tuple[socket.socket, socket.socket]:
        if node not in self._listeners:
            frames = socket.socket(socket.AF_UNIX)
            frames.bind(str(self.root / f"{node}.sock"))
            frames.listen()
            self._listeners[node] = frames, socket.create_server(("127.0.0.1", 0))
        return self._listeners[node]

    async def start(
        self,
        node: str,
        *,
        region: str = "eu",
        index: bool = True,
        waits: bool = True,
        patience: int = 1,
        **settings: Any,
    ) -> Running:
        """Until it is ready and, with an index, knows that it is up.

        `patience` is how many times longer than else it takes until anything of the index is late.
        """
        frames, blobs = self._sockets(node)
        shared = None
        if index and self.redis is not None:
            shared = Index(
                **self.redis.place,
                user=node,
                password_file="unused",
                timeout_ms=200 * patience,
                lease_ms=1_000 * patience,
                alive_ms=2_000 * patience,
            )
        weights = Weights(
            **{
                "store": str(self.root / node),
                "origin": self._origin_url,
                "catalogue_poll_ms": 50,
                "blobs": self.address(node),
                "index": shared,
                **settings,
            }
        )
        mine = self._papers.setdefault(node, papers(self.ca, node))
        ours, theirs = socket.socketpair()
        boot = WeightsBoot(
            node=node,
            weights=weights,
            listen_fd=frames.fileno(),
            parent_fd=theirs.fileno(),
            region=region,
            boot=secrets.token_hex(8),
            blobs_fd=blobs.fileno(),
            index_password=RedisServer.password(node),
            mesh_ca=mine.ca,
            mesh_certificate=mine.certificate,
            mesh_key=mine.key,
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            msgspec.json.encode(boot).decode(),
            pass_fds=(frames.fileno(), blobs.fileno(), theirs.fileno()),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        theirs.close()
        beats: list[Any] = []
        loop = asyncio.get_running_loop()
        _, parent = await loop.create_connection(
            lambda: Link(on_event=lambda head, _: beats.append(head)), sock=ours
        )
        one = Running(process, parent, str(self.root / f"{node}.sock"), self.root / node)
        self.running.append(one)
        await wait_until(lambda: process.returncode is not None or any(b.ready for b in beats), within_s=15)
        if shared is not None and waits:
            await wait_until(lambda: self.is_up(one), within_s=10)
        return one

    @staticmethod
    async def is_up(node: Running) -> bool:
        """Does it see the index?"""
        return (await node.state()).index.state == "up"

    async def sees(self, node: Running, *others: str) -> None:
        """Until `node` knows that these live."""

        async def seen() -> bool:
            return set(others) <= set((await node.state()).index.nodes)

        await wait_until(seen, within_s=10)

    async def _end(self, one: Running) -> None:
        with contextlib.suppress(ProcessLookupError):
            await one.stop()
        for link in (*one.links, one.parent):
            link.close()

    async def close(self) -> None:
        await asyncio.gather(*map(self._end, self.running))
        for pair in self._listeners.values():
            for listener in pair:
                listener.close()


@contextlib.asynccontextmanager
async def fleet(root: Path, origin_url: str, redis: Place | None) -> AsyncIterator[Fleet]:
    """A fleet whose processes have ended afterwards."""
    made = Fleet(root, origin_url, redis)
    try:
        yield made
    finally:
        await made.close()
