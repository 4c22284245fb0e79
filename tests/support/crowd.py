"""Many users at once, each on a connection of its own that is kept: what each was answered, and how soon.

One thread for all of them, and each request in one write: threads that share an interpreter would wait
for each other between a request's head and its body, and that wait would be taken for the node's.
"""

import asyncio
import contextlib
from typing import Final, NamedTuple

from netlab.clock import now_s

WITHIN_S: Final = 30.0
#: A refused user takes a breath: no reader of `Retry-After` comes back within a millisecond.
BREATH_S: Final = 0.1


class Told(NamedTuple):
    """One answer; header names in lower case, `ms` from the write to the end of the body."""

    status: int
    headers: dict[str, str]
    ms: float


def crowd(port: int, path: str, body: bytes, *, users: int, each: int) -> list[Told]:
    """So many users at once ask so many times each. Raises what broke a connection."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return asyncio.run(_crowd(port, head.encode() + body, users, each))


async def _crowd(port: int, request: bytes, users: int, each: int) -> list[Told]:
    told: list[Told] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(users):
            group.create_task(_user(port, request, each, told))
    return told


async def _user(port: int, request: bytes, each: int, told: list[Told]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer.transport):
        for _ in range(each):
            began_s = now_s()
            async with asyncio.timeout(WITHIN_S):
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                status, *lines = head.rstrip().split("\r\n")
                fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                await reader.readexactly(int(fields["content-length"]))
            told.append(Told(int(status.split(" ", 2)[1]), fields, (now_s() - began_s) * 1000.0))
            if told[-1].status != 200:
                await asyncio.sleep(BREATH_S)
