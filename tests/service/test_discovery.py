"""Nodes found by DNS, against a real server: answers, lies, silence, and a fleet that changes."""

import asyncio
import contextlib

import pytest

from edge import clock
from edge.config import Discover, Peer
from edge.errors import EdgeError, Reason
from edge.fleet.discovery import MAX_RECORDS, Discovery
from edge.fleet.peers_set import Peers
from edge.policy.facts import Standing
from tests.support.mesh import Book, Pki, mesh, station
from tests.support.nameserver import name_server
from tests.support.wait import wait_until

NODES = {"fra-a": ("10.2.0.11", 7443), "nrt-a": ("10.3.0.11", 7444), "ams-a": ("fd00::1", 7443)}


def discover(*servers, **changes):
    resolvers = tuple(one.address for one in servers)
    return Discover(name="_mesh._tcp.edge.internal", resolvers=resolvers, **({"timeout_ms": 300} | changes))


async def test_names_and_addresses_come_with_one_answer():
    async with name_server() as dns:
        dns.nodes = NODES
        assert await Discovery(discover(dns)).look() == NODES
        assert dns.asked == [("_mesh._tcp.edge.internal.", "SRV")]


async def test_addresses_that_did_not_come_along_are_asked_for():
    async with name_server() as dns:
        dns.nodes, dns.additional = NODES, False
        assert await Discovery(discover(dns)).look() == NODES
        assert sorted(kind for _, kind in dns.asked) == ["A", "A", "A", "AAAA", "SRV"]


async def test_a_large_answer_comes_over_tcp():
    async with name_server() as dns:
        dns.nodes = {f"n-{number}": ("10.9.0.1", 1 + number) for number in range(300)}
        assert await Discovery(discover(dns, timeout_ms=5_000)).look() == dns.nodes
        assert dns.over_tcp == 1


@pytest.mark.parametrize("mode", ["nxdomain", "servfail", "empty", "silent", "garbage"])
async def test_a_failed_look_keeps_what_was_found(mode):
    async with name_server() as dns:
        dns.nodes = NODES
        found = Discovery(discover(dns))
        await found.look()
        dns.mode = mode
        began_s = clock.now_s()
        assert await found.look() == NODES
        assert clock.now_s() - began_s < 1.5
        assert (found.failures, bool(found.last_error)) == (1, True)
        dns.mode, dns.nodes = "answer", {"fra-a": ("10.2.0.12", 7443)}
        assert await found.look() == dns.nodes
        assert (found.failures, found.last_error) == (1, "")


async def test_before_the_first_answer_there_is_nobody():
    async with name_server() as dns:
        dns.mode = "silent"
        assert await Discovery(discover(dns, timeout_ms=50)).look() == {}


async def test_a_second_resolver_answers_for_one_that_is_silent():
    async with name_server() as silent, name_server() as dns:
        silent.mode, dns.nodes = "silent", NODES
        assert await Discovery(discover(silent, dns)).look() == NODES


async def test_what_is_no_node_is_left_out():
    async with name_server() as dns:
        dns.nodes = {
            "fra-a": ("10.2.0.11", 7443),
            "_bad": ("10.2.0.12", 1),
            "n" * 33: ("10.2.0.13", 1),
            "zero": ("10.2.0.14", 0),
        }
        found = Discovery(discover(dns))
        assert await found.look() == {"fra-a": ("10.2.0.11", 7443)}
        assert found.left_out == 3


async def test_far_too_many_records_are_refused_as_a_whole():
    async with name_server() as dns:
        dns.nodes = NODES
        found = Discovery(discover(dns, timeout_ms=3_000))
        await found.look()
        dns.nodes = {f"n-{number}": ("10.9.0.1", 1) for number in range(MAX_RECORDS + 1)}
        dns.additional = False
        assert await found.look() == NODES
        assert "1001 records exceed 1000" in found.last_error


async def test_a_node_whose_address_is_not_to_be_had_keeps_its_old_one():
    async with name_server() as dns:
        dns.nodes = {"fra-a": ("10.2.0.11", 7443)}
        found = Discovery(discover(dns))
        await found.look()
        dns.nodes, dns.additional = {"fra-a": ("", 7443), "nrt-a": ("", 7443)}, False
        assert await found.look() == {"fra-a": ("10.2.0.11", 7443)}


# --- a fleet that follows it


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@contextlib.asynccontextmanager
async def fleet(pki, dns, *listed):
    """(peers of iad-a, their book)."""
    config = mesh(peers=listed, discover=discover(dns, every_ms=100))
    book = Book()
    peers = Peers(
        me="iad-a", version="1", mesh=config, tls=pki.context("iad-a"), book=book, max_body_bytes=1 << 24
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(peers.run())
        try:
            yield peers, book
        finally:
            running.cancel()


async def test_nodes_join_and_leave_a_running_fleet(pki):
    async with name_server() as dns, station(pki, "fra-a") as fra:
        dns.nodes = {"fra-a": ("127.0.0.1", fra.port), "iad-a": ("127.0.0.1", 9)}
        async with fleet(pki, dns) as (peers, book):
            await wait_until(lambda: book.seq("fra-a"))
            assert peers.peers.keys() == {"fra-a"}, "a node is no peer of its own"
            async with station(pki, "nrt-a") as nrt:
                dns.nodes = {**dns.nodes, "nrt-a": ("127.0.0.1", nrt.port)}
                await wait_until(lambda: book.seq("nrt-a"))
                assert peers.dialer("nrt-a").shared()
                del dns.nodes["nrt-a"]
                looks, seq = peers.discovery.looks, book.seq("nrt-a")
                await wait_until(lambda: peers.discovery.looks > looks + 2 and book.seq("nrt-a") > seq)
                assert "nrt-a" in peers.peers, "its link works: DNS is wrong, or too early"
            await wait_until(lambda: "nrt-a" not in peers.peers)
            assert "nrt-a" in book.forgotten
            with pytest.raises(EdgeError, match="no peer") as caught:
                peers.dialer("nrt-a")
            assert (caught.value.reason, caught.value.retryable) == (Reason.LINK_LOST, True)
            assert peers.peers["fra-a"].standing is Standing.GOOD
            assert peers.peers["fra-a"].statistics.links == 1


async def test_a_node_that_moved_is_dialed_at_its_new_address(pki):
    async with name_server() as dns, station(pki, boot=7) as old, station(pki, boot=8) as new:
        dns.nodes = {"fra-a": ("127.0.0.1", old.port)}
        async with fleet(pki, dns) as (_, book):
            await wait_until(lambda: book.seq())
            dns.nodes = {"fra-a": ("127.0.0.1", new.port)}
            await wait_until(lambda: book.beacons["fra-a"].boot == 8)
            await wait_until(lambda: old.server.links == 0)


async def test_a_listed_node_needs_no_dns_and_is_never_dropped(pki):
    async with name_server() as dns, station(pki) as fra:
        dns.nodes = {"fra-a": ("127.0.0.1", 9)}
        async with fleet(pki, dns, Peer(node="fra-a", address=f"127.0.0.1:{fra.port}")) as (peers, book):
            await wait_until(lambda: book.seq())
            dns.nodes = {"nrt-a": ("127.0.0.1", 9)}
            await fra.stop()
            await wait_until(lambda: book.forgotten == ["fra-a"])
            dns.mode = "silent"
            failures = peers.discovery.failures
            await wait_until(lambda: peers.discovery.failures > failures)
            assert "fra-a" in peers.peers
