"""Trust in the mesh, over real TLS sockets: who is let in, and what of what they tell is believed."""

import asyncio
import logging
import ssl
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from edge.errors import EdgeError, Reason
from edge.fleet.beacon import Why
from edge.fleet.beacon import encode as encoded
from edge.policy.facts import Standing
from edge.wire import calls, meshcalls
from tests.spec.test_beacon import POISON
from tests.support.beacons import beacon
from tests.support.mesh import Evil, Pki, Station, evil, mesh, peering, station
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


# --- who is let in


def expired(pki, node, purpose=ssl.Purpose.SERVER_AUTH):
    return pki.context(node, purpose, now=datetime.now(UTC) - timedelta(days=40))


def without_certificate(pki):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(pki.ca.path))
    return context


def too_old(pki):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(str(pki.ca.path))
    context.load_cert_chain(*pki.pair("iad-a"))
    return context


def of_another_fleet(pki, foreign, node, purpose=ssl.Purpose.SERVER_AUTH):
    """A certificate of another authority; it believes ours, so that only the other side can refuse."""
    certificate, key = foreign.pair(node)
    context = ssl.SSLContext(
        ssl.PROTOCOL_TLS_SERVER if purpose is ssl.Purpose.CLIENT_AUTH else ssl.PROTOCOL_TLS_CLIENT
    )
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(str(pki.ca.path))
    context.load_cert_chain(certificate, key)
    return context


INTRUDERS = [
    ("a certificate of another fleet", lambda p, f: of_another_fleet(p, f, "iad-a"), "tls"),
    ("an expired certificate", lambda p, f: expired(p, "iad-a"), "tls"),
    ("no certificate", lambda p, f: without_certificate(p), "tls"),
    ("TLS 1.2", lambda p, f: too_old(p), "tls"),
    ("the certificate of another node", lambda p, f: p.context("nrt-a"), "greeting"),
    ("a certificate that names no node of ours", lambda p, f: p.context("x" * 40), "nameless"),
]


@pytest.mark.parametrize(("_", "context", "why"), INTRUDERS, ids=[row[0] for row in INTRUDERS])
async def test_an_intruder_is_refused_and_the_others_stay(pki, foreign, _, context, why):
    async with station(pki) as fra, peering(pki, fra.port) as (good, book):
        await wait_until(lambda: good.linked)
        async with peering(pki, fra.port, context=context(pki, foreign)) as (bad, untold):
            await wait_until(lambda: fra.server.refused.get(why, 0) >= 2)
            await wait_until(lambda: fra.server.links == 1)
            assert (bad.linked, untold.beacons, untold.links) == (False, {}, [])
            assert bad.dialer.last_error
        assert fra.server.refused.keys() == {why}
        assert fra.publisher.subscribers == 1
        seq = book.seq()
        await wait_until(lambda: book.seq() > seq)
        assert book.links == [("fra-a", True)]


IMPOSTORS = [
    (
        "of another fleet",
        lambda p, f: of_another_fleet(p, f, "fra-a", ssl.Purpose.CLIENT_AUTH),
        "self-signed|unable|verify",
    ),
    ("expired", lambda p, f: expired(p, "fra-a", ssl.Purpose.CLIENT_AUTH), "expired"),
    (
        "another node",
        lambda p, f: p.context("nrt-a", ssl.Purpose.CLIENT_AUTH),
        "not valid for|mismatch|doesn't match",
    ),
]


@pytest.mark.parametrize(("_", "context", "error"), IMPOSTORS, ids=[row[0] for row in IMPOSTORS])
async def test_nobody_is_told_anything_who_is_not_the_node_that_was_meant(pki, foreign, _, context, error):
    impostor = Evil()
    server = await asyncio.get_running_loop().create_server(
        impostor._make, "127.0.0.1", 0, ssl=context(pki, foreign)
    )
    async with server, peering(pki, server.sockets[0].getsockname()[1]) as (peer, book):
        await wait_until(lambda: "not connected" not in peer.dialer.last_error)
        with pytest.raises(EdgeError, match=error):
            peer.dialer.shared()
        assert (peer.linked, book.links, book.beacons) == (False, [], {})


async def test_a_call_before_any_greeting_is_from_the_certificates_node(pki):
    async with station(pki) as fra, peering(pki, fra.port) as (peer, _):
        await wait_until(lambda: peer.linked)
        link = await peer.dialer.exclusive()
        waiting = asyncio.gather(link.request(INFER, timeout_s=5))
        (incoming,) = await wait_until(lambda: fra.calls)
        assert fra.server.node_of(incoming.link) == "iad-a"
        incoming.reply(calls.Done())
        await waiting
        link.close()
        await wait_until(lambda: fra.server.node_of(incoming.link) is None)


async def test_links_are_counted_before_their_handshake(pki):
    async with station(pki, config=mesh(max_links=3)) as fra:
        mute = [await asyncio.open_connection("127.0.0.1", fra.port) for _ in range(3)]
        await wait_until(lambda: fra.server._handshakes == 3)
        reader, writer = await asyncio.open_connection("127.0.0.1", fra.port)
        assert await reader.read(1) == b"", "the fourth is closed at once"
        assert fra.server.refused["full"] == 1
        for _, one in [*mute, (reader, writer)]:
            one.close()
        await wait_until(lambda: fra.server._handshakes == 0)
        async with peering(pki, fra.port) as (peer, _):
            await wait_until(lambda: peer.linked)


# --- what is believed

DEEP_HEAD = b"\x82\xa2op\xa6beacon\xa4deep" + b"\x91" * 20_000 + b"\xc0"


async def test_poisoned_beacons_are_counted_and_the_last_good_one_stays(pki):
    async with (
        evil(pki) as bad,
        peering(pki, bad.port, config=mesh(unroutable_ms=8_000, suspect_ms=7_000, forget_ms=9_000)) as (
            peer,
            book,
        ),
    ):
        await wait_until(lambda: bad.links and peer.linked)
        good = beacon(20, seq=100)
        bad.say(encoded(good))
        await wait_until(lambda: book.seq() == 100)
        before = msgspec.structs.replace(book.beacons["fra-a"])
        for name, body, why in POISON:
            count = peer.statistics.quarantined.get(why, 0)
            bad.say(body)
            await wait_until(lambda: peer.statistics.quarantined.get(why, 0) == count + 1)  # noqa: B023 -- awaited here
            assert book.beacons["fra-a"] == before, name
        assert sum(peer.statistics.quarantined.values()) == len(POISON)
        assert peer.statistics.quarantined.keys() == set(Why)
        assert peer.statistics.last_bad
        stale = [
            msgspec.structs.replace(good, **change)
            for change in ({"seq": 99}, {"seq": 100}, {"boot": 6}, {"boot": 8, "seq": 1})
        ]
        for one in stale:
            bad.say(encoded(one))
        await wait_until(lambda: peer.statistics.stale == len(stale))
        assert (book.beacons["fra-a"], peer.statistics.links, peer.linked) == (before, 1, True)
        bad.say(encoded(beacon(20, seq=101, announced=True)))
        await wait_until(lambda: book.seq() == 101)
        assert peer.standing is Standing.GOOD


POISONED_HEADS = [
    ("a base that is text", msgspec.msgpack.encode({"op": "beacon", "base": "x"})),
    ("an unknown event", msgspec.msgpack.encode({"op": "apocalypse"})),
    ("no map", b"\x01"),
    ("nothing", b""),
    ("an op that is no UTF-8", b"\x81\xa2op\xa1\xff"),
    ("nested 20,000 deep", DEEP_HEAD),
]


@pytest.mark.parametrize(("_", "head"), POISONED_HEADS, ids=[row[0] for row in POISONED_HEADS])
async def test_after_a_poisoned_head_the_next_good_one_is_taken(pki, _, head):
    """On the same link or on the next one."""
    async with evil(pki) as bad, peering(pki, bad.port) as (peer, book):
        await wait_until(lambda: bad.links and peer.linked)
        bad.say(encoded(beacon(seq=1)))
        await wait_until(lambda: book.seq() == 1)
        bad.say_frame(head, encoded(beacon(seq=2)))

        def again():
            bad.say(encoded(beacon(seq=3)))
            return book.seq() == 3

        await wait_until(again)


async def test_a_peer_that_sends_differences_to_nothing_is_asked_for_a_whole_one_once_a_second(pki):
    async with evil(pki) as bad, peering(pki, bad.port) as (peer, book):
        await wait_until(lambda: bad.links and peer.linked)
        for seq in range(50, 150):
            bad.say(encoded(beacon(seq=seq)), meshcalls.BeaconNews(base=seq - 1))
        await wait_until(lambda: bad.heard)
        bad.say(encoded(beacon(seq=200)))
        await wait_until(lambda: book.seq() == 200)
        assert bad.heard == [meshcalls.Resync()]
        assert (peer.statistics.resyncs, peer.statistics.quarantined) == (1, {})


async def test_a_lost_difference_is_made_good_by_a_whole_beacon(pki):
    async with station(pki) as fra, peering(pki, fra.port) as (peer, book):
        await wait_until(lambda: book.seq() >= 2)
        peer._intake = msgspec.structs.replace(peer._intake, told=beacon(3, seq=1, node="fra-a"))
        await wait_until(lambda: peer.statistics.resyncs == 1)
        seq = book.seq()
        await wait_until(lambda: book.seq() > seq + 2)
        assert fra.publisher.wholes == 2


async def test_a_beacon_that_lost_its_models_is_doubted_once(pki):
    async with station(pki, held=20) as fra, peering(pki, fra.port) as (peer, book):
        await wait_until(lambda: book.seq())
        sizes = []
        take = book.take
        book.take = lambda one, at_ms: (sizes.append(len(one.models)), take(one, at_ms))
        fra.change(models={})
        await wait_until(lambda: sizes and sizes[-1] == 0)
        assert peer.statistics.doubted == 1
        assert sizes[-2] == 20


async def test_a_rebooted_node_is_believed_on_its_new_link(pki):
    async with station(pki, boot=7) as before, peering(pki, before.port) as (peer, book):
        await wait_until(lambda: book.seq() >= 3)
        for _ in range(3):
            peer.failed(Reason.LINK_LOST)
        await before.stop()
        await wait_until(lambda: book.links == [("fra-a", True), ("fra-a", False)])
        async with asyncio.TaskGroup() as tasks:
            after = await Station(pki, boot=3, port=before.port).start(tasks)
            await wait_until(lambda: book.beacons["fra-a"].boot == 3)
            assert book.links[-1] == ("fra-a", True)
            assert peer.statistics.links == 2
            assert peer._health.failures == 0, "those were the old process's"
            await after.stop()
