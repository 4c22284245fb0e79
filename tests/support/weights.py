"""One weights process as a test holds it: its calls, its disk, its death."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edge.errors import EdgeError
from edge.wire import calls, states
from edge.wire.link import Link
from tests.support.blobs import Published

PROGRAM = """
import logging, sys
import msgspec
from edge.weights.app import main
from edge.weights.parts import WeightsBoot
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
sys.exit(main(msgspec.json.decode(sys.argv[1], type=WeightsBoot)))
"""


class Running:
    """One weights process, the parent's end of its link, and a way to call it."""

    def __init__(self, process: asyncio.subprocess.Process, parent: Link, path: str, store: Path) -> None:
        self.process = process
        self.parent = parent
        self.path = path
        self.store = store
        self.beats: list[calls.Heartbeat] = []
        self.links: list[Link] = []

    async def connect(self) -> Link:
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(Link, self.path)
        self.links.append(link)
        return link

    async def call(self, head: calls.Head, link: Link | None = None) -> tuple[Any, bytes]:
        """Over `link`, or the first one."""
        link = link or (self.links[0] if self.links else await self.connect())
        reply = await link.request(head, timeout_s=30.0)
        return reply.head, await reply.whole()

    async def ensure(
        self, model: Published, link: Link | None = None, deadline_ms: float = 20_000
    ) -> calls.Ensured:
        head, body = await self.call(calls.Ensure(model.digest, deadline_ms), link)
        assert body == model.raw
        assert isinstance(head, calls.Ensured)
        return head

    async def refused(self, model: Published, link: Link | None = None) -> EdgeError:
        with pytest.raises(EdgeError) as caught:
            await self.ensure(model, link)
        return caught.value

    async def release(self, model: Published, link: Link | None = None) -> None:
        await self.call(calls.Release(model.digest), link)

    async def state(self) -> calls.WeightsState:
        return states.weights_state(*await self.call(calls.Status()))

    def on_disk(self) -> int:
        """Bytes of all files of the store, as the disk has them."""
        return sum(path.lstat().st_size for path in self.store.rglob("*") if path.is_file())

    def blobs(self) -> set[str]:
        return {path.name for path in (self.store / "blobs").iterdir()}

    async def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(6):
            return await self.process.wait()

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()
