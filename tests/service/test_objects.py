"""Objects in a real weights process with a real origin: once, held, bounded, and never wrong."""

import asyncio
import os
from typing import Any

import pytest

from edge.errors import EdgeError, Reason
from edge.weights.objects import SHARE
from edge.wire import calls
from edge.wire.link import Link
from tests.service.test_weights_app import Start, start
from tests.support.blobs import Bucket, Served
from tests.support.objects import put_object, write_entry
from tests.support.wait import wait_until
from tests.support.weights import Running

__all__ = ("start",)

MIB = 1 << 20


async def ask(
    node: Running,
    *names: str,
    link: Link | None = None,
    max_bytes: int = 64 * MIB,
    deadline_ms: float = 20_000,
) -> calls.EnsuredObjects:
    head, _ = await node.call(calls.EnsureObjects(names, max_bytes, deadline_ms), link)
    assert isinstance(head, calls.EnsuredObjects)
    assert tuple(one.name for one in head.objects) == names
    return head


async def reason(node: Running, name: str, **more: Any) -> tuple[str, str]:
    """Why an object is not there: the reason and the sentence."""
    (one,) = (await ask(node, name, **more)).objects
    assert not one.digest
    return one.reason, one.message


async def test_fifty_that_name_one_object_cost_one_fetch(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    content = os.urandom(MIB)
    entry = put_object(bucket.root, "pictures/cat.jpg", content)
    node = await start()
    links = [await node.connect() for _ in range(5)]
    before = origin.sent_bytes
    found = await asyncio.gather(*[ask(node, "pictures/cat.jpg", link=links[n % 5]) for n in range(50)])
    here = calls.ObjectHere("pictures/cat.jpg", entry.blake3, len(content))
    assert [one.objects for one in found] == [(here,)] * 50
    raw_entry = (bucket.root / "data/pictures/cat.jpg.json").read_bytes()
    assert (node.store / "blobs" / entry.blake3).read_bytes() == content
    moved = sum(one.outside_bytes for one in found)
    assert moved == len(content) + len(raw_entry), "each byte is told to one of them"
    sent = origin.sent_bytes - before
    assert sent <= moved + 4096, "one fetch (and what the catalogue's poll costs)"
    again = await ask(node, "pictures/cat.jpg")
    assert (again.moved_bytes, again.outside_bytes) == (0, 0)


async def test_several_at_once_each_with_its_own_fate(bucket: Bucket, start: Start) -> None:
    one, two = put_object(bucket.root, "one", b"1" * 1000), put_object(bucket.root, "two", b"2" * 2000)
    node = await start()
    found = (await ask(node, "two", "none", "one")).objects
    assert [(here.digest, here.size_bytes, here.reason) for here in found] == [
        (two.blake3, 2000, ""),
        ("", 0, "unknown-object"),
        (one.blake3, 1000, ""),
    ]
    assert "popctl data push FILE none" in found[1].message


async def test_too_much_together_is_refused_before_a_byte_moves(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    small = put_object(bucket.root, "small", os.urandom(1000))
    big = put_object(bucket.root, "big", os.urandom(MIB))
    node = await start()
    found = (await ask(node, "small", "big", max_bytes=MIB)).objects
    assert [here.reason for here in found] == ["", "too-large"]
    assert f"has {MIB} bytes, {MIB + 1000} with those named before it" in found[1].message
    assert node.blobs() == {small.blake3}
    assert [here.digest for here in (await ask(node, "big", max_bytes=MIB)).objects] == [big.blake3]


async def test_wrong_bytes_are_never_an_object(bucket: Bucket, start: Start) -> None:
    entry = put_object(bucket.root, "flipped", os.urandom(300_000))
    bucket.spoil(entry.file, at=70_000)
    write_entry(bucket.root, entry, name="moved")
    (bucket.root / "data/page.json").write_bytes(b"<html>not found</html>")
    node = await start()
    assert (await reason(node, "flipped"))[0] == "blob-corrupt"
    assert await reason(node, "moved") == (
        "blob-corrupt",
        "the entry of the object moved is of the object 'flipped'; publish the object again",
    )
    assert (await reason(node, "page"))[0] == "blob-corrupt"
    assert entry.blake3 not in node.blobs()


async def test_what_waits_for_an_object_has_a_deadline_and_the_fetch_goes_on(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    entry = put_object(bucket.root, "slow", os.urandom(MIB))
    node = await start()
    origin.fail("stall", path_prefix="blobs/", count=1, stall_s=60.0)
    with pytest.raises(EdgeError, match="slow: not here within 300 ms") as caught:
        await ask(node, "slow", deadline_ms=300)
    assert (caught.value.reason, caught.value.status) == (Reason.DEADLINE, 504)
    await wait_until(lambda: entry.blake3 in node.blobs(), within_s=15)
    assert (await ask(node, "slow")).objects[0].digest == entry.blake3


async def test_objects_have_a_share_of_the_disk_and_what_is_held_stays(bucket: Bucket, start: Start) -> None:
    model = bucket.publish(size_bytes=MIB)
    names = [f"o{n}" for n in range(4)]
    entries = {name: put_object(bucket.root, name, os.urandom(400_000)) for name in names}
    node = await start(disk_bytes=f"{4 * MIB}B")
    assert SHARE == 4, "a MiB here: two of these objects"
    await node.ensure(model)
    await node.release(model)
    holding, passing = await node.connect(), await node.connect()
    assert not (await ask(node, "o0", link=holding)).objects[0].reason
    for name in names[1:]:
        (one,) = (await ask(node, name, link=passing)).objects
        assert not one.reason, one.message
        await node.call(calls.ReleaseObjects((one.digest,)), passing)
    objects = node.blobs() - {file.blake3 for file in model.manifest.files}
    assert objects == {entries["o0"].blake3, entries["o3"].blake3}, "the one in use, and the last"
    assert (await node.state()).objects_bytes == 800_000
    assert {file.blake3 for file in model.manifest.files} <= node.blobs(), "no model went for them"
    assert not (await ask(node, "o1", link=holding)).objects[0].reason
    refused = (await ask(node, "o2", link=passing)).objects[0]
    assert (refused.reason, refused.retryable) == ("no-space", True)
    holding.close()

    async def free() -> bool:
        return not (await ask(node, "o2", link=passing)).objects[0].reason

    await wait_until(free, within_s=10)
    assert (await reason(node, "whole"))[0] == "unknown-object"
    put_object(bucket.root, "whole", os.urandom(2 * MIB))

    async def never() -> bool:
        one = (await ask(node, "whole", link=passing)).objects[0]
        return one.reason == "no-space" and not one.retryable

    await wait_until(never, within_s=10)
    # A new process finds them again, as objects.
    await node.stop()
    node = await start(disk_bytes=f"{4 * MIB}B")
    before = node.blobs()
    for name in ("o0", "o3"):
        assert not (await ask(node, name)).objects[0].reason
    assert len(node.blobs() - {file.blake3 for file in model.manifest.files}) <= 2, before


async def test_names_that_no_proxy_sends_are_refused(start: Start) -> None:
    node = await start()
    for names in (("../../etc/passwd",), ("a", "a"), tuple(f"o{n}" for n in range(9))):
        with pytest.raises(EdgeError, match="can't be names") as caught:
            await ask(node, *names)
        assert caught.value.reason is Reason.PROTOCOL
    await node.call(calls.ReleaseObjects(("0" * 64,)))
