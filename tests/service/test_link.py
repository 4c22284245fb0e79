"""Links over a real UNIX socket: order, bounds, cancellation, loss, large bodies."""

import asyncio
import contextlib
import math

import msgspec
import pytest

from edge.errors import EdgeError, Reason
from edge.policy.facts import OnDevice, Pulse
from edge.wire import calls, meshcalls
from edge.wire.dial import Dialer
from edge.wire.frame import SHARED_BODY_BYTES, Kind, encode
from edge.wire.link import Link
from tests.support.wait import wait_until

INFER = calls.Infer(model="m", version="1", digest="d")


@contextlib.asynccontextmanager
async def answering(path, on_call, **options):
    """A server whose links call `on_call`, and one client link to it."""
    loop = asyncio.get_running_loop()
    accepted = []
    server = await loop.create_unix_server(
        lambda: Link(on_call=on_call, on_open=accepted.append, exclusive=True, **options), str(path)
    )
    _, client = await loop.create_unix_connection(lambda: Link(**options), str(path))
    try:
        yield client, accepted
    finally:
        client.close()
        server.close()
        for link in accepted:
            link.close()
        await server.wait_closed()


def echo(incoming):
    incoming.reply(calls.Inferred(), incoming.body)


async def test_answers_find_their_own_call(tmp_path):
    async with answering(tmp_path / "s", echo) as (client, _):
        replies = await asyncio.gather(
            *(client.request(INFER, b"%d" % number, timeout_s=5) for number in range(500))
        )
    assert [reply.body for reply in replies] == [b"%d" % number for number in range(500)]
    assert client.in_flight == 0


@pytest.mark.parametrize("body", [b"", bytes(SHARED_BODY_BYTES + 1)])
async def test_an_answer_that_fits_no_frame_fails_its_call_alone(tmp_path, body):
    def answer(incoming):
        name = "n" * 70_000 if incoming.body == b"large" else ""
        incoming.reply(calls.Inferred(served_by=name), body)

    async with answering(tmp_path / "s", answer) as (client, _):
        with pytest.raises(EdgeError, match="Inferred can't be sent: head of") as caught:
            await client.request(INFER, b"large", timeout_s=5)
        assert caught.value.reason is Reason.INTERNAL
        reply = await client.request(INFER, timeout_s=5)
        assert await reply.whole() == body
        assert not client.closed


async def test_an_error_is_raised_where_it_was_asked(tmp_path):
    def refuse(incoming):
        incoming.fail(EdgeError(Reason.NO_MEMORY, "full", retryable=True))

    async with answering(tmp_path / "s", refuse) as (client, _):
        with pytest.raises(EdgeError, match="full") as caught:
            await client.request(INFER, timeout_s=5)
    assert (caught.value.reason, caught.value.retryable) == (Reason.NO_MEMORY, True)


async def test_a_lost_link_fails_what_is_in_it_and_refuses_the_next(tmp_path):
    async with answering(tmp_path / "s", lambda incoming: None) as (client, accepted):
        waiting = asyncio.gather(
            *(client.request(INFER, timeout_s=5) for _ in range(3)), return_exceptions=True
        )
        await wait_until(lambda: accepted and len(accepted[0]._incoming) == 3)
        accepted[0].transport.abort()
        errors = await waiting
        assert {(error.reason, error.retryable) for error in errors} == {(Reason.LINK_LOST, False)}
        with pytest.raises(EdgeError) as caught:
            await client.request(INFER, timeout_s=5)
    assert caught.value.retryable, "nothing was sent: the caller may try again"


async def test_no_answer_within_the_deadline(tmp_path):
    cancelled = asyncio.Event()

    def never(incoming):
        incoming.on_cancel = cancelled.set

    async with answering(tmp_path / "s", never) as (client, _):
        with pytest.raises(EdgeError) as caught:
            await client.request(INFER, timeout_s=0.05)
        assert caught.value.reason is Reason.DEADLINE
        await asyncio.wait_for(cancelled.wait(), 2)


async def test_a_caller_that_leaves_cancels_over_there_and_the_link_lives(tmp_path):
    cancelled = asyncio.Event()

    def first_never(incoming):
        if incoming.body == b"never":
            incoming.on_cancel = cancelled.set
        else:
            echo(incoming)

    async with answering(tmp_path / "s", first_never) as (client, _):
        task = asyncio.get_running_loop().create_task(client.request(INFER, b"never", timeout_s=5))
        await client.request(INFER, b"x", timeout_s=5)
        task.cancel()
        await asyncio.wait_for(cancelled.wait(), 2)
        assert (await client.request(INFER, b"y", timeout_s=5)).body == b"y"


async def test_a_large_answer_comes_whole(tmp_path):
    body = bytes(range(256)) * (5 * SHARED_BODY_BYTES // 256) + b"tail"
    async with answering(tmp_path / "s", lambda incoming: incoming.reply(calls.Inferred(), body)) as (
        client,
        _,
    ):
        reply = await client.request(INFER, timeout_s=5)
        assert await reply.whole() == body


async def test_a_streamed_body_comes_whole_and_only_as_fast_as_it_is_taken(tmp_path):
    taken = 0

    async def produce():
        nonlocal taken
        for number in range(200):
            taken = number
            yield bytes([number]) * SHARED_BODY_BYTES

    read_on = asyncio.Event()
    tasks = []

    def slow(incoming):
        async def run():
            await read_on.wait()
            body = await incoming.rest.whole()
            incoming.reply(calls.Inferred(), body[::SHARED_BODY_BYTES])

        tasks.append(asyncio.get_running_loop().create_task(run()))

    async with answering(tmp_path / "s", slow) as (client, accepted):
        asked = asyncio.get_running_loop().create_task(client.stream(INFER, produce(), timeout_s=20))
        seen = -1
        while seen != taken or not taken:
            seen = taken
            await asyncio.sleep(0.1)
        held = next(iter(accepted[0]._incoming.values())).rest.buffered_bytes
        assert taken < 60, "the producer ran on although nobody read"
        assert held < 4 * 1024 * 1024
        read_on.set()
        reply = await asked
    assert reply.body == bytes(range(200))


async def test_a_refusal_ends_a_stream_early(tmp_path):
    sent = 0

    async def produce():
        nonlocal sent
        for _ in range(10_000):
            sent += 1
            yield bytes(SHARED_BODY_BYTES)

    def refuse(incoming):
        incoming.fail(EdgeError(Reason.SATURATED, "busy"))

    async with answering(tmp_path / "s", refuse) as (client, _):
        with pytest.raises(EdgeError, match="busy"):
            await client.stream(INFER, produce(), timeout_s=20)
    assert sent < 1000


async def stalling():
    yield bytes(SHARED_BODY_BYTES)
    await asyncio.Event().wait()


async def test_a_body_that_stalls_hides_neither_a_refusal_nor_the_deadline(tmp_path):
    def refuse(incoming):
        incoming.fail(EdgeError(Reason.SATURATED, "busy"))

    async with answering(tmp_path / "s", refuse) as (client, _):
        with pytest.raises(EdgeError, match="busy"):
            await asyncio.wait_for(client.stream(INFER, stalling(), timeout_s=20), 2)
    async with answering(tmp_path / "t", lambda incoming: None) as (client, _):
        with pytest.raises(EdgeError) as caught:
            await asyncio.wait_for(client.stream(INFER, stalling(), timeout_s=0.1), 2)
    assert caught.value.reason is Reason.DEADLINE


async def test_a_refused_body_that_held_the_reading_lets_the_close_be_seen(tmp_path):
    async def produce():
        for _ in range(40):
            yield bytes(SHARED_BODY_BYTES)

    calls_seen = []
    async with answering(tmp_path / "s", calls_seen.append) as (client, accepted):
        asked = asyncio.get_running_loop().create_task(client.stream(INFER, produce(), timeout_s=20))
        await wait_until(lambda: accepted and accepted[0].reading_paused)
        calls_seen[0].fail(EdgeError(Reason.SATURATED, "busy"))
        with pytest.raises(EdgeError, match="busy"):
            await asyncio.wait_for(asked, 2)
        client.abort()
        await wait_until(lambda: accepted[0].closed)


@pytest.mark.parametrize("kind", [Kind.REPLY, Kind.REPLY_MORE])
async def test_an_unreadable_answer_fails_its_call_alone(tmp_path, kind):
    held = []

    def gibberish(incoming):
        if incoming.body == b"hold":
            held.append(incoming)
        else:
            incoming.link._send(encode(kind, incoming.id, b"\xc1"))

    async with answering(tmp_path / "s", gibberish) as (client, _):
        other = client.submit(INFER, b"hold", timeout_s=20)[1]
        with pytest.raises(EdgeError) as caught:
            await asyncio.wait_for(client.request(INFER, timeout_s=20), 2)
        assert caught.value.reason is Reason.PROTOCOL
        held[0].reply(calls.Inferred(), b"fine")
        assert (await asyncio.wait_for(other, 2)).body == b"fine"


async def test_a_failure_brings_the_pulse_and_an_impossible_one_is_dropped(tmp_path):
    good = Pulse(boot=1, seq=2, worker=3, in_flight=4, queued_ms=5.0, model=OnDevice(service_ms=6.0))
    bad = Pulse(boot=1, seq=2, queued_ms=math.nan)

    def refuse(incoming):
        incoming.fail(EdgeError(Reason.BUSY, "full\r\n\x1b[31m"), good if incoming.body == b"good" else bad)

    async with answering(tmp_path / "s", refuse) as (client, _):
        for body, pulse in ((b"good", good), (b"bad", None)):
            with pytest.raises(calls.UpstreamError) as caught:
                await client.request(INFER, body, timeout_s=5)
            assert (caught.value.reason, caught.value.pulse) == (Reason.BUSY, pulse)
            assert caught.value.message == "full[31m"


@pytest.mark.parametrize(
    ("sentence", "raw"),
    [
        ("no msgpack", b"\xc1"),
        ("a retry that is text", msgspec.msgpack.encode({"reason": "busy", "retry_after_s": "never"})),
        ("nothing", b""),
    ],
)
async def test_poisoned_failures_end_their_call_and_nothing_else(tmp_path, sentence, raw):
    def poison(incoming):
        if incoming.body == b"poison":
            incoming.link._send(encode(Kind.ERROR, incoming.id, raw))
        else:
            echo(incoming)

    async with answering(tmp_path / "s", poison) as (client, _):
        with pytest.raises(EdgeError):
            await asyncio.wait_for(client.request(INFER, b"poison", timeout_s=20), 2)
        assert (await client.request(INFER, b"fine", timeout_s=5)).body == b"fine"


async def test_an_event_that_nobody_knows_is_counted_and_the_link_lives(tmp_path):
    events = []
    async with answering(tmp_path / "s", echo, on_event=lambda *told: events.append(told)) as (
        client,
        accepted,
    ):
        await client.request(INFER, timeout_s=5)
        accepted[0]._send(encode(Kind.EVENT, 0, msgspec.msgpack.encode({"op": "newer-than-we"})))
        accepted[0].event(meshcalls.Resync(), b"body")
        await wait_until(lambda: events)
        assert events == [(meshcalls.Resync(), b"body")]
        assert client.unknown_events == 1
        assert (await client.request(INFER, b"x", timeout_s=5)).body == b"x"


async def test_a_body_over_the_cap_fails_alone(tmp_path):
    async def produce():
        for _ in range(8):
            yield bytes(SHARED_BODY_BYTES)

    failures = []

    def collect(incoming):
        async def run():
            try:
                await incoming.whole()
            except EdgeError as error:
                failures.append(error.reason)
                incoming.fail(error)

        incoming.link.task = asyncio.get_running_loop().create_task(run())

    async with answering(tmp_path / "s", collect, max_body_bytes=4 * SHARED_BODY_BYTES) as (client, _):
        with pytest.raises(EdgeError) as caught:
            await client.stream(INFER, produce(), timeout_s=5)
    assert caught.value.reason is Reason.TOO_LARGE
    assert failures == [Reason.TOO_LARGE]


async def test_a_reply_that_nobody_reads_on_is_cancelled_and_its_own_link_closed(tmp_path):
    loop = asyncio.get_running_loop()
    cancelled = asyncio.Event()

    def endless(incoming):
        incoming.link._send(encode(Kind.REPLY_MORE, incoming.id, calls.encode_head(calls.Inferred())))
        incoming.link._send(encode(Kind.DATA, incoming.id, body=b"first"))
        incoming.on_cancel = cancelled.set

    server = await loop.create_unix_server(lambda: Link(on_call=endless), str(tmp_path / "s"))
    _, client = await loop.create_unix_connection(lambda: Link(exclusive=True), str(tmp_path / "s"))
    reply = await client.request(INFER, timeout_s=5)
    chunks = aiter(reply.rest)
    assert await anext(chunks) == b"first"
    await chunks.aclose()
    await asyncio.wait_for(cancelled.wait(), 2)
    assert client.closed
    server.close()


async def test_what_is_no_frame_closes_the_link(tmp_path):
    async with answering(tmp_path / "s", echo):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()


async def test_too_many_calls_on_one_link_are_refused_not_queued(tmp_path):
    async with answering(tmp_path / "s", lambda incoming: None, max_calls=2) as (client, _):
        waiting = [client.submit(INFER, timeout_s=5)[1] for _ in range(3)]
        with pytest.raises(EdgeError) as caught:
            await waiting[2]
        assert caught.value.reason is Reason.SATURATED
        for future in waiting[:2]:
            future.cancel()


async def test_a_dialer_comes_back_when_the_other_end_does(tmp_path):
    path = tmp_path / "s"
    greeted, lost = [], []

    async def greet(link):
        reply = await link.request(calls.Status(), timeout_s=2)
        greeted.append(reply.head)

    dialer = Dialer("other", unix_path=str(path), greet=greet, on_lost=lambda: lost.append(1))
    with pytest.raises(EdgeError, match="not connected") as caught:
        dialer.shared()
    assert caught.value.retryable

    loop = asyncio.get_running_loop()
    running = loop.create_task(dialer.run())
    for round_number in (1, 2):
        links = []
        server = await loop.create_unix_server(
            lambda links=links: Link(on_call=lambda call: call.reply(calls.Done()), on_open=links.append),
            str(path),
        )
        await wait_until(lambda want=round_number: len(greeted) == want)
        assert dialer.shared().closed is False
        server.close()
        for link in links:
            link.close()
        await server.wait_closed()
        path.unlink(missing_ok=True)
        await wait_until(lambda want=round_number: len(lost) == want)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
