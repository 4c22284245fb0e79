"""Carries scripts to the region's Redis, and waits there for events: one attempt, one deadline each.

The only file that knows `redis`. Where a Sentinel set or a cluster decides which server is the
master, that is asked when a connection is to be opened, of all that may know at once, and again
after whatever says that it is another one now. All keys of a region carry one hash tag, so that
of a cluster one master is the region's Redis. Of the scripts it knows which only read, no more.
"""

import asyncio
import contextlib
import functools
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from edge import config
from edge.weights.scripts import READING

Address = tuple[str, int]

#: Of `timeout_ms`, for learning which server is the master; the rest is for the command.
FINDING: Final = 0.5
#: An answer that says: not I, not any more, or not now.
_ELSEWHERE: Final = (AskError, ClusterDownError, ReadOnlyError)


class Carrier:
    """Some connections of their own. RESP2 and no client info.

    It sends AUTH (and SELECT where the URL names a database), then nothing but what is asked of it.
    `key` is any key of the region: it says which of a cluster's slots is meant.
    """

    def __init__(self, settings: config.Index, password: str, connections: int, key: str) -> None:
        self._settings = settings
        self._password = password
        self._connections = connections
        self._key = key
        self._timeout_s = settings.timeout_ms / 1000
        self._finding = asyncio.Lock()
        # Any: the package gives `execute_command` no types.
        self._redis: Any = None

    async def run(self, script: str, keys: list[str], *args: str | int) -> Any:
        """The script's reply. A server that has lost its scripts is sent the text."""
        kind = "_RO" if script in READING else ""
        async with self._at(self._timeout_s) as redis:
            try:
                return await redis.execute_command(f"EVALSHA{kind}", _sha1(script), len(keys), *keys, *args)
            except NoScriptError:
                return await redis.execute_command(f"EVAL{kind}", script, len(keys), *keys, *args)

    async def news(self, stream: str, after: str, *, block_ms: int) -> bool:
        """Wait for an event after that id; False when there is none within `block_ms`."""
        async with self._at(block_ms / 1000 + self._timeout_s) as redis:
            return bool(
                await redis.execute_command("XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", stream, after)
            )

    async def aclose(self) -> None:
        """End its connections; a later command opens new ones."""
        redis, self._redis = self._redis, None
        if redis is not None:
            await redis.aclose()

    @contextlib.asynccontextmanager
    async def _at(self, seconds: float) -> AsyncIterator[Any]:
        """The server that is the master: finding it, connecting and the answer, all within `seconds`."""
        redis = None
        try:
            async with asyncio.timeout(seconds):
                redis = await self._open()
                yield redis
        except TimeoutError as error:
            await self._leave(redis)
            raise TimeoutError(f"no answer within {seconds * 1000:.0f} ms") from error
        except Exception as error:
            if isinstance(error, _ELSEWHERE) or not isinstance(error, ResponseError):
                await self._leave(redis)
            raise

    async def _open(self) -> Any:
        async with self._finding:
            if self._redis is None:
                self._redis = self._make(**await self._where())
            return self._redis

    async def _leave(self, redis: Any) -> None:
        """Whom others decide about is looked for anew; a server with one address is the same as before."""
        if redis is not None and redis is self._redis and not self._settings.url:
            await self.aclose()

    async def _where(self) -> dict[str, Any]:
        settings = self._settings
        if settings.url:
            said = parse_url(settings.url)
            wanted = ("connection_class", "host", "port", "db", "path")
            return {name: value for name, value in said.items() if name in wanted or name[:4] == "ssl_"}
        if settings.sentinels:
            host, port = await self._agreed(settings.sentinels, self._ask_sentinel)
        else:
            host, port = await self._agreed(settings.cluster, self._ask_member)
        return {"host": host, "port": port}

    def _make(
        self, connection_class: type[Connection] = Connection, *, anybody: bool = False, **where: Any
    ) -> Any:
        pool = BlockingConnectionPool(
            self._connections,
            self._timeout_s,
            connection_class,
            **where,
            username=(not anybody and self._settings.user) or None,
            password=(not anybody and self._password) or None,
            socket_timeout=None,
            socket_connect_timeout=self._timeout_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
        )
        redis: Any = Redis.from_pool(pool)
        # As the server sent it: the client's own reading of events breaks on odd ones.
        redis.set_response_callback("XREAD", _as_sent)
        redis.set_response_callback("SENTINEL GET-MASTER-ADDR-BY-NAME", _as_sent)
        return redis

    # --- who is the master

    async def _agreed(self, asked: Iterable[str], ask: Callable[[str, int], Awaitable[Address]]) -> Address:
        """What most of them say. Raises ConnectionError when none of them says anything."""
        failed: list[str] = []

        async def one(address: str) -> Address | None:
            try:
                async with asyncio.timeout(self._timeout_s * FINDING):
                    return await ask(*config.host_port(address))
            except (OSError, RedisError, TimeoutError, ValueError) as error:
                failed.append(f"{address}: {type(error).__name__} {error}".strip())
                return None

        found = most_said(await asyncio.gather(*map(one, asked)))
        if found is None:
            raise ConnectionError(f"nobody says which server is the master: {'; '.join(failed)}")
        return found

    async def _ask_sentinel(self, host: str, port: int) -> Address:
        redis = self._make(host=host, port=port, anybody=True)
        try:
            said = await redis.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self._settings.master)
        finally:
            await redis.aclose()
        if said is None:
            raise ValueError(f"knows no master {self._settings.master!r}")
        return bytes(said[0]).decode("ascii"), int(said[1])

    async def _ask_member(self, host: str, port: int) -> Address:
        """A member of a cluster answers for its own slots, and names the master of every other."""
        redis = self._make(host=host, port=port)
        try:
            await redis.execute_command("GETRANGE", self._key, 0, 0)
        except AskError as moved:
            return moved.host or host, moved.port
        else:
            return host, port
        finally:
            await redis.aclose()


def most_said(answers: Iterable[Address | None]) -> Address | None:
    """The answer that most gave, the first of several such; None when nobody gave any.

    >>> most_said([("a", 1), None, ("b", 2), ("b", 2)])
    ('b', 2)
    """
    counted = Counter(answer for answer in answers if answer is not None).most_common(1)
    return counted[0][0] if counted else None


def _as_sent(response: Any, **_options: Any) -> Any:
    return response


@functools.cache
def _sha1(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
