"""A worker process over its socket: answers, batches, isolates, ends what nobody waits for."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from edge import clock
from edge.config import Worker
from edge.errors import EdgeError, Reason
from edge.wire import calls
from edge.wire.frame import Decoder, Kind
from tests.support import tiny
from tests.support.wait import wait_until
from tests.support.worker import Answer, Client, Process, connected, infer_head, oip_body

MIB = 1 << 20
#: About this many turns of the spinner take a millisecond; tests only need "some" and "many".
TURNS_MS = 1_000


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Process]:
    """One worker for all tests that leave it in order."""
    process = Process(tmp_path_factory.mktemp("worker"), Worker(device_bytes="64MiB"))
    yield process
    process.close()


@pytest.fixture
def own(tmp_path) -> Iterator[Process]:
    """A worker for a test that ends it."""
    process = Process(tmp_path, Worker(device_bytes="256MiB"))
    yield process
    process.close()


@pytest.fixture
async def client(shared) -> AsyncIterator[Client]:
    async with connected(shared) as made:
        yield made


async def failure(awaitable) -> EdgeError:
    with pytest.raises(EdgeError) as caught:
        await awaitable
    return caught.value


def row(seed: int) -> list[float]:
    return [seed + n / 4 for n in range(16)]


async def test_a_model_answers_over_frames(shared, client):
    model = tiny.identity(shared.folder)
    loaded = await client.load(model)
    assert loaded.provider == "CPUExecutionProvider"
    assert loaded.device_bytes >= model.size_bytes
    assert (await client.load(model)).load_ms == loaded.load_ms, "a second load finds the first"
    head, outputs = await client.infer(model, row(1), row(2))
    assert outputs == {"y": row(1) + row(2)}
    assert (head.items, head.batch, head.lead, head.residency) == (2, 1, True, "device")
    assert head.served_by == "iad-b/0"
    assert 0 < head.infer_ms < 5_000
    assert 0 <= head.queue_ms < 5_000
    state = await client.state()
    (entry,) = [one for one in state.models if one.model == "identity"]
    assert (entry.version, entry.device_bytes) == ("1", loaded.device_bytes)
    assert (state.device, state.device_bytes) == ("cpu", 64 * MIB)
    assert state.executions >= 1


async def test_binary_tensors_gzip_and_the_plain_shape(shared, client):
    model = tiny.identity(shared.folder)
    await client.load(model)
    x = np.array(row(3), np.float32)
    document = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 16], "parameters": {"binary_data_size": 64}}
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    raw = json.dumps(document).encode()
    reply = await client.link.request(
        infer_head(model, oip_json_bytes=len(raw)), raw + x.tobytes(), timeout_s=10
    )
    assert isinstance(reply.head, calls.Inferred)
    assert reply.head.content_type == "application/octet-stream"
    assert reply.body[reply.head.oip_json_bytes :] == x.tobytes()

    body = gzip.compress(oip_body(model, [row(n) for n in range(64)]))
    coded = infer_head(model, content_encoding="gzip", accept_encoding="gzip")
    answer = Answer.of(await client.link.request(coded, body, timeout_s=10))
    assert answer.head.content_encoding == "gzip"
    assert len(answer.outputs["y"]) == 64 * 16

    plain = infer_head(model, protocol="run", content_type="application/json")
    reply = await client.link.request(plain, json.dumps({"input": row(4)}).encode(), timeout_s=10)
    assert json.loads(reply.body)["outputs"] == {"y": row(4)}


WRONG = [
    ("no JSON", {}, b"{", Reason.BAD_INPUT),
    (
        "another input",
        {},
        b'{"inputs":[{"name":"z","datatype":"FP32","shape":[1],"data":[1]}]}',
        Reason.BAD_INPUT,
    ),
    ("no gzip", {"content_encoding": "gzip"}, b"plain", Reason.BAD_INPUT),
    ("a coding of its own", {"content_encoding": "br"}, b"x", Reason.BAD_MEDIA_TYPE),
    ("a bomb", {"content_encoding": "gzip"}, gzip.compress(bytes(8 * MIB)), Reason.TOO_LARGE),
    ("an unknown protocol", {"protocol": "soap"}, b"{}", Reason.BAD_INPUT),
]


@pytest.mark.parametrize(("sentence", "head", "body", "reason"), WRONG, ids=[case[0] for case in WRONG])
async def test_a_wrong_body_is_the_clients_fault(shared, client, sentence, head, body, reason):
    model = tiny.identity(shared.folder)
    await client.load(model)
    error = await failure(client.link.request(infer_head(model, **head), body, timeout_s=10))
    assert error.reason is reason
    assert error.status in (400, 413, 415)
    assert not error.retryable
    assert (await client.infer(model, row(0))).outputs == {"y": row(0)}


async def test_what_is_not_loaded_may_be_loaded_and_asked_again(client, tmp_path):
    error = await failure(client.infer(tiny.describe("ghost", *_shapes(tmp_path)), row(0)))
    assert error.reason is Reason.NO_ENDPOINT
    assert error.retryable
    assert error.message == "ghost is not loaded"


def _shapes(folder):
    made = tiny.identity(folder)
    return made.files, made.inputs, made.outputs


async def test_a_manifest_of_another_digest_does_not_load(shared, client):
    raw = b"{}"
    error = await failure(client.link.request(calls.Load("0" * 64), raw, timeout_s=10))
    assert error.reason is Reason.BLOB_CORRUPT


async def test_many_at_once_share_executions_and_each_gets_its_own_answer(shared, client):
    model = tiny.identity(shared.folder)
    await client.load(model)
    before = (await client.state()).executions
    answers: list[Answer] = []
    for turn in range(12):
        asks = (client.infer(model, row(100 * turn + n)) for n in range(32))
        for n, answer in enumerate(await asyncio.gather(*asks)):
            assert answer.outputs == {"y": row(100 * turn + n)}
            answers.append(answer)
    executions = (await client.state()).executions - before
    assert executions == sum(answer.head.lead for answer in answers), "one of each execution leads"
    assert executions < len(answers) / 2
    assert max(answer.head.batch for answer in answers) > 4


async def test_only_the_guilty_request_of_a_batch_fails(shared, client):
    model, slow = tiny.picker(shared.folder), tiny.spinner(shared.folder)
    await client.load(model)
    await client.load(slow)
    for _ in range(8):  # until it is known that batching pays
        await asyncio.gather(*(client.infer(model, 1) for _ in range(16)))
    indexes = [0, 1, 2, 99, 4, 5, -77, 7]
    got = await asyncio.gather(*(client.infer(model, index) for index in indexes), return_exceptions=True)
    for index, answer in zip(indexes, got, strict=True):
        if 0 <= index < 10:
            assert isinstance(answer, Answer), answer
            assert answer.outputs == {"y": [10 * index]}
        else:
            assert isinstance(answer, EdgeError), answer
            assert answer.reason is Reason.BAD_INPUT


async def test_a_run_past_its_deadline_is_ended_and_the_worker_goes_on(shared, client):
    model = tiny.spinner(shared.folder)
    await client.load(model)
    begun_ms = clock.now_ms()
    error = await failure(client.infer(model, tiny.ENDLESS, deadline_ms=150))
    assert error.reason is Reason.DEADLINE
    assert clock.now_ms() - begun_ms < 2_000
    assert (await client.infer(model, 5)).outputs == {"y": [5]}


async def test_a_caller_that_leaves_ends_its_run(shared, client):
    model = tiny.spinner(shared.folder)
    await client.load(model)
    exchange_id, _ = client.link.submit(infer_head(model), oip_body(model, [tiny.ENDLESS]), timeout_s=30)
    waiting = asyncio.gather(client.infer(model, 6))
    client.link.cancel(exchange_id)
    begun_ms = clock.now_ms()
    assert (await waiting)[0].outputs == {"y": [6]}
    assert clock.now_ms() - begun_ms < 5_000, (
        "the run that nobody waited for would have held the device for 30 s"
    )


async def test_work_that_is_late_never_starts(shared, client):
    model = tiny.spinner(shared.folder)
    await client.unload(model)  # what nothing is known of runs alone
    await client.load(model)
    before = (await client.state()).executions
    endless = oip_body(model, [tiny.ENDLESS])
    _, busy = client.link.submit(infer_head(model, deadline_ms=400), endless, timeout_s=30)
    late = await failure(client.infer(model, 7, deadline_ms=100))
    assert late.reason is Reason.DEADLINE
    assert late.message == "the deadline of 100 ms passed before the model could run"
    assert (await failure(busy)).reason is Reason.DEADLINE
    assert (await client.state()).executions == before + 1


async def test_a_run_that_becomes_long_moves_off_the_event_loop(shared, client):
    model = tiny.spinner(shared.folder)
    await client.unload(model)
    await client.load(model)
    for _ in range(10):  # until it is known to be cheap
        await client.infer(model, 1)
    _, busy = client.link.submit(
        infer_head(model, deadline_ms=1_000), oip_body(model, [tiny.ENDLESS]), timeout_s=30
    )
    for _ in range(20):
        await client.state()
    assert not busy.done(), "the loop answers while the run goes on"
    assert (await failure(busy)).reason is Reason.DEADLINE


async def test_a_cheap_model_does_not_wait_behind_a_busy_one(shared, client):
    cheap, slow = tiny.identity(shared.folder), tiny.spinner(shared.folder)
    await client.load(cheap)
    await client.load(slow)
    for _ in range(10):
        await client.infer(cheap, row(0))
    endless = oip_body(slow, [tiny.ENDLESS])
    _, busy = client.link.submit(infer_head(slow, deadline_ms=1_000), endless, timeout_s=30)
    for _ in range(20):
        await client.infer(cheap, row(1))
    assert not busy.done()
    assert (await failure(busy)).reason is Reason.DEADLINE


async def test_large_bodies_stream_in_and_large_answers_stream_out(shared):
    model = tiny.heavy(shared.folder, side=1024)
    async with connected(shared) as client, connected(shared, exclusive=True) as wide:
        await client.load(model)
        body = oip_body(model, np.full((16, 1024), 123.456789).tolist())
        body += b" " * (MIB - len(body))

        async def chunks() -> AsyncIterator[bytes]:
            for at in range(0, len(body), 100_000):
                yield body[at : at + 100_000]

        reply = await wide.link.stream(infer_head(model), chunks(), timeout_s=20)
        outputs = json.loads(await reply.whole())["outputs"]
        assert outputs[0]["shape"] == [16, 1024]
        w = np.frombuffer((shared.folder / model.file("weights").blake3).read_bytes(), np.float32)
        expected = np.full((1, 1024), 123.456789, np.float32) @ w.reshape(1024, 1024)
        np.testing.assert_allclose(np.array(outputs[0]["data"])[:1024], expected[0], rtol=1e-3, atol=1e-1)
        await client.unload(model)


async def test_a_full_device_says_so_in_numbers_and_has_room_again_after_unload(shared, client):
    first, second = tiny.heavy(shared.folder), tiny.heavy(shared.folder, side=3584)
    await client.load(first)
    used = (await client.state()).used_bytes
    error = await failure(client.load(second))
    assert error.reason is Reason.NO_MEMORY
    assert "needs 49.0 MiB of cpu, of whose 64.0 MiB" in error.message
    assert (await client.state()).used_bytes == used, "a refused load reserves nothing"
    await client.unload(first)
    assert (await client.state()).used_bytes <= used - first.size_bytes
    assert (await failure(client.infer(first, [0.0] * 2048))).reason is Reason.NO_ENDPOINT
    assert isinstance(await client.unload(first), calls.Done), "unloading what is not there is no error"


async def test_a_load_that_fails_reserves_nothing(shared, client):
    model = tiny.heavy(shared.folder, side=600)
    (shared.folder / model.file("weights").blake3).unlink()
    used = (await client.state()).used_bytes
    assert (await failure(client.load(model))).reason is Reason.BLOB_CORRUPT
    assert (await client.state()).used_bytes == used


async def test_a_call_that_is_not_for_workers_is_refused_alone(client):
    error = await failure(client.link.request(calls.Ensure("0" * 64), timeout_s=5))
    assert error.reason is Reason.PROTOCOL
    assert await client.state()


async def test_the_parent_hears_a_heartbeat(own):
    own.parent.setblocking(False)
    decoder, beats = Decoder(), 0
    loop = asyncio.get_running_loop()
    while beats < 3:
        frames = decoder.feed(await asyncio.wait_for(loop.sock_recv(own.parent, 4096), 10))
        assert all(frame.kind is Kind.EVENT for frame in frames)
        beats += sum(isinstance(calls.decode_head(frame.head), calls.Heartbeat) for frame in frames)


async def test_without_its_parent_a_worker_answers_what_runs_and_exits(own):
    model = tiny.spinner(own.folder)
    async with connected(own) as client:
        await client.load(model)
        before = (await client.state()).executions
        # Longer than the walk to the socket below, shorter than the time a worker has to finish.
        running = asyncio.gather(client.infer(model, 300 * TURNS_MS))

        async def taken():
            state = await client.state()
            return state.queued == 0 and state.executions == before

        await wait_until(taken)
        own.parent.shutdown(socket.SHUT_RDWR)
        assert (await running)[0].outputs == {"y": [300 * TURNS_MS]}
        await wait_until(lambda: own.popen.poll() is not None, within_s=5)
    assert own.popen.returncode == 0, own.log.read_text()


async def test_a_run_that_nothing_can_end_ends_the_process(own):
    model = tiny.deaf(own.folder)
    side = 6_000  # 430 billion multiplications in one kernel: seconds
    async with connected(own) as client:
        await client.load(model)
        body = json.dumps(
            {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [side]}]}
        ).encode()
        error = await failure(client.link.request(infer_head(model, deadline_ms=1_000), body, timeout_s=20))
        assert error.reason is Reason.LINK_LOST
    await wait_until(lambda: own.popen.poll() is not None, within_s=5)
    assert own.popen.returncode == 70
    assert "did not end 250 ms after it was told to" in own.log.read_text()


async def test_a_worker_without_its_device_says_what_to_do(tmp_path):
    process = Process(tmp_path, Worker(device="cuda:15"))
    await wait_until(lambda: process.popen.poll() is not None, within_s=20)
    process.close()
    assert process.popen.returncode == 1
    assert "the worker can't begin: cuda:15:" in process.log.read_text()
