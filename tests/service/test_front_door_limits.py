"""The front door's deadlines, caps, TLS and end, over real sockets, under asyncio and under uvloop."""

import asyncio
import errno
import select
import socket
import ssl
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
from edge.errors import EdgeError
from edge.http.request import Request
from edge.http.respond import Response
from edge.limits import HttpLimits
from tests.support.doors import Address, Recorder, ask, both_loops, front_door, ok
from tests.support.rawhttp import Answer, Raw, chunked, get, post
from tests.support.wait import wait_until

TEXT = "text/plain"


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
@pytest.mark.parametrize("lame_duck_s", [0.0, 0.5])
async def test_a_connection_that_was_accepted_as_the_door_closed_is_answered(
    monkeypatch: pytest.MonkeyPatch, lame_duck_s: float
) -> None:
    async with front_door(ok) as (door, address):
        take_seat, closing = door.take_seat, []

        def take_and_close(seat: str) -> EdgeError | None:
            closing.append(asyncio.get_running_loop().create_task(door.close(1.0, lame_duck_s=lame_duck_s)))
            return take_seat(seat)

        monkeypatch.setattr(door, "take_seat", take_and_close)
        answer = await ask(address, get(b"/a"))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await asyncio.gather(*closing)
        assert door.statistics().connections == 0


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
