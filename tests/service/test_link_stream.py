"""Streamed answers over real sockets: as fast as they are taken, in turns, and never a short success."""

import asyncio

import pytest

from edge import clock
from edge.background import Background
from edge.errors import EdgeError, Reason
from edge.wire import calls
from edge.wire.frame import SHARED_BODY_BYTES, Decoder, Kind, encode
from tests.support.links import Streamer, answerer, forever, one_then_stall, slices
from tests.support.wait import wait_until

INFER = calls.Infer(model="m", version="1", digest="d")
MIB = 1024 * 1024
SLICE = bytes(SHARED_BODY_BYTES)


async def wait_until_at_rest(value):
    """Until `value()` has been the same for 200 ms."""
    last, since_ms = value(), clock.now_ms()

    def rests():
        nonlocal last, since_ms
        if value() != last:
            last, since_ms = value(), clock.now_ms()
        return clock.now_ms() - since_ms >= 200.0

    await wait_until(rests)


@pytest.fixture(params=["unix", "tcp"])
def where(request, tmp_path):
    return str(tmp_path / "s") if request.param == "unix" else 0


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "s")


async def test_a_slow_reader_slows_the_sender_and_gets_all(where):
    streamer = Streamer(slices(80))
    async with answerer(where, streamer.on_call) as there:
        link = await there.dial(exclusive=True)
        reply = await link.request(INFER, timeout_s=20)
        chunks = aiter(reply.rest)
        got = [await anext(chunks)]
        await wait_until_at_rest(lambda: streamer.taken)
        assert streamer.taken < 16 * MIB, "the producer ran on although nobody read"
        assert there.links[0].transport.get_write_buffer_size() <= SHARED_BODY_BYTES + 64 * 1024
        assert reply.rest.buffered_bytes <= MIB
        most = 0
        async for chunk in chunks:
            got.append(chunk)
            most = max(most, there.links[0].transport.get_write_buffer_size())
        assert most <= SHARED_BODY_BYTES + 64 * 1024
        assert b"".join(got) == b"".join([chunk async for chunk in slices(80)(None)])
        await streamer.tasks[0]
        assert there.links[0].answering == 0
        link.close()


async def test_small_exchanges_pass_a_large_streamed_answer_on_a_shared_link(where):
    streamer = Streamer(forever)
    async with answerer(where, streamer.on_call) as there:
        link = await there.dial(max_body_bytes=1 << 40)
        reply = await link.request(INFER, timeout_s=20)

        async def read():
            async for _ in reply.rest:
                pass

        background = Background()
        background.spawn(read())
        for _ in range(50):
            answer = await asyncio.wait_for(link.request(INFER, b"echo", timeout_s=20), 2)
            assert answer.body == b"echo"
        assert not streamer.tasks[0].done()
        await background.close()
        await wait_until(lambda: streamer.tasks[0].done())
        assert not link.closed, "a shared link outlives an answer that nobody reads on"
        link.close()


async def test_answers_that_share_a_link_take_turns(path):
    streamer = Streamer(slices(30))
    async with answerer(path, streamer.on_call):
        reader, writer = await asyncio.open_unix_connection(path)
        for number in (1, 2):
            writer.write(encode(Kind.CALL, number, calls.encode_head(INFER)))
        decoder, order = Decoder(), []
        while len(order) < 40:
            data = await asyncio.wait_for(reader.read(65536), 5)
            order += [frame.id for frame in decoder.feed(data) if frame.kind is Kind.DATA]
        writer.close()
    assert 15 <= order[:40].count(1) <= 25, order


async def test_many_answers_that_share_a_link_hold_one_slice_at_the_sender(path):
    streamer = Streamer(slices(8))
    async with answerer(path, streamer.on_call) as there:
        reader, writer = await asyncio.open_unix_connection(path)
        for number in range(1, 17):
            writer.write(encode(Kind.CALL, number, calls.encode_head(INFER)))
        decoder, ended, most = Decoder(), 0, 0
        while ended < 16:
            data = await asyncio.wait_for(reader.read(65536), 5)
            ended += sum(frame.kind is Kind.END for frame in decoder.feed(data))
            most = max(most, there.links[0].transport.get_write_buffer_size())
        writer.close()
    assert most <= SHARED_BODY_BYTES + 64 * 1024


async def test_a_reader_that_leaves_stops_the_stream_and_its_source(path):
    streamer = Streamer(forever)
    async with answerer(path, streamer.on_call) as there:
        link = await there.dial(max_body_bytes=1 << 40)
        reply = await link.request(INFER, timeout_s=20)
        chunks = aiter(reply.rest)
        await anext(chunks)
        await chunks.aclose()
        await asyncio.wait_for(streamer.tasks[0], 2)
        assert streamer.incoming[0].cancelled
        assert streamer.closed == 1
        assert (await link.request(INFER, b"echo", timeout_s=5)).body == b"echo"
        link.close()


async def test_a_reader_that_leaves_reaches_a_source_that_waits(path):
    streamer = Streamer(one_then_stall)
    async with answerer(path, streamer.on_call) as there:
        link = await there.dial()
        reply = await link.request(INFER, timeout_s=20)
        chunks = aiter(reply.rest)
        assert await anext(chunks) == b"first"
        await chunks.aclose()
        await asyncio.wait_for(streamer.tasks[0], 2)
        assert streamer.closed == 1
        link.close()


async def test_a_lost_link_stops_the_stream_and_its_source(where):
    streamer = Streamer(forever)
    async with answerer(where, streamer.on_call) as there:
        link = await there.dial(exclusive=True)
        reply = await link.request(INFER, timeout_s=20)
        await anext(aiter(reply.rest))
        link.abort()
        await asyncio.wait_for(streamer.tasks[0], 2)
        assert streamer.closed == 1
        assert streamer.incoming[0].cancelled


def breaks_with(error):
    async def chunks(incoming):
        yield b"first"
        raise error

    return chunks


@pytest.mark.parametrize(
    ("sentence", "error", "reason"),
    [
        ("a failure of the source arrives as it was", EdgeError(Reason.INFER_FAILED, "no"), "infer-failed"),
        ("a bug in the source arrives as internal", ValueError("bug"), "internal"),
    ],
)
async def test_a_source_that_breaks_breaks_the_body(path, sentence, error, reason, caplog):
    streamer = Streamer(breaks_with(error))
    async with answerer(path, streamer.on_call) as there:
        link = await there.dial()
        reply = await link.request(INFER, timeout_s=20)
        chunks = aiter(reply.rest)
        assert await anext(chunks) == b"first"
        with pytest.raises(EdgeError) as caught:
            await anext(chunks)
        assert caught.value.reason == reason
        with pytest.raises(type(error)):
            await streamer.tasks[0]
        assert there.links[0].answering == 0
        link.close()


async def test_a_handler_that_is_stopped_breaks_the_body(path):
    streamer = Streamer(one_then_stall)
    async with answerer(path, streamer.on_call) as there:
        link = await there.dial()
        reply = await link.request(INFER, timeout_s=20)
        chunks = aiter(reply.rest)
        await anext(chunks)
        streamer.tasks[0].cancel()
        with pytest.raises(EdgeError, match="broke off") as caught:
            await anext(chunks)
        assert caught.value.reason is Reason.LINK_LOST
        link.close()


async def test_one_link_can_be_streamed_into_another(tmp_path):
    """What a node does that passes on the answer of its worker."""
    worker = Streamer(slices(30))
    async with answerer(str(tmp_path / "w"), worker.on_call) as behind:
        inner = await behind.dial()

        async def passed_on(incoming):
            reply = await inner.request(INFER, timeout_s=20)
            async for chunk in reply.rest:
                yield chunk

        node = Streamer(passed_on)
        async with answerer(0, node.on_call) as there:
            link = await there.dial()
            reply = await link.request(INFER, timeout_s=20)
            assert len(await reply.whole()) == 30 * SHARED_BODY_BYTES
            abandoned = await link.request(INFER, timeout_s=20)
            abandoned.rest.abandon()
            await wait_until(lambda: worker.closed == 2 and node.closed == 2)
            link.close()
        inner.close()


async def test_an_answer_for_somebody_who_has_left_is_stopped_where_it_comes_from(tmp_path):
    worker = Streamer(forever)
    asked, background = [], Background()

    def on_call(incoming):
        asked.append(incoming)

    async with answerer(str(tmp_path / "w"), worker.on_call) as behind, answerer(0, on_call) as there:
        inner, link = await behind.dial(exclusive=True), await there.dial()
        reply = await inner.request(INFER, timeout_s=20)
        leaving = background.spawn(link.request(INFER, timeout_s=20))
        await wait_until(lambda: asked)
        leaving.cancel()
        await wait_until(lambda: asked[0].cancelled)
        await asked[0].stream(calls.Inferred(), reply.rest)
        await wait_until(lambda: worker.closed)
        assert inner.in_flight == 0
        inner.close()
        link.close()


async def test_an_early_answer_ends_the_body_of_its_call(path):
    """The caller stops sending then; who still reads the call's body must not wait for the rest."""
    ended = []

    def on_call(incoming):
        async def read():
            try:
                await incoming.whole()
            except EdgeError as error:
                ended.append(error.reason)

        background.spawn(read())
        background.spawn(incoming.stream(calls.Inferred(), slices(3)(incoming)))

    async def stalling():
        yield SLICE
        await asyncio.Event().wait()

    background = Background()
    async with answerer(path, on_call) as there:
        link = await there.dial(exclusive=True)
        reply = await asyncio.wait_for(link.stream(INFER, stalling(), timeout_s=20), 2)
        assert len(await reply.whole()) == 3 * SHARED_BODY_BYTES
        await wait_until(lambda: ended)
        link.close()
    await background.close()


async def test_a_head_that_no_frame_takes_fails_its_call(path):
    def on_call(incoming):
        background.spawn(incoming.stream(calls.Inferred(served_by="x" * 70_000), slices(1)(incoming)))

    background = Background()
    async with answerer(path, on_call) as there:
        link = await there.dial()
        with pytest.raises(EdgeError) as caught:
            await asyncio.wait_for(link.request(INFER, timeout_s=20), 2)
        assert caught.value.reason is Reason.INTERNAL
        link.close()
    await background.close()
