"""The region's index against a real Redis that dies, freezes, forgets and refuses."""

import asyncio
import os

import pytest

from edge import clock
from edge.weights.index import Away, Lease
from tests.support.indexnodes import (
    NODES,
    Node,
    X,
    Y,
    Z,
    joined,
    numbered,
    refused_within,
    two_with_x,
    whole_again,
)
from tests.support.redis import running
from tests.support.wait import wait_until


@pytest.fixture
def server():
    with running("us", NODES) as one:
        yield one


@pytest.fixture
async def pair(server):
    """iad-b has X, iad-a knows it."""
    async with two_with_x(server) as nodes:
        yield nodes


async def test_killed_and_restarted_empty(server, pair):
    a, b = pair
    epoch = a.index.state().epoch
    server.kill()
    await a.until_stale()
    assert isinstance(await refused_within(a, 20), Away)
    assert a.names(X) == ["iad-b"]
    assert a.index.nodes() == ("iad-a", "iad-b")
    b.put(Z)
    server.start()
    await whole_again(server, a, b)
    await a.until(Z, "iad-b")
    assert a.index.state().epoch != epoch
    assert a.index.state().reregistered >= 1


async def test_frozen_for_a_second(server, pair):
    a, b = pair
    epoch = a.index.state().epoch
    server.freeze()
    begun_ms = clock.now_ms()
    answers = [await refused_within(a) for _ in range(100)]
    assert all(isinstance(answer, Away) for answer in answers)
    assert clock.now_ms() - begun_ms < 1_000, "one waited for the timeout, the others not at all"
    await wait_until(lambda: clock.now_ms() - begun_ms > 1_000)
    assert a.names(X) == ["iad-b"]
    assert a.index.state().state == "stale"
    server.thaw()
    await whole_again(server, a, b)
    assert a.index.state().epoch == epoch
    assert (a.index.state().reregistered, b.index.state().reregistered) == (0, 0)


async def test_frozen_for_longer_than_silence_means_death(server, pair):
    """Every sign of life has run out meanwhile: that says nothing about the nodes."""
    a, b = pair
    seen = []
    server.freeze()
    begun_ms = clock.now_ms()
    await wait_until(lambda: seen.append(a.names(X)) or clock.now_ms() - begun_ms > 2_500, within_s=4)
    server.thaw()
    await wait_until(lambda: seen.append(a.names(X)) or a.index.may_judge(), within_s=6)
    assert all(names == ["iad-b"] for names in seen)
    await whole_again(server, a, b)


async def test_flushed(server, pair):
    a, b = pair
    seen = []
    epoch = a.index.state().epoch
    server.flush()
    await wait_until(lambda: seen.append(a.names(X)) or a.index.state().epoch != epoch)
    await wait_until(lambda: seen.append(a.names(X)) or a.index._mirror.held_by("iad-b") == {X})
    assert all(names == ["iad-b"] for names in seen), "an empty index is no reason to forget"
    await whole_again(server, a, b)


def cpu_ms(server):
    """What this process and Redis have computed so far."""
    spent, ours = server.admin.info("cpu"), os.times()
    return 1000 * (ours.user + ours.system + spent["used_cpu_user"] + spent["used_cpu_sys"])


async def test_whole_again_within_a_second_per_10_000_blobs(server):
    """By what it computes, Redis and both nodes together: the machine may be busy with other things.

    The best of three. The time by the clock is printed, and bounded loosely.
    """
    async with joined(server, "iad-a", "iad-b", disks=[{}, numbered(10_000)]) as (a, b):
        await wait_until(lambda: a.index.state().blobs == 10_000, within_s=20)
        cost_ms, took_ms = [], []
        for _ in range(3):
            epoch = a.index.state().epoch
            server.flush()
            begun_ms, cpu_begun_ms = clock.now_ms(), cpu_ms(server)
            await wait_until(lambda epoch=epoch: a.index.state().epoch != epoch)
            await wait_until(lambda: len(a.index._mirror._at) == 10_000, within_s=20)
            took_ms.append(round(clock.now_ms() - begun_ms))
            cost_ms.append(round(cpu_ms(server) - cpu_begun_ms))
            await wait_until(lambda: server.admin.scard(server.key("have:iad-b")) == 10_000)
            await wait_until(lambda: b.index.state().epoch == a.index.state().epoch)
        print(f"flushed: 10,000 blobs whole again after {took_ms} ms by the clock, {cost_ms} ms of CPU")
        assert min(cost_ms) <= 1_000
        assert min(took_ms) <= 10_000


async def test_read_only(server, pair):
    a, b = pair
    server.read_only(True)
    answer = await refused_within(a)
    assert isinstance(answer, Away)
    assert "read only" in answer.why
    assert a.index.state().state == "stale"
    b.put(Y)
    begun_ms = clock.now_ms()
    await wait_until(lambda: clock.now_ms() - begun_ms > 2_500, within_s=4)
    assert a.names(X) == ["iad-b"], "nobody can give a sign of life: nobody is dead"
    assert a.index._well["read"], "what can be read is still followed"
    server.read_only(False)
    await a.until(Y, "iad-b")
    await whole_again(server, a, b)


async def test_scripts_flushed(server, pair):
    a, b = pair
    for _ in range(3):
        server.flush_scripts()
        lease = await a.index.lease(Z)
        assert isinstance(lease, Lease)
        server.flush_scripts()
        await a.index.release(lease)
    await whole_again(server, a, b)
    assert a.index.state().reregistered == 0


async def test_connections_cut(server, pair):
    a, b = pair
    for client in server.admin.client_list():
        if client["user"] != "admin":
            server.admin.client_kill_filter(_id=client["id"])
    b.put(Y)
    await a.until(Y, "iad-b")
    await whole_again(server, a, b)


async def test_a_wrong_password_is_said_and_costs_nothing(server):
    node = Node(server, "iad-a", password="wrong")
    node.task = asyncio.get_running_loop().create_task(node.index.run())
    node.put(X)
    await wait_until(lambda: "username-password" in node.index.state().last_error or None)
    state = node.index.state()
    assert (state.state, state.nodes, node.index.nodes()) == ("stale", (), ("iad-a",))
    assert "wrong" not in state.last_error
    assert isinstance(await refused_within(node, 20), Away)
    server.admin.execute_command("ACL", "SETUSER", "iad-a", ">wrong")
    await node.until_up()
    assert server.admin.hkeys(server.key(f"loc:{X}")) == [b"iad-a"]
    await node.stop()


async def test_a_full_redis(server, pair):
    a, b = pair
    server.admin.config_set("maxmemory", "1mb")
    answer = await refused_within(a)
    assert isinstance(answer, Away)
    assert "OOM" in answer.why or "OutOfMemory" in answer.why
    b.put(Y)
    assert a.names(X) == ["iad-b"]
    server.admin.config_set("maxmemory", "256mb")
    await whole_again(server, a, b)


async def test_an_old_dump_is_another_epoch(server, pair):
    a, b = pair
    server.admin.set(server.key("epoch"), "0" * 32)
    server.admin.delete(server.key(f"loc:{X}"))
    await wait_until(lambda: server.admin.hkeys(server.key(f"loc:{X}")) == [b"iad-b"])
    await wait_until(lambda: a.index.state().epoch == "0" * 32)
    await whole_again(server, a, b)


async def test_a_lease_that_was_asked_for_in_vain_is_given_back(server, pair):
    a, b = pair
    await a.index.release(await a.index.lease(Z))
    server.freeze()
    assert isinstance(await refused_within(a), Away)
    server.thaw()
    await a.until_up()

    async def granted():
        return isinstance(await b.index.lease(Z), Lease)

    await wait_until(granted, within_s=2)


async def test_a_caller_that_leaves_while_it_asks_leaves_no_lease(server, pair):
    a, b = pair
    await a.index.release(await a.index.lease(Z))
    for turns in range(20):
        asking = asyncio.get_running_loop().create_task(a.index.lease(Z))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        (answer,) = await asyncio.gather(asking, return_exceptions=True)
        if isinstance(answer, Lease):
            await a.index.release(answer)

    async def granted():
        return isinstance(await b.index.lease(Z), Lease)

    await wait_until(granted, within_s=2)
    assert a.index.state().state == "up"


async def test_a_lease_is_given_back_when_redis_returns(server, pair):
    a, b = pair
    lease = await a.index.lease(Z)
    server.freeze()
    assert not await a.index.renew(lease)
    await a.index.release(lease)
    server.thaw()

    async def granted():
        return isinstance(await b.index.lease(Z), Lease)

    await wait_until(granted, within_s=3)


async def test_who_waits_is_woken_when_redis_goes_away(server, pair):
    a, _ = pair
    waiting = asyncio.get_running_loop().create_task(a.index.wait_changed(Z, 10))
    await asyncio.sleep(0)
    server.kill()
    assert await waiting
    server.start()
