"""Who holds what: nodes of a region tell each other through a real Redis."""

import asyncio
import statistics

import pytest

from edge import clock
from edge.weights.index import Holder, Lease
from edge.weights.mirror import EPOCH
from tests.support.indexnodes import (
    ADDRESSES,
    NODES,
    X,
    Y,
    Z,
    joined,
    numbered,
)
from tests.support.redis import running
from tests.support.wait import wait_until


@pytest.fixture
def server():
    with running("us", NODES) as one:
        yield one


async def test_what_a_node_has_the_others_know(server):
    async with joined(server, "iad-a", "iad-b", disks=[{X: 1}, {}]) as (a, b):
        await b.until(X, "iad-a")
        assert b.index.holders(X) == (Holder("iad-a", ADDRESSES["iad-a"]),)
        a.put(Y)
        await b.until(Y, "iad-a")
        b.put(Y)
        await a.until(Y, "iad-b")
        a.drop(X)
        await b.until(X)
        assert (a.names(X), a.names(Y), b.names(Y)) == ([], ["iad-b"], ["iad-a"])
        assert a.index.nodes() == ("iad-a", "iad-b")
        state = b.index.state()
        assert (state.state, state.blobs, state.nodes, state.refused) == ("up", 1, ("iad-a", "iad-b"), 0)
        assert EPOCH.fullmatch(state.epoch)
        assert b.changes >= 3


async def test_the_keys_are_those_that_are_written_down(server):
    async with joined(server, "iad-a", disks=[{X: 10, Y: 5}]) as (a,):
        assert isinstance(await a.index.lease(Z), Lease)
        await wait_until(lambda: server.admin.hget(server.key("node:iad-a"), "bytes") == b"15", within_s=4)
        kinds = {
            key.decode().removeprefix(server.prefix): server.admin.type(key).decode()
            for key in server.admin.scan_iter()
        }
        assert kinds == {
            "epoch": "string",
            "ev": "stream",
            "node:iad-a": "hash",
            "alive:iad-a": "string",
            "have:iad-a": "set",
            f"loc:{X}": "hash",
            f"loc:{Y}": "hash",
            f"lease:{Z}": "string",
            f"lease:{Z}:by": "hash",
        }
        assert server.admin.hgetall(server.key(f"loc:{X}")) == {b"iad-a": b"b1"}
        assert server.admin.hget(server.key("node:iad-a"), "blobs") == ADDRESSES["iad-a"].encode()
        assert 0 < server.admin.pttl(server.key("alive:iad-a")) <= 6000
        assert 0 < server.admin.pttl(server.key(f"lease:{Z}")) <= 10_000


async def test_a_node_that_starts_again_with_another_disk_takes_back_what_it_lost(server):
    async with joined(server, "iad-b", alive_ms=1_000) as (b,):
        async with joined(server, "iad-a", disks=[{X: 1, Y: 1}]):
            await b.until(X, "iad-a")
        await b.until(X)
        async with joined(server, "iad-a", disks=[{Y: 1, Z: 1}], boot="b2"):
            await b.until(Z, "iad-a")
            await b.until(Y, "iad-a")
            await b.until(X)
            assert server.admin.smembers(server.key("have:iad-a")) == {Y.encode(), Z.encode()}


async def test_a_dead_node_is_no_holder_and_is_swept(server):
    async with joined(server, "iad-a", "iad-b", disks=[numbered(600), {}], alive_ms=1_000) as (a, b):
        first = next(iter(a.disk))
        await b.until(first, "iad-a")
        await a.stop(clean=False)
        await b.until(first, within_s=4)
        await wait_until(lambda: not server.admin.keys(server.key("have:iad-a")), within_s=6)
        assert server.admin.keys(server.key("loc:*")) == []
        assert not server.admin.exists(server.key("node:iad-a"))
        await wait_until(lambda: b.index.state().blobs == 0, within_s=5)
        assert b.index.nodes() == ("iad-b",)


async def test_more_changes_than_can_wait_end_in_a_full_registration(server):
    async with joined(server, "iad-a", "iad-b") as (a, b):
        many = numbered(10_000)
        a.put(*many)
        await wait_until(lambda: b.index.state().blobs == 10_000, within_s=15)
        await wait_until(lambda: a.index.state().reregistered >= 1)
        assert server.admin.scard(server.key("have:iad-a")) == 10_000


async def test_more_changes_than_can_wait_while_it_registers_are_not_lost(server):
    """The disk changes completely in the middle of a registration."""
    async with joined(server, "iad-a", "iad-b", disks=[numbered(3_000), {}]) as (a, b):
        server.flush()
        await wait_until(lambda: server.admin.scard(server.key("have:iad-a")) > 0, every_s=0)
        for digest in list(a.disk):
            a.drop(digest)
        a.put(*numbered(3_000, start=5_000))
        await wait_until(
            lambda: server.admin.smembers(server.key("have:iad-a")) == {d.encode() for d in a.disk},
            within_s=15,
        )
        await wait_until(lambda: b.index._mirror.held_by("iad-a") == set(a.disk), within_s=15)


async def test_a_mirror_that_fell_behind_the_stream_reads_everything(server):
    async with joined(server, "iad-a", "iad-b") as (a, b):
        b.task.cancel()
        await asyncio.gather(b.task, return_exceptions=True)
        a.put(X)
        await wait_until(lambda: server.admin.exists(server.key(f"loc:{X}")))
        for _ in range(3):
            server.admin.xadd(server.key("ev"), {"epoch": "?"})
        server.admin.xtrim(server.key("ev"), maxlen=1, approximate=False)
        b.task = asyncio.get_running_loop().create_task(b.index.run())
        await b.until(X, "iad-a")
        assert b.index.state().refused == 0


async def test_the_mirrors_lag(server):
    async with joined(server, "iad-a", "iad-b") as (a, b):
        lags_ms = []
        for digest in numbered(200):
            seen = asyncio.get_running_loop().create_task(b.index.wait_changed(digest, 5))
            await asyncio.sleep(0)
            begun_ms = clock.now_ms()
            a.put(digest)
            assert await seen
            lags_ms.append(clock.now_ms() - begun_ms)
            await wait_until(lambda digest=digest: b.names(digest) == ["iad-a"])
        await wait_until(lambda: a.index.state().lag_ms > 0)
        p99_ms = statistics.quantiles(lags_ms, n=100)[98]
        print(f"mirror lag p50 {statistics.median(lags_ms):.2f} ms, p99 {p99_ms:.2f} ms")
        assert statistics.median(lags_ms) < 20
        assert p99_ms < 200
