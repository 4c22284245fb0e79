"""Ranges straight from a socket: an answer that is not exactly what was asked for is none."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from edge.weights.origin import Origin, OriginError
from edge.weights.rawhttp import MAX_HEAD_BYTES, RawHttp, serves
from tests.support.wait import wait_until

BODY = bytes(range(100))
SPAN = "bytes 0-99/500"


def head(status: str = "206 x", span: str = SPAN, length: str = "100", more: str = "") -> bytes:
    fields = f"Content-Range: {span}\r\nContent-Length: {length}\r\n{more}"
    return f"HTTP/1.1 {status}\r\n{fields}\r\n".encode("latin-1")


class Scripted:
    """A server that gives one answer after another, whatever is asked; `asked` are the heads."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.connections = 0
        self.url = ""
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
                answer = self.answers.pop(0) if self.answers else b""
                writer.write(answer.removesuffix(b"END"))
                await writer.drain()
                if answer.endswith(b"END"):
                    break
        writer.close()


@contextlib.asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[Scripted]:
    script = Scripted(list(answers))
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/base/"
    async with server:
        yield script
        for writer in script.writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def source(url: str, *, read_timeout_ms: int = 2_000) -> Origin:
    return Origin(url, request_timeout_ms=5_000, stop=threading.Event(), read_timeout_ms=read_timeout_ms)


async def get(origin: Origin) -> bytes:
    def whole() -> bytes:
        return b"".join(bytes(part) for part in origin.range("blobs/x", 0, 100, object_bytes=500))

    return await asyncio.to_thread(whole)


async def test_a_range_as_asked_and_the_connection_is_kept() -> None:
    async with scripted(head() + BODY, head() + BODY) as script:
        origin = source(script.url)
        assert [await get(origin), await get(origin)] == [BODY, BODY]
        assert script.connections == 1
        host = script.url.split("/")[2]
        assert script.asked[0].startswith("GET /base/blobs/x HTTP/1.1\r\n")
        assert f"\r\nHost: {host}\r\n" in script.asked[0]
        assert "\r\nRange: bytes=0-99\r\n" in script.asked[0]


async def test_a_server_that_closes_is_asked_anew() -> None:
    async with scripted(
        head() + BODY + b"END", head(more="Connection: close\r\n") + BODY, head() + BODY
    ) as script:
        origin = source(script.url)
        assert [await get(origin) for _ in range(3)] == [BODY] * 3
        assert script.connections == 3


@pytest.mark.parametrize(
    ("sentence", "answer", "text"),
    [
        ("the whole object", head("200 OK", length="500") + BODY * 5, "the whole object"),
        ("no such object", head("404 x", length="0"), "is not in the origin"),
        ("no right to it", head("403 x", length="0"), "credentials"),
        ("a failure", head("503 x", length="0"), "503"),
        ("another range", head(span="bytes 1-100/500") + BODY, "not bytes 0-99"),
        ("another size", head(span="bytes 0-99/501") + BODY, "has 501 bytes"),
        ("an unknown size", head(span="bytes 0-99/*") + BODY, "Content-Range"),
        ("a length that is another", head(length="99") + BODY, "promises 99"),
        ("a length that is none", head(length="0x64") + BODY, "promises 0x64"),
        ("two lengths", head(more="Content-Length: 99\r\n") + BODY, "two values"),
        ("another framing", head(more="Transfer-Encoding: chunked\r\n") + BODY, "promises"),
        ("a field that is none", head(more="nonsense\r\n") + BODY, "no field"),
        ("a blank before the colon", head(more="X : y\r\n") + BODY, "no field"),
        ("not HTTP", b"SSH-2.0-x\r\n\r\n", "not HTTP"),
        ("a head without end", head(more=f"X: {'y' * 3 * MAX_HEAD_BYTES}\r\n") + BODY, "exceeds"),
        ("less than promised", head() + BODY[:60] + b"END", "40 bytes early"),
        ("more than promised", head() + BODY + b"x", "longer than it promises"),
        ("no answer", b"END", "ended before an answer"),
    ],
)
async def test_what_is_not_exactly_as_asked_is_refused(sentence: str, answer: bytes, text: str) -> None:
    async with scripted(answer) as script:
        with pytest.raises(OriginError, match=text):
            await get(source(script.url))
        assert len(script.asked) == 1, sentence


@pytest.mark.parametrize(("sentence", "answer"), [("at all", b""), ("after the head", head() + BODY[:60])])
async def test_one_that_falls_silent_is_left(sentence: str, answer: bytes) -> None:
    async with scripted(answer) as script, asyncio.timeout(10):
        with pytest.raises(OriginError, match=r"nothing came|in time"):
            await get(source(script.url, read_timeout_ms=200))


async def test_an_object_that_changes_is_noticed_once_then_digests_decide() -> None:
    first, second = 'ETag: "1"\r\n', 'ETag: "2"\r\n'
    answers = [head(more=first) + BODY, head("200 OK", more=second) + b"END", head(more=second) + BODY]
    async with scripted(*answers, head(more=second) + BODY) as script:
        origin = source(script.url)
        assert await get(origin) == BODY
        with pytest.raises(OriginError, match="changed"):
            await get(origin)
        assert await get(origin) == BODY
        assert [("If-Range" in asked) for asked in script.asked] == [False, True, False]


@pytest.mark.parametrize("tag", ['"caf\xe9"', '"a b"', 'W/"1"', "1", '"1'])
async def test_a_tag_that_a_request_can_not_repeat_is_not_kept(tag: str) -> None:
    async with scripted(*[head(more=f"ETag: {tag}\r\n") + BODY] * 2) as script:
        origin = source(script.url)
        assert [await get(origin), await get(origin)] == [BODY] * 2
        assert not any("If-Range" in asked for asked in script.asked)


async def test_a_redirect_is_followed_by_the_library() -> None:
    async with scripted(head() + BODY) as there:
        to = f"HTTP/1.1 302 x\r\nLocation: {there.url}blobs/x\r\nContent-Length: 0\r\n\r\n".encode()
        async with scripted(to, to) as script:
            assert await get(source(script.url)) == BODY


async def test_a_stop_ends_a_range_soon() -> None:
    async with scripted(head() + BODY[:60]) as script, asyncio.timeout(5):
        stop = threading.Event()
        origin = Origin(script.url, request_timeout_ms=60_000, stop=stop, read_timeout_ms=60_000)
        async with asyncio.TaskGroup() as group:
            work = group.create_task(failure(get(origin)))
            await wait_until(lambda: script.asked)
            stop.set()
        assert "the node stops" in work.result().message


async def failure(work: Coroutine[Any, Any, bytes]) -> OriginError:
    with pytest.raises(OriginError) as caught:
        await work
    return caught.value


@pytest.mark.parametrize(
    ("url", "proxy", "raw"),
    [
        ("http://origin:8080/models", None, True),
        ("http://[::1]:8080/", None, True),
        ("https://origin/", None, False),
        ("http://user:secret@origin/", None, False),
        ("http://origin/?sig=x", None, False),
        ("s3://bucket/models", None, False),
        ("file:///srv/models", None, False),
        ("http://origin/", "http_proxy", False),
        ("http://origin/", "ALL_PROXY", False),
    ],
)
def test_which_origins_are_read_so(
    monkeypatch: pytest.MonkeyPatch, url: str, proxy: str | None, raw: bool
) -> None:
    if proxy:
        monkeypatch.setenv(proxy, "http://proxy:3128")
    assert serves(url) is raw


def test_idle_connections_end_with_their_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        raw = RawHttp(f"http://127.0.0.1:{listener.getsockname()[1]}", read_timeout_s=1, request_timeout_s=1)
        raw._done(socket.create_connection(listener.getsockname()), reusable=True)
        accepted, _ = listener.accept()
        with accepted:
            del raw
            accepted.settimeout(5)
            assert accepted.recv(1) == b""
