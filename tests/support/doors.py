"""A real front door on a loopback socket, for tests of what stands in front of and behind it."""

import asyncio
import functools
import inspect
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

import pytest
import uvloop

from edge.http.door import Handler
from edge.http.request import Request
from edge.http.respond import Response
from edge.http.server import FrontDoor
from edge.limits import HttpLimits
from tests.support.rawhttp import Answer, Raw

Address = tuple[str, int]


class Recorder:
    """A handler that reads the body, answers, and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.bodies: list[bytes] = []

    async def __call__(self, request: Request) -> Response:
        if request.path == ("alive",):
            return Response(200, [("X-Alive", "yes")], b"", "text/plain")
        self.seen.append(request)
        self.bodies.append(await request.body(1 << 20))
        return Response(404 if request.path[:1] == ("missing",) else 200, [], b"ok", "text/plain")


@asynccontextmanager
async def front_door(
    handler: Handler,
    limits: HttpLimits | None = None,
    *,
    ssl: SSLContext | None = None,
    listener: socket.socket | None = None,
) -> AsyncIterator[tuple[FrontDoor, Address]]:
    """A serving door and its address; closed, with everything it ran, on the way out."""
    listener = listener or socket.create_server(("127.0.0.1", 0), backlog=512)
    door = FrontDoor(handler, limits or HttpLimits(), hosts=frozenset({"pop.test", "127.0.0.1"}))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(door.serve([listener], ssl))
        try:
            yield door, listener.getsockname()
        finally:
            await door.close(0.0)
            listener.close()


async def ask(address: Address, payload: bytes, *, head_only: bool = False) -> Answer:
    """Send and read one answer, then close."""

    def exchange() -> Answer:
        with Raw(address) as raw:
            raw.send(payload)
            return raw.answer(head_only=head_only)

    return await asyncio.to_thread(exchange)


async def ok(request: Request) -> Response:
    """The shortest handler."""
    return Response(200, [], b"ok", "text/plain")


def both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test under asyncio's own loop and under uvloop, which differ in transports and accept."""

    @pytest.mark.parametrize(
        "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
    )
    @functools.wraps(test)
    def run(*args: Any, loop_factory: Callable[[], asyncio.AbstractEventLoop], **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(*args, **fixtures))

    signature = inspect.signature(test)
    extra = inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY)
    vars(run)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), extra])
    return run
