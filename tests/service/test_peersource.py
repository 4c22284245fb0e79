"""A node as a source, where its server is hostile or sick: nothing is taken that did not come as asked."""

import asyncio

import pytest

from edge.errors import Reason
from edge.weights.peersource import PeerError
from netlab.ca import Ca, write_ca
from tests.support.blobserver import lying, right


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return write_ca(tmp_path_factory.mktemp("ca"))


@pytest.mark.parametrize(
    ("sentence", "answer", "match", "lasting"),
    [
        ("the whole for a range", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 100, "with 200", True),
        ("another range", right(span="bytes 1-100/101"), "bytes 1-100", True),
        ("a blob of another size", right(span="bytes 0-99/200"), "0-99/200", True),
        ("no Content-Range", b"HTTP/1.1 206 x\r\nContent-Length: 100\r\n\r\n" + b"x" * 100, "sent ''", True),
        ("no length", b"HTTP/1.1 206 x\r\nContent-Range: bytes 0-99/100\r\n\r\n" + b"x" * 100, "promises None", True),
        ("chunked", right(more="Transfer-Encoding: chunked\r\n"), "promises None", True),
        ("a body that is cut", right(b"x" * 50, more="X: cut\r\n"), "50 bytes", False),
        ("busy", b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", "with 503", False),
        ("gone", b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n", "with 404", True),
        ("a redirect", b"HTTP/1.1 302 x\r\nLocation: http://198.51.100.9/\r\nContent-Length: 0\r\n\r\n", "with 302", True),
        ("no HTTP", b"SSH-2.0-x\r\n\r\n", "could not", False),
        ("a head without end", b"HTTP/1.1 206 x\r\n" + b"X: y\r\n" * 10_000, "could not", False),
    ],
)  # fmt: skip
async def test_what_does_not_come_as_asked_is_refused(
    ca: Ca, sentence: str, answer: bytes, match: str, lasting: bool
) -> None:
    async with lying(ca, answer) as (_, peer), asyncio.timeout(5):
        with pytest.raises(PeerError, match=match) as caught:
            await asyncio.to_thread(lambda: list(peer.range("blobs/x", 0, 100, object_bytes=100)))
        assert caught.value.lasting is lasting, sentence
        assert caught.value.reason is Reason.LINK_LOST
        assert peer._idle == [], sentence


async def test_a_small_object_is_bounded_in_bytes_and_time(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    async with lying(ca, head % 1000 + b"x" * 1000) as (_, peer):
        with pytest.raises(PeerError, match="exceeds 999"):
            await asyncio.to_thread(peer.small, "manifests/x.json", 999)
        assert await asyncio.to_thread(peer.small, "manifests/x.json", 1000) == b"x" * 1000
    monkeypatch.setattr("edge.weights.peersource.SMALL_WITHIN_S", 0.5)
    for sentence, answer in (
        ("a head that drips", right() * 9),
        ("a body that drips", head % 99 + b"x" * 99),
    ):
        async with lying(ca, answer, drip_s=0.02) as (_, peer), asyncio.timeout(3):
            with pytest.raises(PeerError, match="drips"):
                await asyncio.to_thread(peer.small, "manifests/x.json", 1000)
        assert sentence


async def test_a_kept_connection_that_died_is_replaced_unseen(ca: Ca) -> None:
    async with lying(ca, right(more="X: cut\r\n")) as (liar, peer):
        for _ in range(3):
            parts = await asyncio.to_thread(
                lambda: [bytes(p) for p in peer.range("x", 0, 100, object_bytes=100)]
            )
            assert b"".join(parts) == b"x" * 100
        assert (liar.requests, liar.connections) == (3, 3)
