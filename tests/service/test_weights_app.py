"""The weights process as the parent starts it: calls in frames, a real origin, real deaths."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.config import Weights
from edge.errors import EdgeError, Reason
from edge.weights.app import EXIT_UNFIT
from edge.weights.parts import WeightsBoot
from edge.wire import calls, states
from edge.wire.link import Link
from tests.support.blobs import Bucket, Served, blob_file, content_digest
from tests.support.wait import wait_until
from tests.support.weights import PROGRAM, Running

CHUNK = 1 << 16
MIB = 1 << 20
Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path, origin: Served) -> AsyncIterator[Start]:
    """Starts weights processes on one store and one listening socket, as a parent does."""
    path = str(tmp_path / "w.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    running: list[Running] = []

    async def begin(**settings: Any) -> Running:
        weights = Weights(
            **{"store": str(tmp_path / "store"), "origin": origin.url, "catalogue_poll_ms": 50, **settings}
        )
        ours, theirs = socket.socketpair()
        boot = WeightsBoot("n", weights, listener.fileno(), theirs.fileno())
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            msgspec.json.encode(boot).decode(),
            pass_fds=(listener.fileno(), theirs.fileno()),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        theirs.close()
        beats: list[Any] = []
        loop = asyncio.get_running_loop()
        _, parent = await loop.create_connection(
            lambda: Link(on_event=lambda head, _: beats.append(head)), sock=ours
        )
        one = Running(process, parent, path, tmp_path / "store")
        one.beats = beats
        running.append(one)
        await wait_until(lambda: process.returncode is not None or any(b.ready for b in beats), within_s=15)
        return one

    try:
        yield begin
    finally:
        for one in running:
            for link in (*one.links, one.parent):
                link.close()
            with contextlib.suppress(ProcessLookupError):
                await one.stop()
        listener.close()


async def test_a_model_comes_once_is_held_and_is_then_host(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    node = await start()
    first = await node.ensure(model)
    total = model.manifest.size_bytes
    assert (first.residency, first.moved_bytes) == ("origin", total)
    assert first.hydrate_ms > 0
    for file in model.manifest.files:
        assert content_digest(node.store / "blobs" / file.blake3) == file.blake3
    again = await node.ensure(model)
    assert (again.residency, again.moved_bytes) == ("host", 0)
    state = await node.state()
    assert [(one.model, one.total_bytes, one.disk_bytes, one.holds) for one in state.models] == [
        ("m", total, total, 2)
    ]
    assert (state.host_used_bytes, state.fetched_bytes, state.fetches) == (total, total, 2)
    await node.release(model)
    await node.release(model)
    assert (await node.state()).host_used_bytes == 0
    await node.release(model)
    assert (await node.ensure(model)).residency == "disk"


async def test_a_small_model_does_not_wait_for_the_many_blobs_of_another(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    contents = {name: os.urandom(4 * CHUNK) for name in ("graph", "a", "b", "c", "d", "e")}
    parts = tuple(
        blob_file(name, content, chunk_bytes=CHUNK, role="graph" if name == "graph" else "weights")
        for name, content in contents.items()
    )
    for part, content in zip(parts, contents.values(), strict=True):
        (bucket.root / "blobs" / part.blake3).write_bytes(content)
    large = bucket.publish_manifest("large", parts)
    small = bucket.publish("small", size_bytes=CHUNK, chunk_bytes=CHUNK)
    node = await start(min_bytes_per_s=100)
    for part in parts:
        origin.fail("drip", path_prefix=f"blobs/{part.blake3}", drip_bps=2_000)
    async with asyncio.TaskGroup() as group:
        group.create_task(_lost(node.ensure(large)))
        await wait_until(lambda: len(list((node.store / "ingest").iterdir())) >= 4)
        assert (await node.ensure(small)).residency == "origin"
        await node.kill()


async def test_50_callers_are_one_fetch(bucket: Bucket, origin: Served, start: Start) -> None:
    model = bucket.publish(size_bytes=4 * MIB, chunk_bytes=CHUNK)
    node = await start()
    links = [await node.connect() for _ in range(10)]
    await node.call(calls.GetManifest(model.digest))
    before = origin.sent_bytes
    answers = await asyncio.gather(*(node.ensure(model, links[n % 10]) for n in range(50)))
    # Who was heard after it had come found it here.
    assert "origin" in {answer.residency for answer in answers} <= {"origin", "disk", "host"}
    total = model.manifest.size_bytes
    assert sum(answer.moved_bytes for answer in answers) == total
    # catalog.json is not there, so polls for it send small 404 bodies that are not counted as objects.
    assert origin.sent_bytes - before == total
    assert (await node.state()).models[0].holds == 50


async def test_holds_end_with_their_link(bucket: Bucket, start: Start) -> None:
    model = bucket.publish()
    node = await start()
    link = await node.connect()
    other = await node.connect()
    await node.ensure(model, other)
    await node.ensure(model, other)
    other.close()

    async def unheld() -> bool:
        state = states.weights_state(*await node.call(calls.Status(), link))
        return state.models[0].holds == 0 and state.host_used_bytes == 0

    await wait_until(unheld)


async def test_a_corrupt_blob_is_refused_set_aside_and_not_asked_for_again_at_once(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    model = bucket.publish(size_bytes=4 * CHUNK, chunk_bytes=CHUNK)
    healthy = bucket.publish("healthy")
    bucket.spoil(model.weights, at=CHUNK + 1)
    node = await start()
    error = await node.refused(model)
    assert (error.reason, error.status, error.retry_after_s) == (Reason.BLOB_CORRUPT, 503, 30)
    assert "chunk 1" in error.message
    assert model.weights.blake3 not in node.blobs()
    assert [path.name for path in (node.store / "quarantine").iterdir()] == [f"{model.weights.blake3}.1"]
    state = await node.state()
    assert (state.quarantined, state.host_used_bytes, state.models[0].holds) == (1, 0, 0)
    origin.fail("5xx")
    remembered = await node.refused(model)
    assert remembered.reason is Reason.BLOB_CORRUPT
    assert remembered.retry_after_s is not None
    assert 25 <= remembered.retry_after_s <= 30
    origin.behave()
    assert (await node.ensure(healthy)).residency == "origin"


async def test_a_manifest_that_is_not_what_its_digest_says_is_refused(bucket: Bucket, start: Start) -> None:
    model = bucket.publish()
    path = bucket.root / "manifests" / f"{model.digest}.json"
    path.write_bytes(model.raw.replace(b'"m"', b'"n"'))
    node = await start()
    error = await node.refused(model)
    assert error.reason is Reason.BLOB_CORRUPT
    path.write_bytes(b"x" * (4 * MIB + 1))
    other = bucket.publish("other")
    (bucket.root / "manifests" / f"{other.digest}.json").write_bytes(b"x" * (4 * MIB + 1))
    assert (await node.refused(other)).reason is Reason.ORIGIN_DOWN
    assert list((node.store / "manifests").iterdir()) == []


@pytest.mark.parametrize("digest", ["", "../node", "A" * 64, "f" * 63, "f" * 64 + "\n"])
async def test_what_is_no_digest_is_refused_by_name(start: Start, digest: str) -> None:
    node = await start()
    for head in (calls.Ensure(digest), calls.GetManifest(digest), calls.Release(digest)):
        with pytest.raises(EdgeError) as caught:
            await node.call(head)
        assert caught.value.reason is Reason.PROTOCOL


async def test_without_an_origin_what_is_on_disk_serves_and_the_rest_is_503(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    here, away = bucket.publish("here"), bucket.publish("away")
    raw = bucket.catalogue(3, [here, away])
    node = await start()
    await node.ensure(here)
    await wait_until(lambda: (node.store / "catalog.json").exists())
    assert await node.stop() == 0
    origin.fail("5xx")
    node = await start()
    assert (await node.ensure(here)).residency == "disk"
    state, body = await node.call(calls.Catalogue())
    assert (state.epoch, state.origin_up, body) == (3, False, raw)
    error = await node.refused(away)
    assert (error.reason, error.status, error.retryable) == (Reason.ORIGIN_DOWN, 503, True)
    assert error.retry_after_s
    origin.behave()
    assert (await node.ensure(away)).residency == "origin"


async def test_the_catalogue_goes_forward_only(bucket: Bucket, origin: Served, start: Start) -> None:
    one, two = bucket.publish("one"), bucket.publish("two")
    node = await start()
    state, body = await node.call(calls.Catalogue())
    assert (state.digest, state.epoch, body) == ("", 0, b"")

    async def epoch_is(epoch: int) -> bool:
        state, _ = await node.call(calls.Catalogue())
        return bool(state.epoch == epoch and state.origin_up)

    await wait_until(lambda: epoch_is(0))
    fifth = bucket.catalogue(5, [one])
    await wait_until(lambda: epoch_is(5))
    state, body = await node.call(calls.Catalogue())
    assert body == fifth
    assert await node.call(calls.Catalogue(newer_than=state.digest)) == (state, b"")
    for sentence, write in (
        ("a lower epoch", lambda: bucket.catalogue(4, [one])),
        ("the same epoch with other content", lambda: bucket.catalogue(5, [two])),
        ("no catalogue", lambda: (bucket.root / "catalog.json").write_bytes(b"<html>")),
    ):
        write()
        before = origin.requests
        await wait_until(lambda before=before: origin.requests >= before + 3)
        assert (await node.call(calls.Catalogue()))[1] == fifth, sentence
    sixth = bucket.catalogue(6, [two])
    await wait_until(lambda: epoch_is(6))
    await wait_until(lambda: (node.store / "catalog.json").read_bytes() == sixth)


async def test_the_disk_budget_evicts_what_nobody_holds_and_refuses_at_once_otherwise(
    bucket: Bucket, start: Start
) -> None:
    models = [bucket.publish(f"m{n}", size_bytes=300_000, graph=b"g%d" % n) for n in range(4)]
    node = await start(disk_bytes="1000000B")
    peak = 0

    async def check() -> None:
        nonlocal peak
        used = (await node.state()).disk_used_bytes
        assert used == node.on_disk()
        peak = max(peak, used)

    for model in models[:3]:
        await node.ensure(model)
        await check()
    error = await node.refused(models[3])
    assert (error.reason, error.retryable) == (Reason.NO_SPACE, True)
    assert "1000000" in error.message
    await node.release(models[0])
    await node.release(models[1])
    await node.ensure(models[0])
    await node.release(models[0])
    await node.ensure(models[3])
    await check()
    # m1 was least recently held; m2 is held.
    present = {model.manifest.name for model in models if model.weights.blake3 in node.blobs()}
    assert present == {"m0", "m2", "m3"}
    assert peak <= 1_000_000
    too_large = bucket.publish("huge", size_bytes=1_000_001)
    error = await node.refused(too_large)
    assert (error.reason, error.retryable) == (Reason.NO_SPACE, False)


async def test_the_host_budget_refuses_with_numbers(bucket: Bucket, start: Start) -> None:
    small, large = bucket.publish("small", size_bytes=300_000), bucket.publish("large", size_bytes=800_000)
    node = await start(host_bytes="1000000B")
    await node.ensure(small)
    error = await node.refused(large)
    assert (error.reason, error.status) == (Reason.NO_MEMORY, 503)
    for number in ("1000000", str(large.manifest.size_bytes), str(small.manifest.size_bytes)):
        assert number in error.message
    await node.release(small)
    assert (await node.ensure(large)).residency == "origin"


async def test_a_caller_that_gives_up_does_not_end_the_fetch_of_others(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    node = await start(fetch_parallel=2)
    impatient, gone, patient = [await node.connect() for _ in range(3)]
    await node.call(calls.GetManifest(model.digest))
    origin.fail("drip", path_prefix="blobs/", drip_bps=500_000)
    async with asyncio.TaskGroup() as group:
        waits = group.create_task(node.ensure(model, patient))
        leaves = group.create_task(_lost(node.ensure(model, gone)))
        with pytest.raises(EdgeError) as caught:
            await node.ensure(model, impatient, deadline_ms=100)
        assert (caught.value.reason, caught.value.status) == (Reason.DEADLINE, 504)
        gone.close()
        await leaves
    assert waits.result().residency == "origin"
    assert (await node.state()).models[0].holds == 1
    assert (await node.state()).fetched_bytes == model.manifest.size_bytes


async def _lost(work: Any) -> None:
    with pytest.raises(EdgeError, match="lost"):
        await work


async def test_kill_9_in_mid_fetch_then_only_the_rest_comes(
    bucket: Bucket, origin: Served, start: Start
) -> None:
    model = bucket.publish(size_bytes=16 * CHUNK, chunk_bytes=CHUNK)
    held = bucket.publish("held", size_bytes=CHUNK)
    node = await start(fetch_parallel=2)
    await node.ensure(held)
    origin.fail("drip", path_prefix=f"blobs/{model.weights.blake3}", drip_bps=600_000)
    journal = node.store / "ingest" / model.weights.blake3 / "journal"

    def claimed() -> int:
        return sum(byte.bit_count() for byte in journal.read_bytes()[24:]) if journal.exists() else 0

    async with asyncio.TaskGroup() as group:
        leaves = group.create_task(_lost(node.ensure(model)))
        await wait_until(lambda: claimed() >= 5)
        await node.kill()
        await leaves
    origin.behave()
    good = claimed()
    assert 5 <= good < 16
    # What the disk lost meanwhile is noticed, as the stop was not clean.
    damaged = node.store / "blobs" / held.weights.blake3
    damaged.chmod(0o644)
    damaged.write_bytes(b"x" * CHUNK)
    node = await start()
    assert (await node.state()).disk_used_bytes == node.on_disk()
    # The graph blob is shared by both models and came with the first.
    answer = await node.ensure(model)
    assert (answer.residency, answer.moved_bytes) == ("origin", (16 - good) * CHUNK)
    answer = await node.ensure(held)
    assert (answer.residency, answer.moved_bytes) == ("origin", CHUNK)
    assert content_digest(damaged) == held.weights.blake3
    assert (await node.state()).quarantined == 1
    assert (await node.state()).disk_used_bytes == node.on_disk()


async def test_a_drip_is_given_up(bucket: Bucket, origin: Served, start: Start) -> None:
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    node = await start()
    await node.call(calls.GetManifest(model.digest))
    origin.fail("drip", path_prefix="blobs/", drip_bps=2_000)
    async with asyncio.timeout(6):
        error = await node.refused(model)
    assert error.reason is Reason.ORIGIN_DOWN
    assert "too slowly" in error.message


@pytest.mark.parametrize("how", ["term", "parent"])
async def test_it_stops_cleanly_and_soon_also_in_mid_fetch(
    bucket: Bucket, origin: Served, start: Start, how: str
) -> None:
    model = bucket.publish(size_bytes=MIB, chunk_bytes=CHUNK)
    node = await start()
    origin.fail("drip", path_prefix="blobs/", drip_bps=100_000)
    async with asyncio.TaskGroup() as group:
        leaves = group.create_task(_lost(node.ensure(model)))
        await wait_until(lambda: (node.store / "ingest" / model.weights.blake3).exists())
        async with asyncio.timeout(3):
            if how == "term":
                node.process.send_signal(signal.SIGTERM)
            else:
                # An orphan serves on until its callers have left.
                node.parent.close()
                assert (await node.state()).fetches >= 1
                for link in node.links:
                    link.close()
            assert await node.process.wait() == 0
        await leaves
    assert b'"clean": true' in (node.store / "node.json").read_bytes()


async def test_a_store_that_cannot_be_used_ends_the_process_with_the_status_for_it(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    node = await start(store=str(tmp_path / "file" / "store"))
    assert node.process.returncode == EXIT_UNFIT
    assert not any(beat.ready for beat in node.beats)


async def test_a_call_that_is_not_ours_is_refused_and_the_link_lives(start: Start) -> None:
    node = await start()
    with pytest.raises(EdgeError, match="does not answer Load"):
        await node.call(calls.Load("0" * 64))
    assert (await node.state()).disk_used_bytes == node.on_disk()


async def test_the_loop_turns_while_blobs_are_fetched_and_hashed(bucket: Bucket, start: Start) -> None:
    model = bucket.publish(size_bytes=64 * MIB, chunk_bytes=8 * MIB)
    node = await start()
    link = await node.connect()
    turns = 0
    async with asyncio.TaskGroup() as group:
        work = group.create_task(node.ensure(model))
        while not work.done():
            await node.call(calls.Catalogue(), link)
            turns += 1
    assert work.result().moved_bytes == model.manifest.size_bytes
    # A loop that received or hashed inline would answer once or twice; the threads leave it free.
    assert turns > 20
