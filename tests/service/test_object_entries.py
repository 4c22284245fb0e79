"""What a node believes of an object's name, against a real origin that changes its mind, fails and is slow."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge import clock
from edge.background import Background
from edge.errors import EdgeError, Reason
from edge.weights.entries import MAX_ASKING, Entries
from edge.weights.entry import Entry
from edge.weights.flights import Flights
from edge.weights.origin import Origin
from tests.support.blobs import Bucket, Served
from tests.support.objects import put_object
from tests.support.s3 import running_s3
from tests.support.wait import wait_until

FRESH_MS = 150.0


@pytest.fixture
async def entries(origin: Served) -> AsyncIterator[Entries]:
    halt, background = threading.Event(), Background()
    store = Origin(origin.url, request_timeout_ms=10_000, stop=halt)
    with ThreadPoolExecutor(2) as threads:
        yield Entries(store, threads, Flights(background.spawn), fresh_ms=FRESH_MS)
        halt.set()
        await background.close()


async def said(entries: Entries, name: str = "news") -> Entry:
    answer = await entries.get(name)
    assert isinstance(answer.said, Entry), answer.said
    return answer.said


async def reason(entries: Entries, name: str = "news") -> Reason | None:
    answer = await entries.get(name)
    return answer.said.reason if isinstance(answer.said, EdgeError) else None


async def test_a_word_is_believed_for_a_moment_and_then_asked_for_anew(
    bucket: Bucket, origin: Served, entries: Entries
) -> None:
    first = put_object(bucket.root, "news", b"old")
    raw = (bucket.root / "data/news.json").read_bytes()
    answers = await asyncio.gather(*[entries.get("news") for _ in range(20)])
    assert [answer.said for answer in answers] == [first] * 20
    assert sorted(answer.moved_bytes for answer in answers) == [0] * 19 + [len(raw)]
    assert origin.requests == 1
    assert entries.at_once("news") == first
    await wait_until(lambda: entries.at_once("news") is None)
    assert await said(entries) == first
    assert (origin.requests, entries.moved_bytes) == (2, len(raw)), "confirmed by its ETag: no bytes"
    second = put_object(bucket.root, "news", b"new")
    assert await said(entries) == first, "still believed"
    await wait_until(lambda: entries.at_once("news") is None)
    assert await said(entries) == second


async def test_what_is_taken_away_is_gone_and_what_comes_is_there(bucket: Bucket, entries: Entries) -> None:
    assert await reason(entries) is Reason.UNKNOWN_OBJECT
    put_object(bucket.root, "news", b"1")

    async def there() -> bool:
        return await reason(entries) is None

    await wait_until(there)
    (bucket.root / "data/news.json").unlink()

    async def gone() -> bool:
        return await reason(entries) is Reason.UNKNOWN_OBJECT

    await wait_until(gone)
    (bucket.root / "data/news.json").write_bytes(b"{}")

    async def bad() -> bool:
        return await reason(entries) is Reason.BLOB_CORRUPT

    await wait_until(bad)


async def test_while_the_origin_is_away_what_is_known_goes_on(
    bucket: Bucket, origin: Served, entries: Entries, caplog: pytest.LogCaptureFixture
) -> None:
    entry = put_object(bucket.root, "news", b"1")
    assert await said(entries) == entry
    origin.fail("5xx", path_prefix="data/")
    assert await reason(entries, "unknown") is Reason.ORIGIN_DOWN
    await wait_until(lambda: entries.at_once("news") is None)
    with caplog.at_level(logging.WARNING):
        assert await said(entries) == entry
    assert "the entry of news stays as it is" in caplog.text
    asked = origin.requests
    assert await said(entries) == entry
    assert origin.requests == asked, "an origin that is away is not asked by each request"


async def test_an_origin_that_is_slow_keeps_nobody_waiting_who_knows_an_older_word(
    bucket: Bucket, origin: Served, entries: Entries
) -> None:
    entry = put_object(bucket.root, "news", b"1")
    assert await said(entries) == entry
    put_object(bucket.root, "news", b"2")
    await wait_until(lambda: entries.at_once("news") is None)
    origin.fail("stall", path_prefix="data/", count=1)
    began_ms = clock.now_ms()
    assert await said(entries) == entry
    assert clock.now_ms() - began_ms < 1_900, "the origin's own timeout is 2 s"


async def test_names_of_strangers_have_a_queue_with_an_end(origin: Served, entries: Entries) -> None:
    answers = await asyncio.gather(*[entries.get(f"o{n}") for n in range(MAX_ASKING + 5)])
    reasons = [answer.said.reason for answer in answers if isinstance(answer.said, EdgeError)]
    assert reasons.count(Reason.SATURATED) == 5
    assert reasons.count(Reason.UNKNOWN_OBJECT) == MAX_ASKING


async def test_a_bucket_confirms_an_entry_without_sending_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = Bucket(tmp_path / "made")
    entry = put_object(source.root, "news", b"1")
    raw = (source.root / "data/news.json").read_bytes()
    halt, background = threading.Event(), Background()
    with running_s3() as s3, ThreadPoolExecutor(2) as threads:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        s3.objects["data/news.json"] = raw
        store = Origin(s3.url, request_timeout_ms=10_000, stop=halt)
        known = Entries(store, threads, Flights(background.spawn), fresh_ms=FRESH_MS)
        assert await said(known) == entry
        await wait_until(lambda: known.at_once("news") is None)
        assert await said(known) == entry
        assert known.moved_bytes == len(raw)
        assert await reason(known, "none") is Reason.UNKNOWN_OBJECT
        halt.set()
        await background.close()
