"""Requests at a fixed rate, whatever comes of them, over connections that are kept as long as the node allows.

A connection whose answer said `Connection: close`, or that the node closed, is not used again;
nothing is tried twice. Each outcome is kept: the status, or the name of what broke; and the node's name for
each answered request, under which `popctl explain` knows it.
"""

import asyncio
import threading
from collections import Counter
from types import TracebackType
from typing import Self

from netlab.clock import now_s

WITHIN_S = 30.0
Wires = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class OpenLoop:
    """Runs while the `with` block does. `expect` is what every 200 must hold."""

    def __init__(self, port: int, path: str, body: bytes, *, per_s: float, expect: bytes) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        self._request = head.encode() + body
        self._port = port
        self._per_s = per_s
        self._expect = expect
        self.outcomes: Counter[str] = Counter()
        self.served_by: Counter[str] = Counter()
        self.answered: list[str] = []
        self._idle: list[Wires] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    @property
    def asked(self) -> int:
        """Requests that are over."""
        return self.outcomes.total()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    async def _run(self) -> None:
        began_s, count = now_s(), 0
        async with asyncio.TaskGroup() as group:
            while not self._over.is_set():
                group.create_task(self._one())
                count += 1
                await asyncio.sleep(max(0.0, began_s + count / self._per_s - now_s()))
        for _, writer in self._idle:
            writer.transport.abort()

    async def _one(self) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                outcome = await self._ask()
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            outcome = type(error).__name__
        self.outcomes[outcome] += 1

    def _kept(self) -> Wires | None:
        """A connection that is kept alive; one that the node has closed meanwhile is none, as for any client."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.transport.abort()
        return None

    async def _ask(self) -> str:
        wires = self._kept() or await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = wires
        try:
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            body = await reader.readexactly(int(fields["content-length"]))
        except BaseException:
            writer.transport.abort()
            raise
        status = head.split(" ", 2)[1]
        self.served_by[fields.get("edge-served-by", "")] += 1
        self.answered.append(fields.get("edge-request-id", ""))
        if fields.get("connection") == "close":
            writer.transport.abort()
        else:
            self._idle.append(wires)
        if status == "200" and self._expect not in body:
            return "wrong body"
        return status if status == "200" else f"{status} {fields.get('edge-drop-reason', '')}"
