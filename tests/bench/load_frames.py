"""A client of the worker's UNIX socket: frames, with so many requests in flight.

    python -m tests.bench.load_frames SOCKET DIGEST IN_FLIGHT SECONDS

What the proxy does, without HTTP and routing. Prints one JSON object; ends with an error at the
first wrong answer.
"""

import asyncio
import json
import resource
import sys
from collections.abc import Sequence
from statistics import median
from typing import Final

import uvloop

from edge import clock
from edge.wire import calls
from edge.wire.link import Link
from tests.bench.workload import FIXED, MODEL, answer, check, question

TIMEOUT_S: Final = 10.0
AT_ONCE: Final = 32


async def connect(path: str) -> Link:
    """A link to the worker that listens there."""
    _, link = await asyncio.get_running_loop().create_unix_connection(Link, path)
    return link


def infer(digest: str) -> calls.Infer:
    """The call that the proxy would send."""
    return calls.Infer(
        model=MODEL, version="1", digest=digest, content_type="application/json", request_id="b-1"
    )


async def load_model(path: str, digest: str, manifest: bytes) -> None:
    """Make the model resident."""
    link = await connect(path)
    await link.request(calls.Load(digest=digest), manifest, timeout_s=60.0)
    link.close()


async def ask(path: str, digest: str, many: Sequence[Sequence[float]]) -> None:
    """Ask all, AT_ONCE at a time, and check each answer."""
    link = await connect(path)
    free = asyncio.Semaphore(AT_ONCE)

    async def one(values: Sequence[float]) -> None:
        async with free:
            reply = await link.request(infer(digest), question(values), timeout_s=TIMEOUT_S)
        check("frames", 200, reply.body, values)

    async with asyncio.TaskGroup() as tasks:
        for values in many:
            tasks.create_task(one(values))
    link.close()


async def hammer(path: str, digest: str, in_flight: int, seconds: float) -> dict[str, float]:
    """A closed loop; answers, seconds, median latency in microseconds, CPU seconds of this process."""
    link = await connect(path)
    call, body, expected = infer(digest), question(FIXED), answer(FIXED)
    latencies_s: list[float] = []
    cpu_before_s, started_s = _cpu_s(), clock.now_s()
    until_s = started_s + seconds

    async def loop() -> None:
        now_s = clock.now_s()
        while now_s < until_s:
            reply = await link.request(call, body, timeout_s=TIMEOUT_S)
            if reply.body != expected:
                raise SystemExit(f"the worker answered {reply.body[:300]!r}")
            at_s, now_s = now_s, clock.now_s()
            latencies_s.append(now_s - at_s)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(in_flight):
            tasks.create_task(loop())
    took_s = clock.now_s() - started_s
    link.close()
    return {
        "answers": len(latencies_s),
        "seconds": took_s,
        "p50_us": median(latencies_s) * 1e6,
        "cpu_s": _cpu_s() - cpu_before_s,
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    socket_path, model_digest, flying, for_s = sys.argv[1:]
    print(json.dumps(uvloop.run(hammer(socket_path, model_digest, int(flying), float(for_s)))))
