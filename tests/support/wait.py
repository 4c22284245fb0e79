"""Wait for a fact, with a deadline; the failure tells what was seen last."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from edge import clock


async def wait_until(fact: Callable[[], Any], *, within_s: float = 5.0, every_s: float = 0.01) -> Any:
    """The first true value of `fact()` (awaited when it is awaitable). Fails with the last one seen."""
    deadline = clock.now_s() + within_s
    while True:
        seen = fact()
        if isinstance(seen, Awaitable):
            seen = await seen
        if seen:
            return seen
        assert clock.now_s() < deadline, f"not within {within_s} s; last seen: {seen!r}"
        await asyncio.sleep(every_s)
