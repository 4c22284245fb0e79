"""A program with an event loop that does what it is told, line by line, and counts what blocked it.

    sleep 0.5 | hog 1.5 | count

It answers each line with what `edge.proxy.loopwatch` has told until then, as JSON. Lines are read by a
thread, so that nothing but the deed itself blocks the loop.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable

import uvloop

from edge import clock
from edge.logs import log_to_stderr
from edge.proxy.loopwatch import watching
from edge.telemetry import Metrics


def sleeps(seconds: float) -> None:
    """Without the interpreter's lock."""
    time.sleep(seconds)  # noqa: TID251 -- to block the loop is the point


def hogs(seconds: float) -> None:
    """With it, but for a moment every tenth of a second or two."""
    until_s = clock.now_s() + seconds
    while clock.now_s() < until_s:
        sum(range(10_000_000))


DEEDS: dict[str, Callable[[float], None]] = {"sleep": sleeps, "hog": hogs}


async def main() -> None:
    """Until standard input ends."""
    log_to_stderr("blocking", "info")
    loop, metrics, over = asyncio.get_running_loop(), Metrics(node="n", pop="p", version="1"), asyncio.Event()

    def answer() -> None:
        lines = metrics.exposition().decode().splitlines()
        told = [line.rpartition(" ") for line in lines if line.startswith("edge_loop_blocked_total{")]
        print(json.dumps({name.split('"')[1]: float(count) for name, _, count in told}), flush=True)

    def obey(line: str) -> None:
        what, _, seconds = line.strip().partition(" ")
        if what in DEEDS:
            DEEDS[what](float(seconds))
        # Not at once: the watcher may still be about to tell.
        loop.call_later(0.1, answer)

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(obey, line)
        loop.call_soon_threadsafe(over.set)

    with watching(loop, metrics.blocked):
        threading.Thread(target=read, daemon=True).start()
        print("{}", flush=True)
        await over.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
