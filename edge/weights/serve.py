"""Give blobs and manifests to other nodes: HTTPS, certificates of the fleet on both sides.

    GET | HEAD /blobs/<digest>   one Range, ETag = digest; /manifests/<digest>.json whole
    GET /blobs/<digest>/chunks[?beyond=N]   edge.weights.growth.Told; of a blob that is on its way
                                            with up to N chunks, when it has more, or after a moment

Runs in a thread with a loop of its own, so that gigabytes under way delay no frames. What may be
given is the store owner's decision: each answer borrows the file from it and returns it, and a
file that is lent is not evicted. Of a blob on its way in, a range is given if all of its chunks
were found right (206), else 409 says to come back. Never gives a byte in doubt, and never writes.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import uvloop
from aiohttp import web

from edge.weights.growth import Growth, Told
from edge.weights.layout import blob_key, manifest_key
from edge.weights.manifest import DIGEST

MAX_CONNECTIONS: Final = 256
MAX_REQUESTS: Final = 64
HANDSHAKE_TIMEOUT_S: Final = 5.0
KEEP_IDLE_S: Final = 30.0
#: A reader that does not take a piece within this time is let go: 26 KB/s.
WRITE_TIMEOUT_S: Final = 10.0
PIECE_BYTES: Final = 256 * 1024
READ_THREADS: Final = 4
STOP_WAIT_S: Final = 2.0
#: How long an answer waits for one more chunk, and how often it looks.
CHUNKS_WAIT_S: Final = 0.5
CHUNKS_TICK_S: Final = 0.01
_COUNT: Final = re.compile(r"[0-9]{0,9}")
_RANGE: Final = re.compile(r"bytes=(?:([0-9]{1,15})-([0-9]{1,15})?|-([0-9]{1,15}))")

log = logging.getLogger(__name__)


class Lent(NamedTuple):
    """A file that stays until it is returned. One with `growth` is unfinished, may be renamed: read `fd`."""

    key: str
    path: Path
    size_bytes: int
    growth: Growth | None = None
    fd: int = -1


class Lender(NamedTuple):
    """The store's owner: both are called in its own event loop, `lend` with a key of the store."""

    lend: Callable[[str], Lent | None]
    take_back: Callable[[Lent], None]


def span(text: str, size_bytes: int) -> tuple[int, int] | None:
    """First byte and the one behind the last of a Range header; None for what can't be given.

    One range only, RFC 9110 section 14.1.2.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        start, end = max(0, size_bytes - int(suffix)), size_bytes
    else:
        start, end = int(first), size_bytes if last is None else min(int(last) + 1, size_bytes)
    return (start, end) if start < end else None


class BlobServer:
    """The blobs of one node. `start`, and `stop` before the store closes; `served_bytes` only grows."""

    def __init__(
        self, listener: socket.socket, tls: ssl.SSLContext, lender: Lender, on_crash: Callable[[], None]
    ) -> None:
        """`on_crash` is called in the starter's loop if the thread fails."""
        self.served_bytes = 0
        self._listener = listener
        self._tls = tls
        self._lender = lender
        self._on_crash = on_crash
        self._home = asyncio.get_running_loop()
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._loop = self._runner.get_loop()
        self._stopping = asyncio.Event()
        self._requests = 0
        self._readers = ThreadPoolExecutor(READ_THREADS, "blobs-read")
        self._thread = threading.Thread(target=self._run, name="blobs", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop within STOP_WAIT_S; what is under way is cut. Blocks. Nothing to do where it did not start."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread.is_alive():
            self._thread.join(STOP_WAIT_S)
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        try:
            with self._runner as runner:
                runner.run(self._serve())
        except Exception:
            log.exception("the blob server failed")
            with contextlib.suppress(RuntimeError):
                self._home.call_soon_threadsafe(self._on_crash)

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/blobs/{digest}", self._blob)
        app.router.add_get("/blobs/{digest}/chunks", self._chunks, allow_head=False)
        app.router.add_get("/manifests/{digest}.json", self._manifest)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEP_IDLE_S, shutdown_timeout=0.1)
        await runner.setup()
        serving = runner.server
        if serving is None:
            raise RuntimeError("the runner is not set up")

        def accept() -> asyncio.Protocol:
            return serving() if len(serving.connections) < MAX_CONNECTIONS else _Refusal()

        server = await self._loop.create_server(
            accept, sock=self._listener, ssl=self._tls, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S
        )
        try:
            await self._stopping.wait()
        finally:
            server.close()
            for connection in serving.connections:
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()

    # --- answers

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        return await self._answer(request, digest, blob_key(digest), request.headers.get("Range"))

    async def _manifest(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        return await self._answer(request, digest, manifest_key(digest), None)

    async def _chunks(self, request: web.Request) -> web.StreamResponse:
        digest, beyond = request.match_info["digest"], request.query.get("beyond", "")
        if DIGEST.fullmatch(digest) is None or _COUNT.fullmatch(beyond) is None:
            return _refusal(404, "no digest, or no count")
        async with self._borrowed(blob_key(digest)) as lent:
            if lent is None:
                return _refusal(404, "not here")
            if lent.growth is None:
                told = Told(lent.size_bytes)
            else:
                await _until_grown(lent.growth, int(beyond or -1))
                told = lent.growth.told()
        return web.Response(body=msgspec.json.encode(told), content_type="application/json")

    async def _answer(
        self, request: web.Request, digest: str, key: str, wanted: str | None
    ) -> web.StreamResponse:
        if DIGEST.fullmatch(digest) is None:
            return _refusal(404, "no digest")
        if self._requests >= MAX_REQUESTS:
            return _refusal(503, f"{MAX_REQUESTS} answers are under way", {"Retry-After": "1"})
        self._requests += 1
        try:
            async with self._borrowed(key) as lent:
                if lent is None:
                    return _refusal(404, "not here")
                return await self._send(request, digest, lent, wanted)
        finally:
            self._requests -= 1

    async def _send(
        self, request: web.Request, digest: str, lent: Lent, wanted: str | None
    ) -> web.StreamResponse:
        size_bytes = lent.size_bytes
        part = (0, size_bytes) if wanted is None else span(wanted, size_bytes)
        if part is None:
            return _refusal(416, "one range within the blob", {"Content-Range": f"bytes */{size_bytes}"})
        start, end = part
        if lent.growth is not None and not lent.growth.covers(start, end):
            return _refusal(409, "that part is not here yet", {"Retry-After": "1"})
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if wanted is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size_bytes}"
        response = web.StreamResponse(status=200 if wanted is None else 206, headers=headers)
        response.content_type = "application/octet-stream"
        response.content_length = end - start
        try:
            await response.prepare(request)
            if request.method == "GET":
                await self._copy(lent, start, end, response)
            await response.write_eof()
        except (OSError, TimeoutError) as error:
            # The reader left or does not read, or the file is not what the store says: the promised
            # length can't be kept, so the connection ends.
            log.info("a blob was not given whole: %s: %s", digest, error)
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _copy(self, lent: Lent, start: int, end: int, response: web.StreamResponse) -> None:
        def opened() -> int:
            return os.open(lent.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

        run = self._loop.run_in_executor
        fd = lent.fd if lent.growth is not None else await run(self._readers, opened)
        try:
            while start < end:
                count = min(PIECE_BYTES, end - start)
                piece: bytes | bytearray = in_memory(fd, count, start)
                if not piece:
                    piece = await run(self._readers, os.pread, fd, count, start)
                if not piece:
                    raise OSError(f"{lent.path} is shorter than the store says")
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await response.write(piece)
                start += len(piece)
                self.served_bytes += len(piece)
        finally:
            if lent.growth is None:
                os.close(fd)

    @contextlib.asynccontextmanager
    async def _borrowed(self, key: str) -> AsyncIterator[Lent | None]:
        """The file, kept from eviction meanwhile; None if the store does not give it."""
        lent: concurrent.futures.Future[Lent | None] = concurrent.futures.Future()

        def lend() -> None:
            try:
                lent.set_result(self._lender.lend(key))
            except Exception as error:  # noqa: BLE001 -- raised where the answer is awaited
                lent.set_exception(error)

        def take_back(done: "concurrent.futures.Future[Lent | None]") -> None:
            if done.exception() is None and (given := done.result()) is not None:
                with contextlib.suppress(RuntimeError):
                    self._home.call_soon_threadsafe(self._lender.take_back, given)

        self._home.call_soon_threadsafe(lend)
        try:
            yield await asyncio.shield(asyncio.wrap_future(lent))
        finally:
            # Also when this answer was cancelled before the store had decided.
            lent.add_done_callback(take_back)


def in_memory(fd: int, count: int, at: int) -> bytearray:
    """At most so many bytes of the file, as far as they can be had without waiting for the disk."""
    room = bytearray(count)
    try:
        got = os.preadv(fd, [room], at, os.RWF_NOWAIT)
    except OSError:
        # EAGAIN: the disk has it; EOPNOTSUPP: a filesystem that can't tell.
        got = 0
    del room[got:]
    return room


async def _until_grown(growth: Growth, beyond: int) -> None:
    for _ in range(round(CHUNKS_WAIT_S / CHUNKS_TICK_S)):
        if growth.count > beyond or growth.over:
            return
        await asyncio.sleep(CHUNKS_TICK_S)


class _Refusal(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _refusal(status: int, sentence: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": sentence}, status=status, headers=headers)
