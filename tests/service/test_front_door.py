"""The front door over real sockets, under asyncio and under uvloop: bodies, answers, deadlines, caps, ends."""

import asyncio
import errno
import logging
import select
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge.clock import now_ms
from edge.errors import EdgeError, Reason
from edge.http.request import Request
from edge.http.respond import Response
from edge.limits import HttpLimits
from tests.support.doors import Address, Recorder, both_loops, front_door
from tests.support.rawhttp import Answer, Raw, chunked, get, post, talk
from tests.support.wait import wait_until

TEXT = "text/plain"


async def ask(address: Address, payload: bytes, *, head_only: bool = False) -> Answer:
    """Send and read one answer, then close."""

    def exchange() -> Answer:
        with Raw(address) as raw:
            raw.send(payload)
            return raw.answer(head_only=head_only)

    return await asyncio.to_thread(exchange)


async def ok(request: Request) -> Response:
    return Response(200, [], b"ok", TEXT)


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


# -- deadlines --------------------------------------------------------------------------------


FAST = HttpLimits(
    header_timeout_ms=300,
    body_window_ms=300,
    body_min_bytes_per_s=1024,
    idle_timeout_ms=300,
    write_timeout_ms=300,
    linger_ms=300,
    tls_handshake_timeout_ms=300,
)

TOO_SLOW = [
    ("69 no byte at all", b"", b""),
    ("70 a header byte now and then", b"GET /a HTTP/1.1\r\nHost: x\r\nX: ", b"y"),
    ("71 a body under its floor", post(b"Content-Length: 1000"), b"y"),
    ("27 a chunk that never ends", chunked(b"ff\r\n"), b"y"),
    ("a body that stops", post(b"Content-Length: 1000", body=b"x" * 500), b""),
    ("half an empty line", b"\r", b""),
]


@both_loops
@pytest.mark.parametrize(("sentence", "first", "drop"), TOO_SLOW, ids=[row[0] for row in TOO_SLOW])
async def test_a_slow_client_is_told_408(sentence: str, first: bytes, drop: bytes) -> None:
    recorder = Recorder()

    def dawdle(address: Address) -> tuple[Answer, float, str]:
        began_ms = now_ms()
        with Raw(address, 0.05) as raw:
            raw.send(first)
            while True:
                try:
                    answer = raw.answer()
                except TimeoutError:
                    raw.send(drop)
                else:
                    took_ms = now_ms() - began_ms
                    raw.sock.settimeout(5)
                    return answer, took_ms, raw.ending()

    async with front_door(recorder, FAST) as (door, address):
        answer, took_ms, ended = await asyncio.to_thread(dawdle, address)
        assert (answer.status, answer.headers["edge-drop-reason"], ended) == (
            408,
            "request-timeout",
            "closed",
        ), sentence
        assert 290 <= took_ms <= 2000
        assert recorder.bodies == []
        assert door.statistics().bad["request-timeout"] == 1


@both_loops
async def test_a_body_above_its_floor_may_take_longer_than_a_window() -> None:
    recorder = Recorder()

    def steady(address: Address) -> tuple[Answer, float]:
        began_ms = now_ms()
        with Raw(address) as raw:
            raw.send(post(b"Content-Length: 8000"))
            for _ in range(40):
                select.select([raw.sock], [], [], 0.02)  # the pace: nothing is to be read before the end
                raw.send(b"x" * 200)
            return raw.answer(), now_ms() - began_ms

    async with front_door(recorder, FAST) as (_, address):
        answer, took_ms = await asyncio.to_thread(steady, address)
        assert answer.status == 200
        assert took_ms > 2 * FAST.body_window_ms
    assert recorder.bodies == [b"x" * 8000]


@both_loops
async def test_an_idle_connection_is_closed_silently_and_a_slow_handler_is_not() -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(2 * FAST.idle_timeout_ms / 1000)
        return Response(200, [], b"ok", TEXT)

    def idle(address: Address) -> tuple[int, str]:
        with Raw(address) as raw:
            raw.send(get(b"/a"))
            return raw.answer().status, raw.ending()

    async with front_door(slow, FAST) as (door, address):
        assert await asyncio.to_thread(idle, address) == (200, "closed")
        assert door.statistics().bad == {}


@both_loops
async def test_a_client_that_takes_nothing_is_reset_and_costs_a_bounded_buffer() -> None:
    """Entry 72: 64 MiB for a reader that stopped."""
    yielded = 0

    async def flood() -> AsyncIterator[bytes]:
        nonlocal yielded
        for _ in range(1024):
            yielded += 65536
            yield b"x" * 65536

    async def handler(request: Request) -> Response:
        return Response(200, [], flood(), TEXT)

    async with front_door(handler, FAST) as (door, address):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.to_thread(sock.connect, address)
        with sock:
            sock.sendall(get(b"/a"))
            await wait_until(lambda: door.statistics().bad.get("write-timeout") == 1)
            await wait_until(lambda: door.statistics().connections == 0)
            assert yielded < 16 << 20  # what the kernel took, and one bounded buffer


# -- caps -------------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize(
    ("cap", "message"),
    [
        ({"max_connections": 3}, "too many connections"),
        ({"max_connections_per_client": 3}, "too many connections from this source"),
    ],
    ids=["in all", "from one source"],
)
async def test_connections_over_a_cap_are_told_503_and_places_come_free(
    cap: dict[str, int], message: str
) -> None:
    async with front_door(ok, HttpLimits(**cap)) as (door, address):
        sitting = [await asyncio.to_thread(Raw, address) for _ in range(3)]
        for raw in sitting:
            raw.send(get(b"/a"))
            assert (await asyncio.to_thread(raw.answer)).status == 200
        for _ in range(3):
            answer = await ask(address, get(b"/a"))
            assert (answer.status, answer.json()) == (503, {"error": message})
            assert (answer.headers["edge-drop-reason"], answer.headers["connection"]) == (
                "too-many-connections",
                "close",
            )
            assert 1 <= int(answer.headers["retry-after"]) <= 3
        assert door.statistics().refused == 3
        assert door.statistics().requests == 3
        sitting.pop().sock.close()
        await wait_until(lambda: door.statistics().connections <= 2)
        assert (await ask(address, get(b"/a"))).status == 200
        for raw in sitting:
            raw.sock.close()


class Exhausted(socket.socket):
    """A listener whose process is out of file descriptors for its first `failures` accepts."""

    failures = 3
    tried = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.tried += 1
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return super().accept()


@both_loops
async def test_running_out_of_descriptors_backs_off_and_recovers() -> None:
    listener = Exhausted()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    async with front_door(ok, listener=listener) as (door, address):
        assert (await ask(address, get(b"/a"))).status == 200
        assert door.statistics().bad == {"out-of-descriptors": 3}
        assert listener.tried < 10


# -- TLS --------------------------------------------------------------------------------------


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server named pop.test and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pop.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pop.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "pem"
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + pem
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=pem.decode())


@both_loops
async def test_tls_answers_and_an_early_413_too(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = tls

    def exchange(address: Address, payload: bytes) -> Answer:
        with Raw(address) as raw:
            raw.sock = client.wrap_socket(raw.sock, server_hostname="pop.test")
            raw.send(payload)
            return raw.answer()

    async with front_door(ok, HttpLimits(max_body_bytes=1000), ssl=server) as (_, address):
        assert (await asyncio.to_thread(exchange, address, get(b"/a"))).body == b"ok"
        over = post(b"Content-Length: 100000", body=b"x" * 100_000)
        assert (await asyncio.to_thread(exchange, address, over)).status == 413


@both_loops
async def test_silent_tls_connections_are_counted_at_accept_and_end_with_their_handshake(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    limits = HttpLimits(max_connections=20, tls_handshake_timeout_ms=1000)
    async with front_door(ok, limits, ssl=tls[0]) as (door, address):
        silent = [await asyncio.to_thread(Raw, address) for _ in range(20)]
        await wait_until(lambda: door.statistics().accepted == 20)
        for _ in range(5):
            with suppress(ConnectionError), await asyncio.to_thread(Raw, address) as over:
                assert await asyncio.to_thread(over.ending) == "reset"
        await wait_until(lambda: door.statistics().refused == 5)
        await wait_until(lambda: door.statistics().bad.get("tls-handshake") == 20)
        for raw in silent:
            assert await asyncio.to_thread(raw.ending) in {"closed", "reset"}
            raw.sock.close()
        assert door._seats == 0
        assert door.statistics().bad == {"tls-handshake": 20, "too-many-connections": 5}


# -- the end ----------------------------------------------------------------------------------


@both_loops
async def test_close_lets_answers_finish_ends_idle_connections_and_kills_the_rest() -> None:
    started: list[str] = []
    go = asyncio.Event()

    async def slow(request: Request) -> Response:
        started.append(request.path[0])
        if request.path == ("stuck",):
            await asyncio.get_running_loop().create_future()
        if request.path == ("slow",):
            await go.wait()
        return Response(200, [], b"ok", TEXT)

    async with front_door(slow) as (door, address):
        idle, busy, stuck = [await asyncio.to_thread(Raw, address) for _ in range(3)]
        for raw, path in ((idle, b"/idle"), (busy, b"/slow"), (stuck, b"/stuck")):
            raw.send(get(path))
        await wait_until(lambda: len(started) == 3)
        assert (await asyncio.to_thread(idle.answer)).status == 200
        async with asyncio.TaskGroup() as tasks:
            closing = tasks.create_task(door.close(1.0))
            assert await asyncio.to_thread(idle.ending) == "closed"
            go.set()
            answer = await asyncio.to_thread(busy.answer)
            assert (answer.body, answer.headers["connection"]) == (b"ok", "close")
            busy.sock.close()
            assert await asyncio.to_thread(stuck.ending) == "reset"
            await closing
        assert door.statistics().connections == 0
        for raw in (idle, stuck):
            raw.sock.close()


@both_loops
async def test_another_acceptor_may_use_the_doors_protocol() -> None:
    async with front_door(ok, HttpLimits(max_connections=1)) as (door, _):
        server = await asyncio.get_running_loop().create_server(door.protocol_factory, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()
            first = await asyncio.to_thread(Raw, address)
            with first:
                first.send(get(b"/a"))
                assert (await asyncio.to_thread(first.answer)).status == 200
                assert (await ask(address, get(b"/a"))).status == 503
        await wait_until(lambda: door._seats == 0)
