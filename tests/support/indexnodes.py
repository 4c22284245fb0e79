"""Nodes of one region as far as its index goes: an Index each, and a disk that is a dict."""

import asyncio
import contextlib

from edge import clock, config
from edge.weights.index import Index, Lease
from tests.support.wait import wait_until

NODES = ("iad-a", "iad-b", "iad-c")
ADDRESSES = {node: f"127.0.0.1:{7401 + number}" for number, node in enumerate(NODES)}
X, Y, Z = "a" * 64, "b" * 64, "c" * 64
MIB = 1 << 20


class Node:
    """One node's index, and the disk it tells of."""

    def __init__(
        self,
        server,
        node,
        *,
        boot="b1",
        alive_ms=6_000,
        lease_ms=10_000,
        timeout_ms=200,
        password=None,
        region="us",
    ):
        self.disk = {}
        self.changes = 0
        self.index = Index(
            config.Index(
                url=server.url, user=node, lease_ms=lease_ms, alive_ms=alive_ms, timeout_ms=timeout_ms
            ),
            region=region,
            node=node,
            boot=boot,
            blobs=ADDRESSES[node],
            password=server.password(node) if password is None else password,
            stored=lambda: self.disk,
            on_change=self._changed,
            draw=lambda: 0.5,
        )
        self.task = None

    def _changed(self):
        self.changes += 1

    def put(self, *digests):
        for digest in digests:
            self.disk[digest] = 1000
            self.index.add(digest, 1000)

    def drop(self, digest):
        del self.disk[digest]
        self.index.remove(digest)

    def names(self, digest):
        return [holder.node for holder in self.index.holders(digest)]

    async def until(self, digest, *names, within_s=5.0):
        await wait_until(lambda: self.names(digest) == list(names) or None, within_s=within_s)

    async def until_up(self, within_s=5.0):
        await wait_until(lambda: self.index.state().state == "up" or None, within_s=within_s)

    async def until_stale(self, within_s=5.0):
        await wait_until(lambda: self.index.state().state == "stale" or None, within_s=within_s)

    async def stop(self, *, clean=True):
        """Clean, or as a process that was killed: nobody is told."""
        assert not self.task.done(), "the index must never end by itself"
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        if not clean:
            self.index._well = dict.fromkeys(self.index._well, False)
        await self.index.close()


@contextlib.asynccontextmanager
async def joined(server, *nodes, disks=None, **options):
    """Nodes whose indexes run and are up."""
    made = [Node(server, node, **options) for node in nodes]
    try:
        for node, disk in zip(made, disks or [{}] * len(made), strict=True):
            node.disk = dict(disk)
            node.task = asyncio.get_running_loop().create_task(node.index.run())
        for node in made:
            await node.until_up(15)
        yield made
    finally:
        for node in made:
            if not node.task.cancelled():
                await node.stop()


def numbered(count, start=0):
    return {f"{number:064x}": 1000 for number in range(start, start + count)}


async def whole_again(server, a, b):
    """Up on both, and what is told now arrives."""
    await a.until_up()
    await b.until_up()
    b.put(Y)
    await a.until(Y, "iad-b")
    await a.until(X, "iad-b")
    assert isinstance(await a.index.lease(Z), Lease)


async def refused_within(node, limit_ms=400):
    """How a lease is refused, and that it takes no longer than that."""
    begun_ms = clock.now_ms()
    answer = await node.index.lease(Z)
    assert clock.now_ms() - begun_ms < limit_ms
    return answer


@contextlib.asynccontextmanager
async def two_with_x(server):
    """iad-a and iad-b; iad-b has X, iad-a knows it."""
    async with joined(server, "iad-a", "iad-b", disks=[{}, {X: 1}], alive_ms=2_000) as (a, b):
        await a.until(X, "iad-b")
        yield a, b
