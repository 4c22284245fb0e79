"""Manifests that lie, at a real weight store: each refused by name, nothing of it kept as a blob, neighbours served."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.errors import Reason
from edge.weights.manifest import BlobFile, digest
from tests.support.blobs import Bucket, Published, Served, content_digest
from tests.support.region import Fleet, fleet

MIB = 1 << 20
CHUNK = 1 << 18
OTHER = "b" * 64


@pytest.fixture
async def nodes(tmp_path: Path, origin: Served) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path, origin.url, None) as made:
        yield made


def published(bucket: Bucket, model: Published, change: Callable[[dict[str, Any]], None]) -> Published:
    """Another manifest of the same name whose digest is right and whose content is not."""
    document = msgspec.json.decode(model.raw)
    change(document)
    raw = msgspec.json.encode(document)
    name = digest(raw)
    (bucket.root / "manifests" / f"{name}.json").write_bytes(raw)
    return Published(name, model.manifest, raw)


def weights(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """The weights file of a manifest with these fields."""
    return lambda document: document["files"][-1].update(changes)


REFUSED = [
    ("a file that climbs", weights(name="../../etc/passwd"), "$.files[1].name"),
    ("a file at an absolute path", weights(name="/etc/passwd"), "$.files[1].name"),
    ("a blob that is a path", weights(blake3="../" * 20 + "etc/"), "$.files[1].blake3"),
    ("a role nobody knows", weights(role="device"), "$.files[1].role"),
    ("ten million bytes per digest", weights(chunk_bytes=1 << 40), "$.files[1].chunk_bytes"),
    ("a million chunks of nothing", weights(chunks=[OTHER] * 50_000), "weights"),
    ("more bytes than chunks", weights(size_bytes=1 << 40), "weights"),
    ("a size below nothing", weights(size_bytes=-1), "$.files[1].size_bytes"),
    ("two files under one name", weights(name="graph"), "graph"),
    ("65 files", lambda document: document["files"].extend(document["files"][-1:] * 64), "$.files"),
]


@pytest.mark.parametrize(("sentence", "change", "says"), REFUSED, ids=[row[0] for row in REFUSED])
async def test_what_no_manifest_may_say(
    bucket: Bucket,
    origin: Served,
    nodes: Fleet,
    sentence: str,
    change: Callable[[dict[str, Any]], None],
    says: str,
) -> None:
    model = bucket.publish(size_bytes=CHUNK)
    hostile = published(bucket, model, change)
    node = await nodes.start("fra-a", index=False)
    refused = await node.refused(hostile)
    assert refused.reason is Reason.BLOB_CORRUPT, sentence
    assert says in refused.message, sentence
    assert len(refused.message) < 500, sentence
    assert not node.blobs(), sentence
    assert not list((node.store / "manifests").iterdir()), "not kept either"
    assert (await node.ensure(model)).residency == "origin", "its neighbour comes"


def changed(file: BlobFile, **changes: Any) -> BlobFile:
    return msgspec.structs.replace(file, **changes)


async def test_a_wrong_chunk_is_named_with_its_file(bucket: Bucket, nodes: Fleet) -> None:
    model = bucket.publish(size_bytes=4 * CHUNK, chunk_bytes=CHUNK)
    graph, good = model.manifest.files
    chunks = (*good.chunks[:2], OTHER, *good.chunks[3:])
    liar = bucket.publish_manifest("liar", (graph, changed(good, chunks=chunks)))
    node = await nodes.start("fra-a", index=False)
    refused = await node.refused(liar)
    assert refused.reason is Reason.BLOB_CORRUPT
    for word in ("liar version 1", "chunk 2", good.blake3, "weights"):
        assert word in refused.message, refused.message
    assert good.blake3 not in node.blobs()
    assert (await node.ensure(model)).residency == "origin", "who tells the truth of that blob gets it"


async def test_right_chunks_under_another_blob_s_name_spoil_nobody(bucket: Bucket, nodes: Fleet) -> None:
    """Its chunks and its origin agree; only the whole tells that this is not the blob it names."""
    victim = bucket.publish("victim", size_bytes=4 * CHUNK, chunk_bytes=CHUNK)
    other = bucket.publish("other", size_bytes=4 * CHUNK, chunk_bytes=CHUNK, graph=b"another")
    target = bucket.root / "blobs" / victim.weights.blake3
    right = target.read_bytes()
    target.write_bytes((bucket.root / "blobs" / other.weights.blake3).read_bytes())
    liar = bucket.publish_manifest(
        "liar", (other.manifest.files[0], changed(other.weights, blake3=victim.weights.blake3))
    )
    node = await nodes.start("fra-a", index=False)
    refused = await node.refused(liar)
    assert refused.reason is Reason.BLOB_CORRUPT
    for word in ("liar version 1", victim.weights.blake3, "weights", "the whole is not"):
        assert word in refused.message, refused.message
    assert victim.weights.blake3 not in node.blobs()
    target.write_bytes(right)
    assert (await node.ensure(other)).residency == "origin"


async def test_a_file_above_the_disk_budget_is_refused_at_once(
    bucket: Bucket, origin: Served, nodes: Fleet
) -> None:
    large = bucket.publish("large", size_bytes=4 * MIB)
    small = bucket.publish("small", size_bytes=CHUNK)
    node = await nodes.start("fra-a", index=False, disk_bytes="2MiB")
    refused = await node.refused(large)
    assert (refused.reason, refused.retryable) == (Reason.NO_SPACE, False)
    for word in ("large version 1", "weights", "weights.disk_bytes is 2097152"):
        assert word in refused.message, refused.message
    assert origin.sent_bytes < MIB, "nothing of it was fetched"
    assert (await node.ensure(small)).residency == "origin"


async def test_what_is_published_during_a_download_changes_nothing_of_it(
    bucket: Bucket, origin: Served, nodes: Fleet
) -> None:
    """A version is its digests: a later one under the same name is another download."""
    first = bucket.publish("m", size_bytes=4 * CHUNK, chunk_bytes=CHUNK)
    bucket.catalogue(1, [first])
    node = await nodes.start("fra-a", index=False)
    origin.fail("stall", path_prefix=f"blobs/{first.weights.blake3}", count=1, stall_s=0.5)
    links = [await node.connect() for _ in range(2)]

    async def second() -> Published:
        later = bucket.publish("m", size_bytes=4 * CHUNK, chunk_bytes=CHUNK, graph=b"later")
        bucket.catalogue(2, [later])
        await node.ensure(later, links[1])
        return later

    (ensured, later) = await asyncio.gather(node.ensure(first, links[0]), second())
    assert ensured.residency == "origin"
    assert {first.weights.blake3, later.weights.blake3} <= node.blobs()


async def test_two_nodes_that_race_for_one_digest_without_an_index_bring_it_once_each(
    bucket: Bucket, origin: Served, nodes: Fleet
) -> None:
    model = bucket.publish(size_bytes=8 * CHUNK, chunk_bytes=CHUNK)
    both = [await nodes.start(name, index=False) for name in ("fra-a", "ams-a")]
    before = origin.sent_bytes
    # Neither is done before the other begins: the first chunk of each is late.
    origin.fail("stall", path_prefix=f"blobs/{model.weights.blake3}", count=2, stall_s=0.3)
    answers = await asyncio.gather(*(node.ensure(model) for node in both for _ in range(5)))
    total = model.manifest.size_bytes
    assert sum(answer.moved_bytes for answer in answers) == 2 * total, "callers of one node share it"
    assert origin.sent_bytes - before <= 2 * (total + len(model.raw))
    for node in both:
        for file in model.manifest.files:
            assert content_digest(node.store / "blobs" / file.blake3) == file.blake3
        assert (await node.state()).disk_used_bytes == node.on_disk()
