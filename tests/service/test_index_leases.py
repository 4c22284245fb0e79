"""Leases of a real Redis: one of many fetches, the others wait or are told whom to ask."""

import asyncio

import pytest

from edge import clock
from edge.weights.index import Lease, Taken
from tests.support.indexnodes import (
    MIB,
    NODES,
    X,
    joined,
)
from tests.support.redis import running
from tests.support.wait import wait_until


@pytest.fixture
def server():
    with running("us", NODES) as one:
        yield one


async def test_of_200_contenders_one_wins(server):
    async with joined(server, *NODES, timeout_ms=2_000) as nodes:
        asks = [nodes[number % 3].index.lease(X) for number in range(200)]
        answers = await asyncio.gather(*asks)
        won = [answer for answer in answers if isinstance(answer, Lease)]
        taken = [answer for answer in answers if isinstance(answer, Taken)]
        assert (len(won), len(taken)) == (1, 199)
        owner = won[0].owner.partition("|")[0]
        assert {answer.node for answer in taken} == {owner}
        assert all(0 < answer.left_ms <= 10_000 for answer in taken)


async def test_a_lease_is_renewed_and_given_back_by_its_owner_only(server):
    async with joined(server, "iad-a", "iad-b", lease_ms=2_000) as (a, b):
        lease = await a.index.lease(X)
        server.admin.pexpire(server.key(f"lease:{X}"), 1_000)
        assert await a.index.renew(lease)
        assert server.admin.pttl(server.key(f"lease:{X}")) > 1_000
        forged = Lease(X, "iad-b|b1|1")
        assert not await b.index.renew(forged)
        await b.index.release(forged)
        assert isinstance(await b.index.lease(X), Taken)
        await a.index.release(lease)
        assert isinstance(await b.index.lease(X), Lease)
        assert not await a.index.renew(lease)


async def test_who_waits_is_woken_when_the_lease_is_given_back(server):
    async with joined(server, "iad-a", "iad-b") as (a, b):
        lease = await a.index.lease(X)
        assert isinstance(await b.index.lease(X), Taken)
        assert not await b.index.wait_changed(X, 0.05)
        waiting = asyncio.get_running_loop().create_task(b.index.wait_changed(X, 5))
        await asyncio.sleep(0)
        await a.index.release(lease)
        assert await waiting


async def test_what_happens_between_asking_and_waiting_is_not_missed(server):
    async with joined(server, "iad-a", "iad-b") as (a, b):
        await a.index.lease(X)
        assert isinstance(await b.index.lease(X), Taken)
        a.put(X)
        await b.until(X, "iad-a")
        assert await b.index.wait_changed(X, 0.0)
        assert not await b.index.wait_changed(X, 0.0)


async def test_the_lease_of_a_node_that_dies_runs_out(server):
    async with joined(server, "iad-a", "iad-b", lease_ms=1_000) as (a, b):
        await a.index.lease(X)
        await a.stop(clean=False)
        begun_ms = clock.now_ms()

        async def granted():
            return isinstance(await b.index.lease(X), Lease)

        assert not await granted()
        await wait_until(granted, within_s=3)
        assert 500 < clock.now_ms() - begun_ms < 2_500


async def test_a_node_that_starts_again_takes_over_its_own_lease(server):
    async with joined(server, "iad-a") as (a,):
        await a.index.lease(X)
    async with joined(server, "iad-a", boot="b2") as (a,):
        assert isinstance(await a.index.lease(X), Lease)


@pytest.mark.parametrize(
    ("sentence", "make"),
    [
        ("no owner", lambda admin, key: admin.set(key, "me", px=9_000)),
        ("no end", lambda admin, key: admin.set(key, "iad-b|b1|1")),
        ("an end in a year", lambda admin, key: admin.set(key, "iad-b|b1|1", px=31_536_000_000)),
        ("not even text", lambda admin, key: admin.set(key, b"\xff\xfe|b1|1", px=9_000)),
        ("a mebibyte", lambda admin, key: admin.set(key, b"x" * MIB, px=9_000)),
        ("a list", lambda admin, key: admin.rpush(key, "iad-b|b1|1")),
    ],
)
async def test_what_is_no_lease_stops_nobody(server, sentence, make):
    async with joined(server, "iad-a") as (a,):
        make(server.admin, server.key(f"lease:{X}"))
        assert isinstance(await a.index.lease(X), Lease)
        assert 0 < server.admin.pttl(server.key(f"lease:{X}")) <= 10_000
