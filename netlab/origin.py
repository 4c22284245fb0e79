"""The lab's object store: a directory over HTTP, with Range, validators, counters and faults.

`python -m netlab.origin --root DIR --listen HOST:PORT [--control PATH] [--bytes-per-s N]` prints
`ready` once it listens. Serves GET and HEAD to anybody; counters and faults only on the control
socket. Refuses to know what the objects are, and never writes to the directory.
"""

import argparse
import asyncio
import errno
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

from aiohttp import web

from netlab.originfault import BadFaultError, Fault, Faults
from netlab.originfile import (
    Span,
    UnsatisfiableError,
    etag_of,
    none_match,
    open_object,
    range_still_holds,
    span_of,
)

SLICE_BYTES = 16 << 20
"""Sent in one go: 0.23 s of processor per GB, as aiohttp's FileResponse; slices of 1 MiB took 0.5."""
SLICE_WITHIN_S = 600.0
"""A client slower than 27 KiB/s is let go."""
PACED_SLICE_BYTES = 512 << 10
LATE_S = 0.02
"""A process that is woken late makes up for so much: a link's queue would not have run dry."""
DRIP_EVERY_S = 0.05
MAX_ACTIVE = 512
MAX_CLIENTS = 1024
MAX_CONTROL_BODY_BYTES = 64 << 10
SHUTDOWN_S = 1.0

log = logging.getLogger("netlab.origin")


@dataclass(slots=True)
class Client:
    """What one address asked for and got; `bytes` are body bytes handed to the kernel."""

    requests: int = 0
    bytes: int = 0
    statuses: dict[int, int] = field(default_factory=dict)


class Pace:
    """A link of `bytes_per_s` that all bodies share, in the order in which they ask; 0: no limit."""

    def __init__(self, bytes_per_s: int) -> None:
        self.slice_bytes = PACED_SLICE_BYTES if bytes_per_s else SLICE_BYTES
        self._bytes_per_s = bytes_per_s
        self._free_at_s = 0.0

    async def turn(self, count: int) -> None:
        """Return when so many bytes may leave. Time in which nobody sent is lost, all but LATE_S of it."""
        if self._bytes_per_s:
            now_s = asyncio.get_running_loop().time()
            self._free_at_s = max(self._free_at_s, now_s - LATE_S) + count / self._bytes_per_s
            await asyncio.sleep(max(0.0, self._free_at_s - now_s))


class Origin:
    """One directory, its counters, its faults and its pace."""

    def __init__(self, root: Path, pace: Pace | None = None) -> None:
        """`root` must be a directory; NotADirectoryError says so otherwise."""
        self._pace = pace or Pace(0)
        self._root = root.resolve()
        if not self._root.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "the root to serve is not a directory", str(root))
        self._clients: dict[str, Client] = {}
        self._active = 0
        self.faults = Faults()

    def public(self) -> web.Application:
        """What everybody may reach."""
        app = web.Application()
        app.router.add_route("*", "/{name:.*}", self.answer)
        return app

    def control(self) -> web.Application:
        """What only the owner of the control socket may reach."""
        app = web.Application(client_max_size=MAX_CONTROL_BODY_BYTES)
        app.router.add_get("/_stats", self._stats)
        app.router.add_post("/_stats/reset", self._reset)
        app.router.add_post("/_fault", self._set_fault)
        app.router.add_delete("/_fault", self._clear_faults)
        return app

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request of a client, counted under its address."""
        client = self._client(request.remote or "unknown")
        client.requests += 1
        with self._one_more():
            response = await self._answer(request, client)
        client.statuses[response.status] = client.statuses.get(response.status, 0) + 1
        return response

    async def _answer(self, request: web.Request, client: Client) -> web.StreamResponse:
        if request.method not in {"GET", "HEAD"}:
            return refusal(405, f"{request.method} is not served; GET and HEAD are", Allow="GET, HEAD")
        if self._active > MAX_ACTIVE:
            return refusal(503, f"{MAX_ACTIVE} requests are in progress already", **{"Retry-After": "1"})
        name, get = request.match_info["name"], request.method == "GET"
        fault = self.faults.take(name, get=get, ranged="Range" in request.headers)
        if fault is not None and fault.kind == "5xx":
            return refusal(503, "a fault that was asked for")
        try:
            file, facts = open_object(self._root, name)
        except FileNotFoundError:
            return refusal(404, "no such object")
        try:
            etag = etag_of(name, facts.st_size, facts.st_mtime_ns)
            headers = {
                "ETag": etag,
                "Last-Modified": formatdate(facts.st_mtime, usegmt=True),
                "Accept-Ranges": "bytes",
            }
            if _not_modified(request, etag, facts.st_mtime):
                return web.Response(status=304, headers=headers)
            return await self._send(request, client, file, facts.st_size, headers, fault)
        finally:
            os.close(file)

    async def _send(
        self,
        request: web.Request,
        client: Client,
        file: int,
        size: int,
        headers: dict[str, str],
        fault: Fault | None,
    ) -> web.StreamResponse:
        get = request.method == "GET"
        wanted = request.headers.get("Range") if get else None
        if (fault is not None and fault.kind == "200-to-range") or not range_still_holds(
            request.headers.get("If-Range"), headers["ETag"], headers["Last-Modified"]
        ):
            wanted = None
        try:
            part = span_of(wanted, size)
        except UnsatisfiableError as error:
            return refusal(416, str(error), **headers, **{"Content-Range": f"bytes */{size}"})
        span = part or Span(0, size)
        response = web.StreamResponse(status=200 if part is None else 206, headers=headers)
        response.content_type = "application/octet-stream"
        response.content_length = span.length
        if part is not None:
            response.headers["Content-Range"] = part.content_range(size)
        await response.prepare(request)
        if get:
            try:
                await _body(request, response, client, file, span, fault, self._pace)
            except ConnectionError:  # the client left; what it got is counted
                return response
        await response.write_eof()
        return response

    def _client(self, address: str) -> Client:
        if address not in self._clients and len(self._clients) >= MAX_CLIENTS:
            address = "others"
        return self._clients.setdefault(address, Client())

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1

    async def _stats(self, _: web.Request) -> web.Response:
        clients = {
            address: {"requests": one.requests, "bytes": one.bytes, "statuses": one.statuses}
            for address, one in self._clients.items()
        }
        total = sum(one.bytes for one in self._clients.values())
        return web.json_response(
            {"clients": clients, "total_bytes": total, "active": self._active, "faults": self.faults.listed()}
        )

    async def _reset(self, _: web.Request) -> web.Response:
        self._clients.clear()
        return web.json_response({"ok": True})

    async def _set_fault(self, request: web.Request) -> web.Response:
        try:
            fault = self.faults.add(await request.read())
        except BadFaultError as error:
            return refusal(400, str(error))
        return web.json_response({"ok": True, "kind": fault.kind})

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self.faults.clear(request.query.get("kind", ""))
        return web.json_response({"ok": True})


def refusal(status: int, sentence: str, **headers: str) -> web.Response:
    """An answer that says why not, as JSON."""
    return web.json_response({"error": sentence}, status=status, headers=headers)


def _not_modified(request: web.Request, etag: str, mtime_s: float) -> bool:
    tags = request.headers.get("If-None-Match")
    if tags is not None:
        return none_match(tags, etag)
    since = request.if_modified_since
    return since is not None and int(mtime_s) <= since.timestamp()


async def _body(
    request: web.Request,
    response: web.StreamResponse,
    client: Client,
    file: int,
    span: Span,
    fault: Fault | None,
    pace: Pace,
) -> None:
    half = span.start + span.length // 2
    match fault.kind if fault is not None else None:
        case "stall":
            assert fault is not None  # noqa: S101 -- narrows for the type checker
            await _send_file(request, client, file, Span(span.start, half), pace)
            await asyncio.sleep(fault.stall_s)
            await _send_file(request, client, file, Span(half, span.stop), pace)
        case "drip":
            assert fault is not None  # noqa: S101 -- same
            await _drip(response, client, file, span, fault.drip_bps)
        case "cut":
            await _send_file(request, client, file, Span(span.start, half), pace)
            if request.transport is not None:
                request.transport.close()
            raise ConnectionResetError("cut, as was asked for")
        case "corrupt":
            await _corrupt(request, response, client, file, span, half, pace)
        case _:
            await _send_file(request, client, file, span, pace)


async def _send_file(request: web.Request, client: Client, file: int, span: Span, pace: Pace) -> None:
    """The kernel copies from file to socket; the body never enters this process."""
    loop = asyncio.get_running_loop()
    with open(os.dup(file), "rb", buffering=0) as source:  # noqa: PTH123 ASYNC230 -- a descriptor, no disk
        for start in range(span.start, span.stop, pace.slice_bytes):
            length = min(pace.slice_bytes, span.stop - start)
            await pace.turn(length)
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the client left")
            source.seek(start)
            try:
                async with asyncio.timeout(SLICE_WITHIN_S):
                    await loop.sendfile(request.transport, source, start, length)
            except TimeoutError:
                request.transport.abort()
                raise ConnectionResetError("the client does not read") from None
            finally:  # asyncio leaves the position behind the last byte sent, whatever happened
                sent = source.tell() - start
                client.bytes += sent
            if sent < length:  # the file shrank under us: the length we promised can't be kept
                request.transport.close()
                raise ConnectionResetError("the object was truncated while it was sent")


async def _corrupt(
    request: web.Request,
    response: web.StreamResponse,
    client: Client,
    file: int,
    span: Span,
    half: int,
    pace: Pace,
) -> None:
    await _send_file(request, client, file, Span(span.start, half), pace)
    if half < span.stop:
        await response.write(bytes([os.pread(file, 1, half)[0] ^ 0xFF]))
        client.bytes += 1
        await _send_file(request, client, file, Span(half + 1, span.stop), pace)


async def _drip(
    response: web.StreamResponse, client: Client, file: int, span: Span, bytes_per_s: int
) -> None:
    step = max(1, int(bytes_per_s * DRIP_EVERY_S))
    for start in range(span.start, span.stop, step):
        drop = os.pread(file, min(step, span.stop - start), start)
        await response.write(drop)
        client.bytes += len(drop)
        await asyncio.sleep(len(drop) / bytes_per_s)


def listen_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[V6]:PORT` with a literal address; ValueError names what is wrong."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
        number = int(port)
    except ValueError as error:
        raise ValueError(f"{text!r} is no address; write 10.0.0.1:8080 or [fd00::1]:8080") from error
    if not colon or not 0 <= number <= 65535:
        raise ValueError(f"{text!r}: port {port} is not 0 to 65535")
    return host, number


def pace_of(text: str) -> Pace:
    """Bytes per second from a command line; ValueError for what is none."""
    if (number := int(text)) < 1:
        raise ValueError(f"{text} is no rate; write 1 byte per second or more")
    return Pace(number)


async def serve(
    root: Path,
    listens: list[tuple[str, int]],
    control: Path | None,
    stop: asyncio.Event,
    pace: Pace | None = None,
) -> None:
    """Serve until `stop`; OSError names the address or directory that can't be had."""
    origin = Origin(root, pace)
    runner = web.AppRunner(origin.public(), access_log=None, shutdown_timeout=SHUTDOWN_S)
    desk = web.AppRunner(origin.control(), access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    await desk.setup()
    try:
        for host, port in listens:
            await web.TCPSite(runner, host, port, backlog=512).start()
        if control is not None:
            await web.UnixSite(desk, str(control)).start()
            _keep_private(control)
        for address in runner.addresses:
            log.info("serving %s on %s", root, address)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await runner.cleanup()
        await desk.cleanup()
        if control is not None:
            _remove(control)


def _keep_private(path: Path) -> None:
    path.chmod(0o600)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _until_signal(arguments: Any) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(arguments.root, arguments.listen, arguments.control, stop, arguments.bytes_per_s)


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; 0, or 1 after one line that says what was wrong."""
    parser = argparse.ArgumentParser(prog="netlab.origin", description="serve a directory as an object store")
    parser.add_argument("--root", required=True, type=Path, help="the directory")
    parser.add_argument("--listen", required=True, action="append", type=listen_address, metavar="HOST:PORT")
    parser.add_argument("--control", type=Path, help="UNIX socket for counters and faults; none without it")
    parser.add_argument("--bytes-per-s", type=pace_of, help="all bodies together leave at most so fast")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s origin %(levelname)s %(message)s")
    try:
        asyncio.run(_until_signal(parser.parse_args(arguments)))
    except OSError as error:
        log.error("can't serve: %s", error)  # noqa: TRY400 -- a wrong argument is a sentence
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
