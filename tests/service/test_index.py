"""The region's index against a real Redis that dies, freezes, forgets, refuses and lies."""

import asyncio
import contextlib
import os
import statistics

import pytest

from edge import clock, config
from edge.weights import index as index_module
from edge.weights.index import Away, Holder, Index, Lease, Taken
from edge.weights.mirror import EPOCH
from tests.support.redis import COMMANDS, running
from tests.support.wait import wait_until

NODES = ("iad-a", "iad-b", "iad-c")
ADDRESSES = {node: f"127.0.0.1:{7401 + number}" for number, node in enumerate(NODES)}
X, Y, Z = "a" * 64, "b" * 64, "c" * 64
MIB = 1 << 20


@pytest.fixture
def server():
    with running("us", NODES) as one:
        yield one


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


# --- who holds what


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
            assert b.names(digest) == ["iad-a"]
        await wait_until(lambda: a.index.state().lag_ms > 0)
        p99_ms = statistics.quantiles(lags_ms, n=100)[98]
        print(f"mirror lag p50 {statistics.median(lags_ms):.2f} ms, p99 {p99_ms:.2f} ms")
        assert statistics.median(lags_ms) < 20
        assert p99_ms < 200


# --- leases


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


# --- what befalls Redis


@pytest.fixture
async def pair(server):
    """iad-b has X, iad-a knows it."""
    async with joined(server, "iad-a", "iad-b", disks=[{}, {X: 1}], alive_ms=2_000) as (a, b):
        await a.until(X, "iad-b")
        yield a, b


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


# --- what others may write


def poison(server):
    """Everything that one who may write could leave in the index, keys of living nodes included."""
    admin, key = server.admin, server.key
    big, lying = b"x" * MIB, {"boot": "b1", "blobs": "169.254.169.254:80", "bytes": "-5"}
    epoch = admin.get(key("epoch")).decode()

    def say(**fields):
        return lambda: admin.xadd(
            key("ev"), {"epoch": epoch, "node": "iad-b", "digest": Y, "state": "here", **fields}
        )

    return {
        "a node whose name is not UTF-8": lambda: admin.hset(
            key("node:").encode() + b"\xff\xfe", mapping=lying
        ),
        "a node whose name has a newline": lambda: admin.hset(key("node:iad\nx"), mapping=lying),
        "a node called ../etc": lambda: admin.hset(key("node:../etc"), mapping=lying),
        "an address that is a lie": lambda: admin.hset(key("node:iad-c"), mapping=lying),
        "a living node's address is a lie": lambda: admin.hset(key("node:iad-b"), mapping=lying),
        "an address of 1 MiB": lambda: admin.hset(key("node:iad-d"), mapping={"boot": "b1", "blobs": big}),
        "a node that is a list": lambda: admin.rpush(key("node:iad-e"), "x"),
        "a key of 1 MiB": lambda: admin.set(key("loc:").encode() + big, "x"),
        "a location that is a string of 1 MiB": lambda: admin.set(key(f"loc:{Y}"), big),
        "a good location turned into a set": lambda: (
            admin.delete(key(f"loc:{X}")),
            admin.sadd(key(f"loc:{X}"), "x"),
        ),
        "a digest in upper case": lambda: admin.hset(key(f"loc:{X.upper()}"), "iad-b", "b1"),
        "a digest that is too short": lambda: admin.hset(key("loc:abc"), "iad-b", "b1"),
        "a digest with a path": lambda: admin.hset(key("loc:../../etc/passwd"), "iad-b", "b1"),
        "a holder that is not UTF-8": lambda: admin.hset(key(f"loc:{Z}"), b"\xff", "b1"),
        "a holder of 1 MiB": lambda: admin.hset(key(f"loc:{Z}"), big, "b1"),
        "a boot of 1 MiB": lambda: admin.hset(key(f"loc:{'d' * 64}"), "iad-b", big),
        "10,000 holders": lambda: admin.hset(
            key(f"loc:{'e' * 64}"), mapping={f"n{i}": "b1" for i in range(10_000)}
        ),
        "a key of no known kind": lambda: admin.set(key("zzz"), "x"),
        "a living node's list is a string": lambda: admin.set(key("have:iad-b"), "x"),
        "a living node's list has strangers": lambda: admin.sadd(key("have:iad-a"), "../x", big, Z),
        "an event from the future": say(state="warmed"),
        "an event in another epoch": say(epoch="f" * 32),
        "an event of a digest in upper case": say(digest=Y.upper()),
        "an event of a node with a newline": say(node="iad-b\nx"),
        "an event that is not UTF-8": say(node=b"\xff\xfe"),
        "an event of 1 MiB": say(digest=big),
        "an event of 100 fields": say(**{f"f{i}": "x" for i in range(100)}),
        "an event with nothing in it": lambda: admin.xadd(key("ev"), {"": ""}),
        "an event that takes away what is there": say(digest=X, state="gone", node="iad-c"),
        "an event of size -1": say(size="-1", state="here-1"),
        "a sign of life that is a list": lambda: (
            admin.delete(key("alive:iad-c")),
            admin.rpush(key("alive:iad-c"), "x"),
        ),
        "an epoch that is none": lambda: admin.set(key("epoch"), b"\xff" * 32),
        "an epoch that is a list": lambda: (admin.delete(key("epoch")), admin.rpush(key("epoch"), "x")),
        "a Stream that is a string": lambda: (admin.delete(key("ev")), admin.set(key("ev"), "x")),
        "a Stream at its last number": lambda: (
            admin.delete(key("ev")),
            admin.xadd(key("ev"), {"a": "b"}, id="18446744073709551615-18446744073709551615"),
        ),
    }


async def test_poison_changes_nothing_and_is_counted(server, pair):
    """After each poison the last good holder is still there, and the index still works."""
    a, b = pair
    count = len(poison(server))
    assert count >= 20
    for number, name in enumerate(poison(server)):
        poison(server)[name]()
        digest = f"{number + 1:064x}"
        b.put(digest)
        try:
            await a.until(digest, "iad-b")
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        assert a.names(X) == ["iad-b"], name
        assert a.index.holders(X) == (Holder("iad-b", ADDRESSES["iad-b"]),), name
    assert a.index.state().refused >= 10
    await whole_again(server, a, b)
    print(f"{count} poisoned entries: {a.index.state().refused} refused")


async def test_a_node_that_starts_among_poison_reads_what_is_good(server, pair):
    a, b = pair
    for name, write in poison(server).items():
        if not name.startswith(("an epoch", "a Stream", "a good location")):
            write()
    async with joined(server, "iad-c") as (c,):
        await c.until(X, "iad-b")
        assert c.index.state().refused >= 10
        assert set(c.index.nodes()) == set(NODES)
        assert not a.task.done()
        assert not b.task.done()


# --- what a node may


async def test_a_nodes_user_can_do_this_and_no_more(server):
    documented = {word[1:] for word in index_module.__doc__.split() if word[0] == "+"}
    assert documented == set(COMMANDS)
    async with joined(server, "iad-a", disks=[{X: 1}]):
        for command in (
            ["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["SHUTDOWN"], ["ACL", "LIST"],
            ["SCRIPT", "FLUSH"], ["CLIENT", "LIST"], ["MONITOR"], ["SAVE"], ["FUNCTION", "LIST"], ["SUBSCRIBE", "x"],
            ["XSETID", server.key("ev"), "9-9"], ["XTRIM", server.key("ev"), "MAXLEN", "0"],
            ["SET", server.key("alive:iad-b"), "b1"], ["SET", "wc:{eu}:epoch", "x"], ["GETRANGE", "wc:{eu}:epoch", "0", "9"],
            ["EVAL", "return redis.call('SET', 'wc:{eu}:epoch', 'x')", "0"],
            ["EVAL", "return redis.call('FLUSHALL')", "0"],
        ):  # fmt: skip
            denied = server.denied("iad-a", *command)
            assert "permission" in denied or "can't" in denied, command


async def test_a_user_of_another_region_gets_nothing(server):
    node = Node(server, "iad-a", region="eu")
    node.task = asyncio.get_running_loop().create_task(node.index.run())
    await wait_until(lambda: "NoPermission" in node.index.state().last_error or None)
    assert server.admin.keys() == []
    await node.stop()
