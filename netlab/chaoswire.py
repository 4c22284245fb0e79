"""One HTTP/1.1 connection of a user who trusts nobody.

It tells apart what a library would call an error: refused, reset, ended before an answer or inside
one, and bytes behind the answer that nobody asked for. It refuses to know what is asked.
"""

import asyncio
from typing import Final, Literal

import msgspec

MAX_HEAD_BYTES: Final = 64 << 10
MAX_BODY_BYTES: Final = 4 << 20

Loss = Literal["refused", "unreachable", "reset", "closed", "truncated", "late"]


class LostError(Exception):
    """The connection ended instead of an answer."""

    def __init__(self, how: Loss, text: str = "") -> None:
        super().__init__(f"{how} {text}".strip())
        self.how: Loss = how
        self.text = text


class GarbledError(Exception):
    """What came is no HTTP answer whose end can be told."""


class Reply(msgspec.Struct, frozen=True):
    """One answer. Header names are lower-case; `close` is whether the connection ends with it."""

    status: str
    headers: dict[str, str]
    body: bytes

    @property
    def close(self) -> bool:
        """Whether the other side takes no further request here."""
        return self.headers.get("connection", "").lower() == "close"


class Wire(asyncio.Protocol):
    """A connection; one exchange at a time."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._news = asyncio.Event()
        self._end: Loss | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- TCP gives no other
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Something came."""
        self._data += data
        self._news.set()

    def eof_received(self) -> bool:
        """Nothing more will come."""
        self._end = self._end or "closed"
        self._news.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._end = self._end or ("closed" if exc is None else "reset")
        self._news.set()

    @property
    def usable(self) -> bool:
        """Whether it may carry another request."""
        return self._end is None

    @property
    def surplus(self) -> int:
        """Bytes that came and were no part of an answer that was asked for."""
        return len(self._data)

    async def exchange(self, request: bytes) -> Reply:
        """Send it and wait for the whole answer. Raises LostError, GarbledError."""
        assert self._transport is not None  # noqa: S101 -- made by `connect`
        self._transport.write(request)
        head = await self._head()
        status, headers = parsed(head)
        if "content-length" in headers:
            return Reply(status, headers, await self._exactly(_size(headers["content-length"], 10)))
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return Reply(status, headers, await self._chunks())
        raise GarbledError(f"a {status} whose end can't be told")

    def abort(self) -> None:
        """End it without a word."""
        if self._transport is not None:
            self._transport.abort()

    # -- inside

    async def _head(self) -> bytes:
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            if len(self._data) > MAX_HEAD_BYTES:
                raise GarbledError("a head without an end")
            await self._more(inside=bool(self._data))
        return self._cut(end + 4)

    async def _exactly(self, size: int) -> bytes:
        while len(self._data) < size:
            await self._more(inside=True)
        return self._cut(size)

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            while (end := self._data.find(b"\r\n")) < 0:
                await self._more(inside=True)
            size = _size(self._cut(end + 2)[:-2].decode("latin-1"), 16)
            chunk = await self._exactly(size + 2)
            if not size:
                return body
            body += chunk[:-2]

    async def _more(self, *, inside: bool) -> None:
        if self._end is not None:
            raise LostError("truncated" if inside else self._end, self._end if inside else "")
        self._news.clear()
        await self._news.wait()

    def _cut(self, size: int) -> bytes:
        part = bytes(self._data[:size])
        del self._data[:size]
        return part


def parsed(head: bytes) -> tuple[str, dict[str, str]]:
    """Status and headers. Raises GarbledError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest.partition(" ")[0]
    if version != "HTTP/1.1" or not (status.isdigit() and len(status) == 3):
        raise GarbledError(f"no answer begins with {first[:40]!r}")
    pairs = (line.partition(":") for line in lines if line)
    return status, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _size(text: str, base: int) -> int:
    try:
        size = int(text, base)
    except ValueError:
        size = -1
    if not 0 <= size <= MAX_BODY_BYTES:
        raise GarbledError(f"a length of {text[:40]!r}")
    return size


async def connect(address: str, port: int) -> Wire:
    """A new connection. Raises LostError."""
    loop = asyncio.get_running_loop()
    try:
        _, wire = await loop.create_connection(Wire, address, port)
    except ConnectionRefusedError:
        raise LostError("refused") from None
    except ConnectionResetError:
        raise LostError("reset", "in the handshake") from None
    except OSError as error:
        raise LostError("unreachable", error.strerror or "") from None
    return wire
