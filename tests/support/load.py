"""A city's users, many at a time, and the history of everything they were answered.

Each of `connections` asks, waits for the whole answer, and asks again, on a connection that it
keeps or on a new one each time. Nothing is tried twice and nothing is judged: what became of
each request is an `Asked`, and the test reads the list.
"""

import asyncio
from collections import Counter
from typing import Final

import msgspec

from netlab.clock import now_s, wait_until
from netlab.handles import User
from tests.support.inside import Inside

WITHIN_S: Final = 30.0
#: After a failure a user takes a breath: a refused connection costs nothing and would spin.
BREATH_S: Final = 0.01
PORT: Final = 80


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `outcome` is the status, or refused, unreachable, reset, closed, truncated, late.

    reset: RST while it was waited for. closed: end of stream before the first byte of an answer.
    truncated: end of stream inside an answer. `fresh`: the first request of its connection.
    """

    started_s: float
    ended_s: float
    outcome: str
    fresh: bool
    pop: str = ""
    served_by: str = ""
    reason: str = ""


class Load(Inside):
    """Runs while the `with` block does."""

    def __init__(
        self,
        user: User,
        path: str,
        body: bytes = b"",
        *,
        family: int = 4,
        connections: int = 16,
        keep: bool = True,
        pause_s: float = 0.0,
    ) -> None:
        """`pause_s`: the breath that a user takes who was refused."""
        self.history: list[Asked] = []
        super().__init__(user.ns, self._all)
        self._to = user.vip(family)
        self._connections = connections
        self._keep = keep
        self._pause_s = pause_s
        host = f"[{self._to}]" if family == 6 else self._to
        method = "POST" if body else "GET"
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
        if not keep:
            lines.append("Connection: close")
        self._request = "\r\n".join([*lines, "", ""]).encode() + body

    def since(self, moment_s: float) -> list[Asked]:
        """Requests that were begun after `moment_s` and are over."""
        return [asked for asked in list(self.history) if asked.started_s >= moment_s]

    def wait_until_asked(self, count: int, *, since_s: float = 0.0, within_s: float = 20.0) -> None:
        """Until so many requests that began after `since_s` were answered 200."""

        def enough() -> bool:
            if self.failed:
                raise self.failed[0]
            return sum(asked.outcome == "200" for asked in self.since(since_s)) >= count

        wait_until(enough, f"{count} requests were answered 200; so far {self.outcomes()}", within_s=within_s)

    def outcomes(self) -> dict[str, int]:
        """How often each outcome was seen; a refusal with its reason."""
        words = (f"{asked.outcome} {asked.reason}".strip() for asked in list(self.history))
        return dict(Counter(words))

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._connections):
                group.create_task(self._one())

    async def _one(self) -> None:
        wires: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self.over.is_set():
            started_s, fresh, answered = now_s(), wires is None, False
            said: dict[str, str] = {}
            try:
                async with asyncio.timeout(WITHIN_S):
                    if wires is None:
                        wires = await asyncio.open_connection(self._to, PORT)
                    reader, writer = wires
                    writer.write(self._request)
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                    answered = True
                    said = _fields(head)
                    await reader.readexactly(int(said["content-length"]))
                outcome = head.split(" ", 2)[1]
            except ConnectionRefusedError:
                outcome = "refused"
            except (ConnectionResetError, BrokenPipeError):
                outcome = "truncated" if answered else "reset"
            except asyncio.IncompleteReadError as error:
                outcome = "truncated" if answered or error.partial else "closed"
            except TimeoutError:
                outcome = "late"
            except OSError as error:
                outcome = f"unreachable ({error.strerror})"
            self.history.append(
                Asked(
                    started_s=started_s,
                    ended_s=now_s(),
                    outcome=outcome,
                    fresh=fresh,
                    pop=said.get("edge-pop", ""),
                    served_by=said.get("edge-served-by", ""),
                    reason=said.get("edge-drop-reason", ""),
                )
            )
            broken = not outcome.isdigit()
            if wires is not None and (broken or not self._keep or said.get("connection") == "close"):
                wires[1].transport.abort()
                wires = None
            if broken:
                await asyncio.sleep(BREATH_S)
            elif outcome != "200" and self._pause_s:
                await asyncio.sleep(self._pause_s)
        if wires is not None:
            wires[1].transport.abort()


def _fields(head: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}
