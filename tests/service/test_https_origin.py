"""An origin over TLS: believed where its authority is named, and what its certificate lacks is said."""

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge import clock
from edge.errors import Reason
from netlab.ca import Ca, issue, write_ca
from tests.support.blobs import Bucket, Served, content_digest, serving
from tests.support.region import fleet
from tests.support.weights import Running

CHUNK = 1 << 18
YEAR = timedelta(days=365)


@pytest.fixture
def authority(tmp_path: Path) -> Ca:
    return write_ca(tmp_path / "authority")


@asynccontextmanager
async def origin_with(
    bucket: Bucket, authority: Ca, address: str = "127.0.0.1", age: timedelta = timedelta()
) -> AsyncIterator[Served]:
    """With a certificate for that address that was issued so long ago."""
    then = datetime.fromtimestamp(clock.wall_s(), UTC) - age
    paths = issue(authority, "origin", [address], authority.path.parent, now=then)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*paths)
    async with serving(bucket, tls=tls) as served:
        yield served


@asynccontextmanager
async def node_at(served: Served, root: Path) -> AsyncIterator[Running]:
    async with fleet(root, served.url, None) as lone:
        yield await lone.start("n")


async def test_a_model_comes_in_ranges_over_tls(
    bucket: Bucket, authority: Ca, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    model = bucket.publish(size_bytes=6 * CHUNK + 1, chunk_bytes=CHUNK)
    liar = bucket.publish("liar", size_bytes=4 * CHUNK, chunk_bytes=CHUNK, graph=b"liar")
    bucket.spoil(liar.weights, at=2 * CHUNK)
    async with origin_with(bucket, authority) as served, node_at(served, tmp_path) as node:
        assert (await node.ensure(model)).residency == "origin"
        blob = model.weights.blake3
        assert content_digest(node.store / "blobs" / blob) == blob
        assert served.requests >= 7, "one range per chunk"
        error = await node.refused(liar)
        assert error.reason is Reason.BLOB_CORRUPT
        assert "chunk 2" in error.message


UNFIT = [
    ("an authority that nobody named", False, {}, r"\(UnknownIssuer\); name a file .* SSL_CERT_FILE"),
    ("another host's", True, {"address": "127.0.0.2"}, r"\(NotValidForName\); the origin's URL"),
    ("one that has ended", True, {"age": YEAR}, r"\(Expired\); renew it"),
]


@pytest.mark.parametrize(("sentence", "named", "made", "says"), UNFIT, ids=[row[0] for row in UNFIT])
async def test_a_certificate_that_is_refused_is_called_that(
    bucket: Bucket,
    authority: Ca,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sentence: str,
    named: bool,
    made: dict[str, Any],
    says: str,
) -> None:
    if named:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    model = bucket.publish(size_bytes=CHUNK)
    async with origin_with(bucket, authority, **made) as served, node_at(served, tmp_path) as node:
        error = await node.refused(model)
        assert (error.reason, error.retryable) == (Reason.ORIGIN_DOWN, True), sentence
        assert re.search(f"its certificate is refused {says}", error.message), error.message
        assert not node.blobs(), sentence
