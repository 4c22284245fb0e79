"""The front door alone: `FrontDoor` on uvloop, and a handler that has one answer for everything.

    python -m tests.bench.serve_door

What HTTP itself costs here: parse, admit, answer. Prints its port, ends when stdin does.
"""

import asyncio
import socket
from typing import Final

import uvloop

from edge.http.request import Request
from edge.http.respond import JSON, Response
from edge.http.server import FrontDoor
from edge.limits import HttpLimits
from tests.bench.until import print_port, stdin_ends
from tests.bench.workload import FIXED, answer

_ANSWER: Final = answer(FIXED)


def handler(_: Request) -> Response:
    """The fixed answer."""
    return Response(200, [], _ANSWER, JSON)


async def serve() -> None:
    """Until stdin ends."""
    door = FrontDoor(handler, HttpLimits())
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(door.serve([listener]))
            print_port(listener.getsockname()[1])
            await stdin_ends()
            await door.close(0.0)


if __name__ == "__main__":
    uvloop.run(serve())
