"""A user who asks for /pop at a fixed rate, whatever comes of it, each time on a new connection.

What became of each request is kept in the order in which they were begun, and nothing is tried twice.
It knows no faults; what is made of the list is tests/bench/flaps.py's.
"""

import asyncio

import msgspec

from netlab.clock import now_s
from netlab.handles import User
from tests.support.inside import Inside


class Asked(msgspec.Struct, frozen=True):
    """One request: the POP that answered it whole, or "" and what happened instead."""

    pop: str
    instead: str = ""


class Steady(Inside):
    """Runs while the `with` block does; every request has `patience_s`."""

    def __init__(self, user: User, family: int, *, per_s: float, patience_s: float) -> None:
        super().__init__(user.ns, self._all)
        self._to = user.vip(family)
        self._per_s, self._patience_s = per_s, patience_s
        host = f"[{self._to}]" if family == 6 else self._to
        self._request = f"GET /pop HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        self._seen: dict[int, Asked] = {}

    @property
    def asked(self) -> list[Asked]:
        """Requests that are over, in the order in which they were begun."""
        return [self._seen[number] for number in sorted(self._seen)]

    async def _all(self) -> None:
        began_s, count = now_s(), 0
        async with asyncio.TaskGroup() as group:
            while not self.over.is_set():
                group.create_task(self._one(count))
                count += 1
                await asyncio.sleep(max(0.0, began_s + count / self._per_s - now_s()))

    async def _one(self, number: int) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                self._seen[number] = Asked(await self._ask())
        except (OSError, EOFError, TimeoutError) as error:
            self._seen[number] = Asked("", type(error).__name__)

    async def _ask(self) -> str:
        reader, writer = await asyncio.open_connection(self._to, 80)
        try:
            writer.write(self._request)
            answer = (await reader.read(-1)).decode("latin-1").lower()
        finally:
            writer.transport.abort()
        for line in answer.split("\r\n"):
            if line.startswith("edge-pop: "):
                return line.removeprefix("edge-pop: ")
        raise EOFError("an answer without a POP")
