"""The mesh over real TLS sockets: what is told, how a node falls silent, and how it is replaced."""

import asyncio
import logging

import msgspec
import pytest

from edge.errors import Reason
from edge.fleet import publish
from edge.fleet.beacon import MAX_BYTES
from edge.policy.facts import ModelBeacon, OnDevice, Standing, Tier
from edge.wire import calls, meshcalls
from edge.wire.link import Link
from tests.support.beacons import digest
from tests.support.mesh import Pki, Station, mesh, peering, station
from tests.support.wait import wait_until

INFER = calls.Infer(model="m", version="1", digest="d")


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("foreign"))


@pytest.fixture(autouse=True)
def no_crash(caplog):
    """Whatever the other side does, nothing here may crash on it."""
    yield
    crashes = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not crashes, [record.getMessage() for record in crashes]


# --- what is told


async def test_a_node_learns_of_another_and_of_its_changes(pki):
    async with station(pki, held=20) as fra, peering(pki, fra.port) as (peer, book):
        await wait_until(lambda: book.seq())
        assert msgspec.structs.replace(book.beacons["fra-a"], seq=1) == fra.state
        assert (peer.linked, peer.version, book.links) == (True, "0.1.0", [("fra-a", True)])
        await wait_until(lambda: book.standings == [("fra-a", Standing.GOOD)])
        fra.change(models={**fra.state.models, digest(99): ModelBeacon(Tier.HOST)}, draining=True)
        await wait_until(lambda: digest(99) in book.beacons["fra-a"].models)
        assert msgspec.structs.replace(book.beacons["fra-a"], seq=1) == fra.state
        await wait_until(lambda: book.standings[-1] == ("fra-a", Standing.DRAINING))
        assert fra.publisher.wholes == 1, "the rest were differences"
        assert fra.server.node_of(next(iter(fra.server._names))) == "iad-a"
        assert peer.statistics.quarantined == {}


async def test_a_heartbeat_keeps_the_state_young(pki):
    async with station(pki) as fra, peering(pki, fra.port) as (peer, book):
        await wait_until(lambda: book.seq() >= 5)
        assert peer.age_ms(peer._at_ms + 5) == 5
        assert book.standings == [("fra-a", Standing.GOOD)]
        assert fra.publisher.deltas >= 4


async def test_the_round_trip_is_measured_and_smoothed(pki):
    async with station(pki) as fra, peering(pki, fra.port) as (peer, book):
        await wait_until(lambda: book.rtts_ms)
        first = book.rtts_ms[0]
        assert 0.0 < first < 500.0
        peer._rtt_at_ms = 0.0
        peer.passive_rtt(first + 10.0)
        assert peer.rtt_ms == pytest.approx(first + 3.0)
        peer.passive_rtt(1e9)
        assert peer.rtt_ms == pytest.approx(first + 3.0), "one sample is enough for a while"
        measured = len(book.rtts_ms)
        await wait_until(lambda: len(book.rtts_ms) > measured, within_s=3)


async def test_many_changes_are_told_together(pki):
    calm = mesh(coalesce_ms=50, heartbeat_ms=10_000)
    async with station(pki, config=calm) as fra, peering(pki, fra.port) as (_, book):
        await wait_until(lambda: book.seq() == 1)
        for number in range(1_000):
            fra.change(demand={digest(1): 1.0 + number})
            if number % 100 == 0:
                await asyncio.sleep(0)
        await wait_until(lambda: book.beacons["fra-a"].demand == {digest(1): 1_000.0})
        assert book.seq() <= 3


async def test_noise_is_not_told_before_the_heartbeat(pki):
    async with station(pki, config=mesh(heartbeat_ms=10_000)) as fra, peering(pki, fra.port) as (_, book):
        await wait_until(lambda: book.seq() == 1)
        made = fra.made
        models = {
            key: ModelBeacon(
                one.tier,
                {
                    w: OnDevice(0.0, on.service_ms + 0.4, on.cost_ms, on.load_ms)
                    for w, on in one.workers.items()
                },
            )
            for key, one in fra.state.models.items()
        }
        fra.change(models=models)
        await wait_until(lambda: fra.made > made)
        fra.change(announced=True)
        await wait_until(lambda: book.beacons["fra-a"].announced)
        assert book.seq() == 2


async def test_a_difference_is_encoded_once_for_all(pki, monkeypatch):
    counted, real = [], publish.delta
    monkeypatch.setattr(publish, "delta", lambda old, new: counted.append(new.seq) or real(old, new))
    async with station(pki, config=mesh(heartbeat_ms=10_000)) as fra, asyncio.TaskGroup() as tasks:
        books = []
        stop = asyncio.Event()

        async def one(me):
            async with peering(
                pki, fra.port, me=me, config=mesh(unroutable_ms=9_000, suspect_ms=8_000, forget_ms=10_000)
            ) as (_, book):
                books.append(book)
                await stop.wait()

        for number in range(10):
            tasks.create_task(one(f"n-{number}"))
        await wait_until(lambda: fra.publisher.subscribers == 10 and all(book.seq() for book in books))
        await wait_until(lambda: len({book.seq() for book in books}) == 1)
        counted.clear()
        fra.change(announced=True)
        await wait_until(lambda: all(book.beacons["fra-a"].announced for book in books))
        stop.set()
    assert len(counted) == 1


async def test_a_subscriber_that_does_not_read_costs_a_bounded_buffer_and_catches_up(pki):
    async with station(pki, held=1_000, config=mesh(coalesce_ms=1, heartbeat_ms=5)) as fra:
        loop = asyncio.get_running_loop()
        news = []
        _, link = await loop.create_connection(
            lambda: Link(on_event=lambda head, body: news.append((head, body))),
            "127.0.0.1",
            fra.port,
            ssl=pki.context("iad-a"),
            server_hostname="fra-a",
        )
        await link.request(meshcalls.Subscribe("iad-a"), timeout_s=5)
        await wait_until(lambda: news)
        link.transport.pause_reading()
        other = next(iter(fra.server._names))

        def pour():
            """A beacon of other demand each time, most of a hundred kilobytes."""
            fra.change(demand={digest(10_000 + fra.made * 1_000 + i): 1.0 for i in range(1_000)})
            return fra.publisher.passed_over

        await wait_until(pour, within_s=20, every_s=0.002)
        passed_over = fra.publisher.passed_over
        await wait_until(lambda: fra.publisher.passed_over > passed_over + 20)
        unread = other.transport.get_write_buffer_size()
        assert publish.MAX_UNREAD_BYTES < unread < publish.MAX_UNREAD_BYTES + 2 * MAX_BYTES
        wholes = fra.publisher.wholes
        link.transport.resume_reading()
        await wait_until(lambda: fra.publisher.wholes > wholes)
        seq = fra.publisher.seq
        await wait_until(lambda: any(msgspec.msgpack.decode(body)["seq"] > seq for _, body in news[-3:]))
        link.close()


# --- silence and the end


async def test_a_silent_node_is_suspect_then_out_then_forgotten(pki):
    async with station(pki) as fra, peering(pki, fra.port) as (peer, book):
        await wait_until(lambda: book.standings == [("fra-a", Standing.GOOD)])
        await fra.fall_silent()
        await wait_until(lambda: book.forgotten == ["fra-a"])
        assert book.standings == [("fra-a", each) for each in (Standing.GOOD, Standing.SUSPECT, Standing.OUT)]
        assert peer.age_ms(0.0) is None
        async with asyncio.TaskGroup() as tasks:
            fra._telling = tasks.create_task(fra.publisher.run())
            await wait_until(lambda: book.standings[-1] == ("fra-a", Standing.GOOD))
            await fra.fall_silent()


async def test_a_node_that_fails_its_exchanges_is_out_although_it_speaks(pki):
    async with station(pki) as fra, peering(pki, fra.port) as (peer, book):
        await wait_until(lambda: peer.standing is Standing.GOOD)
        for _ in range(3):
            peer.failed(Reason.SATURATED)
        assert peer.standing is Standing.GOOD, "a refusal is no failure"
        for _ in range(3):
            peer.failed(Reason.LINK_LOST)
        assert book.standings[-1] == ("fra-a", Standing.OUT)
        await wait_until(lambda: book.standings[-1] == ("fra-a", Standing.SUSPECT), within_s=3)
        peer.sent()
        peer.succeeded()
        assert peer.standing is Standing.SUSPECT, "slow start"


async def test_a_node_that_is_replaced_loses_no_call(pki):
    """The new process listens before the old one stops, on the same socket."""
    async with station(pki, boot=7) as old, peering(pki, old.port) as (peer, book):
        await wait_until(lambda: book.seq() >= 2)
        waiting = asyncio.gather(peer.dialer.shared().request(INFER, timeout_s=5))
        (incoming,) = await wait_until(lambda: old.calls)
        async with asyncio.TaskGroup() as tasks:
            new = await Station(pki, boot=8, listener=old.server._listener.dup()).start(tasks)
            closing = tasks.create_task(old.server.close(drain_s=5))
            await wait_until(lambda: book.beacons["fra-a"].boot == 8)
            assert not closing.done(), "a call is under way"
            incoming.reply(calls.Inferred(queue_ms=1.0))
            (reply,) = await waiting
            assert reply.head.queue_ms == 1.0
            await closing
            assert book.links == [("fra-a", True), ("fra-a", True)], "it was never without a link"
            await new.stop()


async def test_closing_does_not_wait_for_a_node_that_does_not_leave(pki):
    async with station(pki) as fra:
        loop = asyncio.get_running_loop()
        context = pki.context("iad-a")
        _, link = await loop.create_connection(
            Link, "127.0.0.1", fra.port, ssl=context, server_hostname="fra-a"
        )
        waiting = asyncio.gather(link.request(INFER, timeout_s=5), return_exceptions=True)
        await wait_until(lambda: fra.calls)
        async with asyncio.timeout(2):
            await fra.server.close(drain_s=0.2)
        (error,) = await waiting
        assert error.reason is Reason.LINK_LOST
        assert fra.server.links == 0
