"""A Redis that has another past than the one that was followed: trimmed, restored, set back by its clock."""

import pytest

from edge.weights import scripts
from edge.weights.follower import RELOAD_MS
from edge.weights.index import Lease, Taken
from edge.weights.teller import HEARTBEAT_MS
from tests.support.indexnodes import NODES, X, Y, Z, joined, numbered, two_with_x
from tests.support.redis import running
from tests.support.wait import wait_until

#: Long before everything is read again in any case.
SOON_S = RELOAD_MS / 1000 / 4
HOUR_MS = 3_600_000


@pytest.fixture
def server():
    with running("us", NODES) as one:
        yield one


@pytest.fixture
async def pair(server):
    """iad-b has X, iad-a knows it."""
    async with two_with_x(server) as nodes:
        yield nodes


async def until_listed(server, node, *digests, within_s=SOON_S):
    wanted = {digest.encode() for digest in digests}
    await wait_until(lambda: server.admin.smembers(server.key(f"have:{node}")) == wanted, within_s=within_s)


async def test_a_dump_of_the_same_epoch_brings_back_nothing_that_is_gone(server, pair):
    """Neither what a living node has dropped since, nor what a node had that is no more."""
    a, b = pair
    epoch = a.index.state().epoch
    async with joined(server, "iad-c", disks=[{Z: 1}]) as (c,):
        b.put(Y)
        await a.until(Y, "iad-b")
        await a.until(Z, "iad-c")
        server.dump()
        await c.stop(clean=False)
    b.drop(Y)
    b.put("d" * 64)
    await a.until("d" * 64, "iad-b")
    await until_listed(server, "iad-b", X, "d" * 64)
    server.restore()
    await a.until_up()
    await b.until_up()
    assert a.index.state().epoch == epoch, "this dump is of the same epoch"
    await until_listed(server, "iad-b", X, "d" * 64)
    await until_listed(server, "iad-c")
    await a.until(Y, within_s=SOON_S)
    await a.until(Z, within_s=SOON_S)
    await a.until("d" * 64, "iad-b", within_s=SOON_S)
    await a.until(X, "iad-b", within_s=SOON_S)
    assert not server.admin.exists(server.key(f"loc:{Y}"), server.key(f"loc:{Z}"))


async def test_a_dump_of_an_earlier_epoch_brings_back_nothing_that_is_gone(server, pair):
    a, b = pair
    b.put(Y)
    await a.until(Y, "iad-b")
    old = a.index.state().epoch
    server.dump()
    server.flush()
    await wait_until(lambda: a.index.state().epoch not in ("", old))
    await until_listed(server, "iad-b", X, Y)
    b.drop(Y)
    await a.until(Y)
    server.restore()
    await wait_until(lambda: a.index.state().epoch == old)
    await until_listed(server, "iad-b", X)
    await a.until(Y, within_s=SOON_S)
    await a.until(X, "iad-b", within_s=SOON_S)


async def test_another_stream_is_noticed_though_it_has_newer_events(server, pair):
    """As in a replica that took over before the last changes had reached it, and was written to at once."""
    _, b = pair
    with server.admin.pipeline(transaction=True) as at_once:
        at_once.delete(server.key("ev"))
        at_once.hdel(server.key(f"loc:{X}"), "iad-b")
        at_once.xadd(server.key("ev"), {"epoch": "?"}, id="9999999999999-0")
        at_once.execute()
    await wait_until(lambda: server.admin.hkeys(server.key(f"loc:{X}")) == [b"iad-b"], within_s=SOON_S)
    assert b.index.state().reregistered == 0


async def test_a_stream_that_is_trimmed_to_nothing_costs_one_reading(server, pair):
    a, b = pair
    pages = []
    run = a.index._events.run
    a.index._events.run = lambda script, *rest: (
        (script == scripts.PAGE and pages.append(1)) or run(script, *rest)
    )
    server.admin.xtrim(server.key("ev"), maxlen=0, approximate=False)
    await wait_until(lambda: pages)
    for digest in numbered(20):
        b.put(digest)
        await a.until(digest, "iad-b")
    assert len(pages) <= 2


async def test_a_clock_set_back_keeps_no_dead_node_alive(server, pair):
    """Signs of life and leases last as long as they did, by the new clock: an hour longer."""
    a, b = pair
    assert isinstance(await b.index.lease(Z), Lease)
    await b.stop(clean=False)
    server.admin.pexpire(server.key("alive:iad-b"), HOUR_MS + 2_000)
    server.admin.pexpire(server.key(f"lease:{Z}"), HOUR_MS + 2_000)
    await a.until(X, within_s=SOON_S)
    await until_listed(server, "iad-b")
    assert isinstance(await a.index.lease(Z), Lease)


async def test_a_clock_set_forward_kills_nobody(server, pair):
    """Everything that runs out has run out: every node says again that it lives, and no blob is unlisted."""
    a, b = pair
    await wait_until(lambda: a.index.may_judge() and b.index.may_judge(), within_s=SOON_S)
    server.admin.delete(server.key("alive:iad-a"), server.key("alive:iad-b"))
    await wait_until(lambda: server.admin.exists(server.key("alive:iad-b")), within_s=2 * HEARTBEAT_MS / 1000)
    await a.until(X, "iad-b")
    assert server.admin.hkeys(server.key(f"loc:{X}")) == [b"iad-b"]
    assert (a.index.state().reregistered, b.index.state().reregistered) == (0, 0)
    b.put(Y)
    await a.until(Y, "iad-b")
    assert isinstance(await a.index.lease(Z), Lease)
    assert isinstance(await b.index.lease(Z), Taken)
