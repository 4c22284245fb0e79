"""The front door over real sockets, under asyncio and under uvloop: bodies, answers, clients that leave."""

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edge.clock import now_ms
from edge.errors import EdgeError, Reason
from edge.http.request import Request
from edge.http.respond import Response
from edge.limits import HttpLimits
from tests.support.doors import Address, Recorder, ask, both_loops, front_door, ok
from tests.support.rawhttp import Answer, Raw, chunked, get, post, talk
from tests.support.wait import wait_until

TEXT = "text/plain"


# -- bodies -----------------------------------------------------------------------------------


@both_loops
async def test_a_small_body_is_there_with_the_head_and_an_answer_may_be_given_at_once() -> None:
    def echo(request: Request) -> Response:
        body = request.body_now()
        assert body is not None
        return Response(200, [("X-Length", str(request.content_length))], body, TEXT)

    async with front_door(echo) as (door, address):
        answer = await ask(address, post(b"Content-Length: 3", body=b"abc"))
        assert (answer.status, answer.body, answer.headers["x-length"]) == (200, b"abc", "3")
        assert (await ask(address, chunked(b"3\r\nabc\r\n0\r\n\r\n"))).body == b"abc"
        assert (await ask(address, get(b"/a"))).body == b""
        assert door.statistics().requests == 3


@both_loops
async def test_a_request_carries_what_the_handler_needs() -> None:
    recorder = Recorder()
    before_ms = now_ms()
    async with front_door(recorder) as (_, address):
        await ask(address, get(b"/v2/models/%6d?verbose=1", b"Edge-Cold: far"))
    request = recorder.seen[0]
    assert (request.method, request.path, request.query) == ("GET", ("v2", "models", "m"), "verbose=1")
    assert (request.client, request.headers.get("Edge-Cold"), request.content_length) == (
        "127.0.0.1",
        "far",
        None,
    )
    assert before_ms <= request.received_ms <= now_ms()


@both_loops
async def test_a_large_body_is_streamed_and_a_slow_reader_pushes_back() -> None:
    size = 24 << 20
    go = asyncio.Event()
    held: list[int] = []

    async def count(request: Request) -> Response:
        assert request.body_now() is None
        await go.wait()
        got = 0
        async for piece in request.chunks():
            got += len(piece)
            held.append(request._stream.held_bytes if request._stream is not None else 0)
        return Response(200, [], str(got).encode(), TEXT)

    limits = HttpLimits(max_buffered_bytes=256 * 1024)
    async with front_door(count, limits) as (door, address):
        sent: list[int] = [0]

        def upload() -> Answer:
            with Raw(address) as raw:
                raw.send(post(b"Content-Length: %d" % size))
                for _ in range(size // 65536):
                    raw.send(b"x" * 65536)
                    sent[0] += 65536
                return raw.answer()

        answering = asyncio.get_running_loop().run_in_executor(None, upload)
        await wait_until(lambda: any(connection._in._paused for connection in door._connections))
        assert sent[0] < size
        go.set()
        assert (await answering).body == str(size).encode()
    assert max(held) <= limits.max_buffered_bytes + 256 * 1024  # the bound, and one read of the transport


@both_loops
async def test_whole_bodies_have_a_limit_of_their_own() -> None:
    async def small(request: Request) -> Response:
        return Response(200, [], await request.body(10), TEXT)

    async with front_door(small) as (_, address):
        assert (await ask(address, post(b"Content-Length: 10", body=b"x" * 10))).status == 200
        for payload in (
            post(b"Content-Length: 11", body=b"x" * 11),
            post(b"Content-Length: 11"),
            chunked(b"b\r\nxxxxxxxxxxx\r\n"),
        ):
            answer = await ask(address, payload)
            assert (answer.status, answer.headers["edge-drop-reason"]) == (413, "too-large")


@both_loops
async def test_100_continue_is_sent_when_the_handler_reads_and_never_before() -> None:
    asked = asyncio.Event()
    go = asyncio.Event()

    async def reader(request: Request) -> Response:
        if request.path == ("no",):
            raise EdgeError(Reason.UNKNOWN_MODEL, "no such model")
        asked.set()
        await go.wait()
        return Response(200, [], await request.body(10), TEXT)

    expecting = (b"Expect: 100-continue", b"Content-Length: 3")
    async with front_door(reader) as (_, address):
        raw = await asyncio.to_thread(Raw, address)
        with raw:
            raw.send(post(*expecting))
            await asked.wait()
            raw.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                raw.answer()
            raw.sock.settimeout(10)
            go.set()
            assert (await asyncio.to_thread(raw.answer)).status == 100
            raw.send(b"abc")
            assert (await asyncio.to_thread(raw.answer)).body == b"abc"
        refused = await ask(address, post(*expecting).replace(b"/echo", b"/no"))
        assert (refused.status, refused.headers["connection"]) == (404, "close")


@both_loops
async def test_an_answer_before_the_body_is_read_reaches_a_client_that_is_still_writing() -> None:
    async def hasty(request: Request) -> Response:
        raise EdgeError(Reason.UNKNOWN_MODEL, "no such model")

    def upload(address: Address) -> Answer:
        with Raw(address) as raw:
            raw.send(post(b"Content-Length: %d" % (4 << 20)))
            for _ in range(64):
                raw.send(b"x" * 65536)
            return raw.answer()

    async with front_door(hasty) as (_, address):
        for _ in range(5):
            answer = await asyncio.to_thread(upload, address)
            assert (answer.status, answer.headers["connection"]) == (404, "close")


@both_loops
async def test_one_byte_per_segment_costs_bytes_not_objects() -> None:
    recorder = Recorder()
    body = b"x" * 20_000

    def trickle(address: Address) -> Answer:
        with Raw(address) as raw:
            raw.send_each([bytes((byte,)) for byte in post(b"Content-Length: 20000", body=body)])
            return raw.answer()

    async with front_door(recorder) as (_, address):
        assert (await asyncio.to_thread(trickle, address)).status == 200
    assert recorder.bodies == [body]


# -- answers ----------------------------------------------------------------------------------


@both_loops
async def test_head_is_the_get_without_its_body() -> None:
    async with front_door(ok) as (_, address):

        def two() -> tuple[Answer, Answer]:
            with Raw(address) as raw:
                raw.send(get(b"/a").replace(b"GET", b"HEAD"))
                first = raw.answer(head_only=True)
                raw.send(get(b"/a"))
                return first, raw.answer()

        head, full = await asyncio.to_thread(two)
    assert head.headers == full.headers
    assert (head.headers["content-length"], full.body) == ("2", b"ok")


async def pieces(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield b"%06d" % number
        await asyncio.sleep(0)


@both_loops
async def test_streamed_answers_are_chunked_or_counted_and_end_an_http_1_0_connection() -> None:
    async def stream(request: Request) -> Response:
        length = 6000 if request.path == ("known",) else None
        return Response(200, [], pieces(1000), TEXT, length)

    whole = b"".join([b"%06d" % number for number in range(1000)])
    async with front_door(stream) as (_, address):
        unknown = await ask(address, get(b"/unknown"))
        assert (unknown.body, unknown.headers["transfer-encoding"]) == (whole, "chunked")
        known = await ask(address, get(b"/known"))
        assert (known.body, known.headers["content-length"]) == (whole, "6000")
        found = await asyncio.to_thread(
            talk, address, get(b"/unknown") + get(b"/unknown", b"Connection: close"), closes=True
        )
        assert [answer.body for answer in found.answers] == [whole, whole]
        old = await ask(address, b"GET /unknown HTTP/1.0\r\n\r\n")
        assert (old.body, old.headers["connection"]) == (whole, "close")
        assert (await ask(address, get(b"/unknown").replace(b"GET", b"HEAD"), head_only=True)).status == 200


@both_loops
@pytest.mark.parametrize("length", [None, 10, 100_000])
async def test_a_stream_that_breaks_is_a_reset_never_a_shorter_answer(
    length: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(count: int) -> AsyncIterator[bytes]:
        for number in range(count):
            yield b"%06d" % number
        if length is None:
            raise RuntimeError("worker gone")

    async def stream(request: Request) -> Response:
        return Response(200, [], broken(100), TEXT, length)

    async with front_door(stream) as (door, address):
        found = await asyncio.to_thread(talk, address, get(b"/a"), closes=True)
        assert (found.answers, found.ended) == ([], "reset")
        assert door.statistics().bad == {"answer-broken": 1}
    assert "an answer broke off" in caplog.text


@both_loops
async def test_a_large_answer_arrives_whole_and_keeps_the_connection() -> None:
    data = bytes(range(256)) * (8 << 12)  # 8 MiB

    async def large(request: Request) -> Response:
        return Response(200, [], memoryview(data) if request.path == ("view",) else data, "a/b")

    async with front_door(large) as (_, address):

        def three() -> list[bytes]:
            with Raw(address) as raw:
                raw.send(get(b"/a") + get(b"/view") + get(b"/a"))
                return [raw.answer().body for _ in range(3)]

        assert await asyncio.to_thread(three) == [data] * 3


@both_loops
async def test_answers_keep_the_order_of_pipelined_requests_whatever_each_takes() -> None:
    async def uneven(request: Request) -> Response:
        number = int(request.path[0])
        for _ in range((number * 7) % 5):
            await asyncio.sleep(0.002)
        return Response(200, [], b"%d" % number, TEXT)

    payload = b"".join(get(b"/%d" % number) for number in range(49)) + get(b"/49", b"Connection: close")
    async with front_door(uneven) as (_, address):
        found = await asyncio.to_thread(talk, address, payload, closes=True)
    assert [answer.body for answer in found.answers] == [b"%d" % number for number in range(50)]


FAILURES = [
    ("an EdgeError is its own answer", EdgeError(Reason.SATURATED, "full"), 429, "full", "saturated"),
    ("anything else is a 500 that tells nothing", RuntimeError("secret"), 500, "the request failed inside the node", "internal"),
]  # fmt: skip


@both_loops
@pytest.mark.parametrize("kind", ["call", "coroutine", "future"])
@pytest.mark.parametrize(
    ("sentence", "error", "status", "message", "reason"), FAILURES, ids=[row[0] for row in FAILURES]
)
async def test_a_handler_that_fails_is_answered(
    kind: str,
    sentence: str,
    error: Exception,
    status: int,
    message: str,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail_later(request: Request) -> Response:
        raise error

    def fail(request: Request) -> Any:
        if kind == "call":
            raise error
        if kind == "coroutine":
            return fail_later(request)
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, error)
        return future

    async with front_door(fail) as (_, address):
        answer = await ask(address, get(b"/a"))
        assert (answer.status, answer.json()) == (status, {"error": message}), sentence
        assert answer.headers["edge-drop-reason"] == reason
        assert ("retry-after" in answer.headers) == (status == 429)
        assert "connection" not in answer.headers
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(logged) == (status == 500)


@both_loops
async def test_a_header_that_can_not_be_sent_is_a_500_and_not_a_second_header(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def split(request: Request) -> Response:
        return Response(200, [("X-A", "b\r\nSet-Cookie: c=d")], b"", TEXT)

    async with front_door(split) as (_, address):
        answer = await ask(address, get(b"/a"))
    assert (answer.status, "set-cookie" in answer.headers) == (500, False)
    assert "control character" in caplog.text


# -- a client that leaves ---------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("kind", ["coroutine", "future", "stream", "body"])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_cancels_the_work(kind: str, how: str) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()
    pending: list[asyncio.Future[Response]] = []

    async def forever() -> None:
        started.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        await forever()

    async def work(request: Request) -> Response:
        if kind == "stream":
            return Response(200, [], endless(), TEXT)
        if kind == "body":
            started.set()
            try:
                await request.body(100)
            finally:
                cancelled.set()
        await forever()
        raise AssertionError

    def handler(request: Request) -> Any:
        if kind != "future":
            return work(request)
        pending.append(asyncio.get_running_loop().create_future())
        pending[0].add_done_callback(lambda done: cancelled.set() if done.cancelled() else None)
        started.set()
        return pending[0]

    async with front_door(handler) as (door, address):
        raw = await asyncio.to_thread(Raw, address)
        raw.send(post(b"Content-Length: 3", body=b"ab" if kind == "body" else b"abc"))
        await started.wait()
        if how == "reset":
            raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.sock.close()
        async with asyncio.timeout(2):
            await cancelled.wait()
        await wait_until(lambda: door.statistics().connections == 0)


@both_loops
async def test_a_request_cut_short_by_the_end_of_input_is_told_400() -> None:
    recorder = Recorder()
    async with front_door(recorder) as (_, address):
        for payload in (
            b"GET /a HTTP/1.1\r\nHos",
            post(b"Content-Length: 3", body=b"ab"),
            chunked(b"3\r\nab"),
        ):
            raw = await asyncio.to_thread(Raw, address)
            with raw:
                raw.send(payload)
                raw.sock.shutdown(socket.SHUT_WR)
                assert (await asyncio.to_thread(raw.answer)).status == 400
                assert await asyncio.to_thread(raw.ending) == "closed"
        assert recorder.bodies == []
