"""One blob from several sources that stall, drip, lie or still download: what is asked of whom."""

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.policy import fetch_plan
from edge.policy.fetch_plan import DRIP_MS, HEDGES
from edge.weights.chunks import Chunk, Got, Run
from edge.weights.fetch import Choice, Limits, Meter, Ranges, fetch_blob
from edge.weights.manifest import BlobFile
from edge.weights.sources import ORIGIN, Kind, NotYetError, Site
from edge.weights.store import Store
from netlab.clock import now_s, wait_until
from tests.support.blobs import blob_file, content_digest
from tests.support.sources import Gate, Memory, lost, pieces

CHUNK = 1 << 16
CONTENT = os.urandom(24 * CHUNK + 17)
BLOB = blob_file("weights", CONTENT, chunk_bytes=CHUNK)
LIMITS = Limits(parallel=4, min_bytes_per_s=1, watch_ms=20_000)
A, B, C, D = (Site(Kind.REGION, name) for name in "abcd")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", "n")
    store.open()
    yield store
    store.close(clean=True)


@pytest.fixture
def choice() -> Iterator[Choice]:
    choice = Choice()
    yield choice
    choice.close()


def fetch(
    store: Store,
    choice: Choice,
    feeds: Mapping[Site, Ranges],
    file: BlobFile = BLOB,
    limits: Limits = LIMITS,
) -> Meter:
    meter = Meter()
    fetch_blob(file, store, feeds, choice, limits, meter, threading.Event())
    assert content_digest(store.blob_path(file.blake3)) == file.blake3
    return meter


def test_what_a_source_sends_beyond_a_chunk_goes_nowhere(store: Store) -> None:
    """Not into the chunks behind it, which may be right already."""
    ingest = store.open_ingest(BLOB)
    ingest.write(0, CONTENT)
    beyond = Memory(CONTENT, lambda _, right: iter((right, b"x" * CHUNK, b"x" * 3 * CHUNK)))
    run = Run(Chunk(ingest, 0), A, 0.0)
    assert run.receive(beyond, "", len(CONTENT), BLOB.chunks[0], lambda _: None) is Got.WRONG
    assert content_digest(ingest.data_path) == BLOB.blake3
    ingest.close()


def test_a_source_that_stalls_is_not_waited_for_at_the_end(store: Store, choice: Choice) -> None:
    gate = Gate()

    def half(_: int, right: bytes) -> Iterator[bytes]:
        yield right[: CHUNK // 2]
        gate.wait()
        yield right[CHUNK // 2 :]

    stalled = Memory(CONTENT, half)
    began_s = now_s()
    try:
        meter = fetch(store, choice, {A: stalled, B: Memory(CONTENT), C: Memory(CONTENT), D: Memory(CONTENT)})
        assert now_s() - began_s < 10.0, "it would have been silent for 20 s"
        assert len(stalled.starts) == 1
        assert meter.moved_bytes >= len(CONTENT) + CHUNK // 2, "what the loser sent is counted too"
    finally:
        gate.open()


def test_what_a_loser_sends_late_goes_nowhere(store: Store, choice: Choice) -> None:
    overtaken, has_lied = Gate(), Gate()
    taken: list[bytes] = []

    def lies_when_overtaken(_: int, right: bytes) -> Iterator[bytes]:
        taken.append(right)
        yield right[: CHUNK // 2]
        overtaken.wait()
        try:
            yield bytes(CHUNK // 2)
        finally:
            has_lied.open()

    def overtakes(_: int, right: bytes) -> Iterator[bytes]:
        if len(right) == 17:
            # The fetch is not over before the lie was told.
            has_lied.wait()
        yield right
        if taken and right == taken[0]:
            overtaken.open()

    fetch(store, choice, {A: Memory(CONTENT, lies_when_overtaken), B: Memory(CONTENT, overtakes)})
    assert taken


def test_a_farther_class_is_not_asked_to_be_done_a_little_sooner(store: Store, choice: Choice) -> None:
    origin = Memory(CONTENT)
    meter = fetch(store, choice, {A: Memory(CONTENT), B: Memory(CONTENT), ORIGIN: origin})
    assert not origin.starts
    assert meter.moved.by[Kind.REGION] <= len(CONTENT) + HEDGES * CHUNK


def test_the_only_near_source_that_stalls_is_replaced_from_afar_in_the_end(
    store: Store, choice: Choice
) -> None:
    gate = Gate()

    def never(_: int, right: bytes) -> Iterator[bytes]:
        gate.wait()
        yield right

    try:
        meter = fetch(store, choice, {A: Memory(CONTENT, never), ORIGIN: Memory(CONTENT)})
        assert meter.moved.by[Kind.ORIGIN] == len(CONTENT)
    finally:
        gate.open()


def test_a_holder_of_the_region_that_delivers_is_not_left_for_a_faster_origin(
    store: Store, choice: Choice
) -> None:
    content = CONTENT[:CHUNK]
    pause, origin = Gate(), Memory(content)

    def slowly(_: int, right: bytes) -> Iterator[bytes]:
        for piece in pieces(right, CHUNK // 16):
            pause.rest(DRIP_MS / 1000.0 / 14)
            yield piece

    choice.delivered(ORIGIN, 1 << 30, 1.0)
    file = blob_file("weights", content, chunk_bytes=CHUNK)
    fetch(store, choice, {A: Memory(content, slowly), ORIGIN: origin}, file)
    assert not origin.starts


class Growing:
    """A source of the region that has the first `here` chunks and is told when it has more."""

    def __init__(self) -> None:
        self.here = 0
        self.came_bytes = 0
        self.refused = 0
        self.memory = Memory(CONTENT)

    def range(self, path: str, start: int, end: int, *, object_bytes: int) -> Iterator[bytes]:
        if start // CHUNK >= self.here:
            self.refused += 1
            raise NotYetError("not yet", here_bytes=self.came_bytes)
        return self.memory.range(path, start, end, object_bytes=object_bytes)


def started(
    store: Store, choice: Choice, feeds: Mapping[Site, Ranges], pool: ThreadPoolExecutor
) -> Future[Meter]:
    return pool.submit(fetch, store, choice, feeds)


def test_a_source_that_still_downloads_is_followed_and_the_origin_left_alone(
    store: Store, choice: Choice
) -> None:
    leader, origin = Growing(), Memory(CONTENT)
    with ThreadPoolExecutor(1) as pool:
        work = started(store, choice, {A: leader, ORIGIN: origin}, pool)
        for here in range(1, len(BLOB.chunks) + 1):
            leader.here = here
            wait_until(lambda: len(leader.memory.starts) >= leader.here, "it was taken", within_s=10)
        meter = work.result(10)
    assert not origin.starts
    assert meter.moved_bytes == len(CONTENT)
    assert leader.refused > 0
    assert choice.ranked([A, ORIGIN], CHUNK)[0] == A, "it did not fail"


def test_one_that_gets_no_further_is_left_for_the_origin_after_two_seconds(
    store: Store, choice: Choice
) -> None:
    leader, origin = Growing(), Memory(CONTENT)
    leader.here = 3
    began_s = now_s()
    meter = fetch(store, choice, {A: leader, ORIGIN: origin})
    assert now_s() - began_s >= 2.0
    assert meter.moved.by[Kind.ORIGIN] == len(CONTENT) - 3 * CHUNK
    assert leader.refused < 1_000, "it was not asked in a busy loop"


def test_one_to_which_bytes_come_is_waited_for_though_it_has_no_chunk_yet(
    store: Store, choice: Choice
) -> None:
    leader, origin = Growing(), Memory(CONTENT)
    with ThreadPoolExecutor(1) as pool:
        work = started(store, choice, {A: leader, ORIGIN: origin}, pool)
        until_s = now_s() + 2.5

        def grows() -> bool:
            leader.came_bytes += 1
            return now_s() > until_s

        wait_until(grows, "it grew for longer than it would be waited for", within_s=10)
        assert not origin.starts
        leader.here = len(BLOB.chunks)
        work.result(10)
    assert not origin.starts


def test_one_that_only_talks_is_left_for_the_origin(
    store: Store, choice: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Talks(Growing):
        def range(self, path: str, start: int, end: int, *, object_bytes: int) -> Iterator[bytes]:
            self.came_bytes += 1
            return super().range(path, start, end, object_bytes=object_bytes)

    monkeypatch.setattr(fetch_plan, "TALK_MS", 500.0)
    meter = fetch(store, choice, {A: Talks(), ORIGIN: Memory(CONTENT)})
    assert meter.moved.by[Kind.ORIGIN] == len(CONTENT)


def test_one_that_dies_while_it_downloads_is_left_at_once(store: Store, choice: Choice) -> None:
    class Dies(Growing):
        def range(self, path: str, start: int, end: int, *, object_bytes: int) -> Iterator[bytes]:
            if self.refused >= 4:
                raise lost("it died")
            return super().range(path, start, end, object_bytes=object_bytes)

    began_s = now_s()
    meter = fetch(store, choice, {A: Dies(), ORIGIN: Memory(CONTENT)})
    assert meter.moved.by[Kind.ORIGIN] == len(CONTENT)
    assert now_s() - began_s < 2.0


def test_a_small_one_behind_a_large_one_is_done_first(store: Store, choice: Choice) -> None:
    """Every range waits for a turn at one link, and turns are given in the order they were asked for."""
    turns, at_link = threading.Semaphore(0), threading.Semaphore(0)

    def in_turn(_: int, right: bytes) -> Iterator[bytes]:
        at_link.release()
        if not turns.acquire(timeout=20.0):
            raise lost("no turn")
        yield right

    small_content = os.urandom(6 * CHUNK)
    small = blob_file("small", small_content, chunk_bytes=CHUNK)
    limits = LIMITS._replace(parallel=16)
    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(fetch, store, choice, {A: Memory(CONTENT, in_turn)}, BLOB, limits)
        for _ in range(4):
            assert at_link.acquire(timeout=10)
        late = Memory(small_content, in_turn)
        little = pool.submit(fetch, store, choice, {B: late}, small, limits)
        # It does not wait for a lane of the other: its first ranges go beyond the width.
        for _ in range(4):
            assert at_link.acquire(timeout=10)
        assert len(late.starts) == 4
        for _ in range(16):
            turns.release()
        little.result(10)
        assert not large.done()
        for _ in range(40):
            turns.release()
        large.result(10)
