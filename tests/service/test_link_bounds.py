"""What bounds an answer that streams: time while its reader waits, bytes, and nothing while it does not."""

import asyncio

import pytest

from edge import clock
from edge.errors import EdgeError, Reason
from edge.wire import calls, sockopt
from edge.wire.frame import SHARED_BODY_BYTES
from tests.support.links import Streamer, answerer, forever, one_then_stall, slices
from tests.support.wait import wait_until

INFER = calls.Infer(model="m", version="1", digest="d")
MIB = 1024 * 1024


async def until_ms(at_ms):
    await wait_until(lambda: clock.now_ms() >= at_ms)


@pytest.fixture(params=["unix", "tcp"])
def where(request, tmp_path):
    return str(tmp_path / "s") if request.param == "unix" else 0


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "s")


async def test_an_answer_that_began_outlives_its_deadline_while_it_is_read_slowly(where):
    streamer = Streamer(slices(40))
    async with answerer(where, streamer.on_call) as there:
        link = await there.dial(exclusive=True, idle_s=0.15)
        reply = await link.request(INFER, timeout_s=0.4)
        await wait_until(lambda: link.reading_paused)
        got = 0
        async for chunk in reply.rest:
            got += len(chunk)
            if got in (SHARED_BODY_BYTES, 20 * SHARED_BODY_BYTES):
                await until_ms(clock.now_ms() + 500.0)
        assert got == 40 * SHARED_BODY_BYTES
        link.close()


async def test_an_answer_that_stalls_fails_after_the_idle_bound(path):
    streamer = Streamer(one_then_stall)
    async with answerer(path, streamer.on_call) as there:
        link = await there.dial(idle_s=0.2)
        reply = await link.request(INFER, timeout_s=20)
        with pytest.raises(EdgeError, match="stalled") as caught:
            await asyncio.wait_for(reply.whole(), 3)
        assert caught.value.reason is Reason.DEADLINE
        await asyncio.wait_for(streamer.tasks[0], 2)
        link.close()


async def test_an_answer_that_nobody_begins_to_read_keeps_its_deadline(path):
    streamer = Streamer(forever)
    async with answerer(path, streamer.on_call) as there:
        link = await there.dial(exclusive=True)
        await link.request(INFER, timeout_s=0.2)
        await wait_until(lambda: link.in_flight == 0)
        await asyncio.wait_for(streamer.tasks[0], 2)
        assert not link.reading_paused, "else a close would not be seen"
        link.close()


async def test_an_answer_over_the_cap_fails_and_is_stopped(path):
    streamer = Streamer(forever)
    async with answerer(path, streamer.on_call) as there:
        link = await there.dial(max_body_bytes=MIB)
        reply = await link.request(INFER, timeout_s=20)
        with pytest.raises(EdgeError) as caught:
            await reply.whole()
        assert caught.value.reason is Reason.TOO_LARGE
        await asyncio.wait_for(streamer.tasks[0], 2)
        link.close()


async def test_slow_readers_of_one_shared_link_share_its_memory(path):
    streamer = Streamer(slices(4))
    async with answerer(path, streamer.on_call) as there:
        link = await there.dial(max_body_bytes=MIB)
        replies = [await link.request(INFER, timeout_s=20) for _ in range(8)]
        await wait_until(lambda: all(task.done() for task in streamer.tasks))
        await wait_until(lambda: link.in_flight == 0)
        assert sum(reply.rest.buffered_bytes for reply in replies) <= 6 * MIB
        results = await asyncio.gather(*(reply.whole() for reply in replies), return_exceptions=True)
        failed = [result for result in results if isinstance(result, EdgeError)]
        assert {error.reason for error in failed} == {Reason.SATURATED}
        assert {len(result) for result in results if isinstance(result, bytes)} == {MIB}
        assert 0 < len(failed) < 8
        again = await link.request(INFER, timeout_s=20)
        assert len(await again.whole()) == MIB, "memory that was taken is free again"
        link.close()


async def test_a_reader_may_pause_for_longer_than_the_kernels_timeout(monkeypatch):
    monkeypatch.setattr(sockopt, "USER_TIMEOUT_MS", 400)
    streamer = Streamer(slices(80))
    async with answerer(0, streamer.on_call) as there:
        link = await there.dial(exclusive=True)
        reply = await link.request(INFER, timeout_s=20)
        chunks = aiter(reply.rest)
        got = len(await anext(chunks))
        await until_ms(clock.now_ms() + 2_000.0)
        async for chunk in chunks:
            got += len(chunk)
        assert got == 80 * SHARED_BODY_BYTES
        link.close()
