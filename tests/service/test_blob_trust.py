"""Blobs go from one node of the fleet to another one, and to nobody else."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.weights.peersource import Peer, PeerError, Peers
from edge.weights.tls import Papers, context
from netlab.ca import Ca, write_ca
from tests.support.blobserver import Running, blob_server
from tests.support.region import papers


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return write_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def fra(tmp_path: Path, ca: Ca) -> AsyncIterator[Running]:
    async with blob_server(tmp_path, ca) as running:
        yield running


@pytest.mark.parametrize(
    ("sentence", "make"),
    [
        ("a foreign authority", lambda ca, tmp: papers(write_ca(tmp / "foreign"), "ber-a")),
        ("an expired certificate", lambda ca, tmp: papers(ca, "ber-a", now=datetime.now(UTC) - timedelta(days=90))),
    ],
)  # fmt: skip
async def test_who_is_not_of_the_fleet_gets_nothing(
    fra: Running, ca: Ca, tmp_path: Path, sentence: str, make: Callable[[Ca, Path], Papers]
) -> None:
    digest = fra.shelf.put(b"x" * 10)
    theirs = make(ca, tmp_path)._replace(ca=ca.path.read_text())
    stranger = Peer("fra-a", ("127.0.0.1", fra.port), context(ssl.Purpose.SERVER_AUTH, theirs), fra.stop)
    with pytest.raises(PeerError):
        await asyncio.to_thread(stranger.small, f"blobs/{digest}", 10)
    assert fra.server.served_bytes == 0, sentence
    bare = ssl.create_default_context(cafile=str(ca.path))
    nobody = Peer("fra-a", ("127.0.0.1", fra.port), bare, fra.stop)
    with pytest.raises(PeerError):
        await asyncio.to_thread(nobody.small, f"blobs/{digest}", 10)
    assert fra.shelf.most_lent == 0


async def test_an_address_that_leads_to_another_node_is_not_asked(fra: Running) -> None:
    digest = fra.shelf.put(b"x" * 10)
    peers = Peers(fra.tls, fra.stop)
    meant = peers.at("nrt-a", f"127.0.0.1:{fra.port}")
    assert meant is not None
    with pytest.raises(PeerError, match="nrt-a"):
        await asyncio.to_thread(meant.small, f"blobs/{digest}", 10)
    assert fra.shelf.most_lent == 0
    for node, blobs in (
        ("", "127.0.0.1:1"),
        (".", "127.0.0.1:1"),
        ("ü", "127.0.0.1:1"),
        ("a", "example.org:1"),
        ("a", ""),
    ):
        assert peers.at(node, blobs) is None
    assert Peers(None, fra.stop).at("fra-a", "127.0.0.1:1") is None
