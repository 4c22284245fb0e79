"""Who asks the region's index for a lease learns who else is at that blob, and where."""

from collections.abc import Iterator

import pytest

from edge.weights.index import Lease, Taken
from edge.weights.scripts import MAX_BESIDE
from tests.support.indexnodes import X, joined
from tests.support.redis import RedisServer
from tests.support.redis import running as redis_running
from tests.support.wait import wait_until


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_running("us", ("iad-a", "iad-b", "iad-c")) as running:
        yield running


async def test_each_asker_is_told_of_the_others_and_where_they_give_blobs(server: RedisServer) -> None:
    async with joined(server, "iad-a", "iad-b", "iad-c") as (a, b, c):
        lease = await a.index.lease(X)
        assert isinstance(lease, Lease)
        assert lease.beside == ()
        second = await b.index.lease(X)
        assert isinstance(second, Taken)
        assert (second.node, second.beside) == ("iad-a", ("iad-a",))
        taken = await c.index.lease(X)
        assert isinstance(taken, Taken)
        assert (taken.node, set(taken.beside)) == ("iad-a", {"iad-a", "iad-b"})
        await wait_until(lambda: c.index.address("iad-b") is not None)
        assert c.index.address("nobody") is None
        # Who gets it after another one is told of those that may have some of it.
        await a.index.release(lease)
        after = await b.index.lease(X)
        assert isinstance(after, Lease)
        assert set(after.beside) == {"iad-a", "iad-c"}


async def test_what_somebody_else_wrote_there_is_gone_round(server: RedisServer) -> None:
    async with joined(server, "iad-a") as (a,):
        by = server.key(f"lease:{X}:by")
        server.admin.hset(by, mapping={"../x": "1", "UPPER": "1", "n" * 99: "1", "iad-b": "1"})
        lease = await a.index.lease(X)
        assert isinstance(lease, Lease)
        assert lease.beside == ("iad-b",)
        await a.index.release(lease)
        server.admin.hset(by, mapping={f"n-{number}": "1" for number in range(MAX_BESIDE)})
        crowded = await a.index.lease(X)
        assert isinstance(crowded, Lease)
        assert crowded.beside == ()
        await a.index.release(crowded)
        server.admin.set(by, "no hash")
        odd = await a.index.lease(X)
        assert isinstance(odd, Lease)
        assert odd.beside == ()
        assert 0 < server.admin.pttl(by) <= 20_000
