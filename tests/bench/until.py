"""How a server of the bench begins and ends: it tells its port, and goes when its starter goes."""

import asyncio
import os
import sys


def print_port(port: int) -> None:
    """The starter waits for this line."""
    print(port, flush=True)


async def stdin_ends() -> None:
    """Return at the end of stdin, which is the starter's end of a pipe: also after a kill -9 of it."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def on_readable() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            ended.set()

    loop.add_reader(sys.stdin.fileno(), on_readable)
    await ended.wait()
