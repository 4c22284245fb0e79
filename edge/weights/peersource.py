"""Another node as a source of blobs: ranges over HTTPS, both sides verified. Blocks; for threads.

The certificate must name the node that was meant, so an address that came from an index or a
beacon can't lead to somebody else. What does not come exactly as asked (206, the range, the
size) is refused; whether the bytes are right is checked by the caller. Connections are kept for
the next range. Knows nothing of chunks, digests or who else has the blob.
"""

import http.client
import io
import math
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, cast

from edge import clock
from edge.config import host_port
from edge.errors import EdgeError, Reason, Source
from edge.weights.sources import NotYetError
from edge.weights.tlsstream import TlsStream

CONNECT_TIMEOUT_S: Final = 2.0
#: No byte for this long and the range has failed.
READ_TIMEOUT_S: Final = 2.0
#: An answer's head, or a small object whole, takes no longer than this, however it drips.
SMALL_WITHIN_S: Final = 5.0
#: What is handed on at a time (1 MiB was no faster), and the longest a part of it is held back.
PIECE_BYTES: Final = 256 * 1024
PIECE_MS: Final = 250.0
#: Less than the other side keeps an idle connection, so that it is not closed under our request.
IDLE_MS: Final = 10_000.0
MAX_IDLE: Final = 8
MAX_PEERS: Final = 256
#: The status of an answer that says: come back for that part.
NOT_YET: Final = 409
_NODE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class PeerError(EdgeError):
    """LINK_LOST: this node can't give it; `lasting`: it does not have it, don't ask it again.

    `answered` is its status, 0 if there was none.
    """

    def __init__(self, message: str, *, lasting: bool = False, answered: int = 0) -> None:
        super().__init__(Reason.LINK_LOST, message, source=Source.UPSTREAM, retryable=True, retry_after_s=2)
        self.lasting = lasting
        self.answered = answered


class _Timed(io.RawIOBase):
    """A socket's bytes until a point in time."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.until_s = clock.now_s() + SMALL_WITHIN_S

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if clock.now_s() > self.until_s:
            raise TimeoutError("it drips")
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer that has to be here in time, unless `take_time`."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._timed = _Timed(self.fp.detach())
        self.fp = io.BufferedReader(self._timed)

    def take_time(self) -> None:
        """From here on the reader watches how fast it comes."""
        self._timed.until_s = math.inf


class _Connection(http.client.HTTPSConnection):
    """To one address, verified as one node."""

    response_class = _Response

    def __init__(self, address: tuple[str, int], node: str, tls: ssl.SSLContext) -> None:
        super().__init__(*address, timeout=CONNECT_TIMEOUT_S, context=tls)
        self._node = node
        self._tls = tls

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), CONNECT_TIMEOUT_S)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = TlsStream(plain, self._tls, self._node)
        except BaseException:
            plain.close()
            raise
        self.sock.settimeout(READ_TIMEOUT_S)


class _Idle(NamedTuple):
    connection: _Connection
    since_ms: float


class Peer:
    """One node's blob server, as `edge.weights.fetch.Ranges`. For several threads at a time."""

    def __init__(
        self, node: str, address: tuple[str, int], tls: ssl.SSLContext, stop: threading.Event
    ) -> None:
        self.node = node
        self._address = address
        self._tls = tls
        self._stop = stop
        self._lock = threading.Lock()
        self._idle: list[_Idle] = []

    def range(self, path: str, start: int, end: int, *, object_bytes: int) -> Iterator[memoryview]:
        """Bytes `start` up to `end`; each buffer is good until the next one.

        Raises PeerError, or NotYetError for a part that the node is still to fetch itself.
        """
        headers = {"Range": f"bytes={start}-{end - 1}"}
        connection, response = self._ask(path, headers)
        whole = False
        try:
            self._check_status(path, response.status, 206)
            wanted = f"bytes {start}-{end - 1}/{object_bytes}"
            if (got := response.headers.get("Content-Range", "")) != wanted:
                raise PeerError(f"{self.node} sent {got[:80]!r} of {path}, not {wanted!r}", lasting=True)
            response.take_time()
            yield from self._body(path, response, end - start)
            whole = True
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(path, error) from error
        finally:
            self._done(connection, response, reusable=whole)

    def small(self, path: str, max_bytes: int) -> bytes:
        """A whole object of at most `max_bytes`. Raises PeerError."""
        connection, response = self._ask(path, {})
        whole = False
        try:
            self._check_status(path, response.status, 200)
            if response.length is None or response.length > max_bytes:
                raise PeerError(f"{path} at {self.node} exceeds {max_bytes} bytes", lasting=True)
            raw = b"".join(bytes(piece) for piece in self._body(path, response, response.length))
            whole = True
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(path, error) from error
        finally:
            self._done(connection, response, reusable=whole)
        return raw

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.connection.close()

    def _ask(self, path: str, headers: dict[str, str]) -> tuple[_Connection, _Response]:
        """Send the request and read the answer's head; once more if a kept connection had died."""
        self._check_stop(path)
        kept = self._take()
        for connection in (kept, _Connection(self._address, self.node, self._tls)):
            if connection is None:
                continue
            try:
                connection.request("GET", f"/{path}", headers=headers)
                return connection, cast("_Response", connection.getresponse())
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if connection is not kept or isinstance(error, TimeoutError):
                    raise self._lost(path, error) from error
        raise PeerError(f"{self.node} was not asked for {path}")

    def _check_status(self, path: str, status: int, wanted: int) -> None:
        if status == NOT_YET:
            raise NotYetError(f"{self.node} has not come to that part of {path}")
        if status != wanted:
            raise PeerError(
                f"{self.node} answered {path} with {status}, not {wanted}",
                lasting=status not in (429, 503),
                answered=status,
            )

    def _body(self, path: str, response: _Response, wanted: int) -> Iterator[memoryview]:
        if response.length != wanted:
            raise PeerError(
                f"{self.node} promises {response.length} bytes of {path}, {wanted} were asked for",
                lasting=True,
            )
        # The response's own `readinto` waits until all of a piece is there: a drip would go unseen.
        stream: io.BufferedReader = response.fp
        piece = memoryview(bytearray(min(PIECE_BYTES, wanted)))
        while wanted:
            got, until_ms = 0, clock.now_ms() + PIECE_MS
            room = min(len(piece), wanted)
            while got < room and clock.now_ms() < until_ms:
                count = stream.readinto1(piece[got:room])
                if not count:
                    raise PeerError(f"{self.node} sent {wanted - got} bytes of {path} less than it promised")
                got += count
            wanted -= got
            self._check_stop(path)
            yield piece[:got]

    def _take(self) -> _Connection | None:
        youngest_ms = clock.now_ms() - IDLE_MS
        with self._lock:
            stale = [one for one in self._idle if one.since_ms < youngest_ms]
            self._idle = [one for one in self._idle if one.since_ms >= youngest_ms]
            taken = self._idle.pop().connection if self._idle else None
        for one in stale:
            one.connection.close()
        return taken

    def _done(self, connection: _Connection, response: _Response, *, reusable: bool) -> None:
        response.close()
        if reusable and connection.sock is not None:
            with self._lock:
                if len(self._idle) < MAX_IDLE and not self._stop.is_set():
                    self._idle.append(_Idle(connection, clock.now_ms()))
                    return
        connection.close()

    def _check_stop(self, path: str) -> None:
        if self._stop.is_set():
            raise PeerError(f"{path} was not fetched: the node stops")

    def _lost(self, path: str, error: Exception) -> PeerError:
        why = str(error)[:200] or type(error).__name__
        return PeerError(f"{path} could not be fetched from {self.node}: {why}")


class Peers:
    """Other nodes by name and address. Without TLS papers there are none."""

    def __init__(self, tls: ssl.SSLContext | None, stop: threading.Event) -> None:
        self._tls = tls
        self._stop = stop
        self._known: dict[tuple[str, str], Peer] = {}

    def at(self, node: str, blobs: str) -> Peer | None:
        """The node whose blob server listens at `blobs` (host:port); None if that can't be asked."""
        if self._tls is None or _NODE.fullmatch(node) is None:
            return None
        key = node, blobs
        if key not in self._known:
            try:
                address = host_port(blobs)
            except ValueError:
                return None
            if len(self._known) >= MAX_PEERS:
                self._known.pop(next(iter(self._known))).close()
            self._known[key] = Peer(node, address, self._tls, self._stop)
        return self._known[key]

    def close(self) -> None:
        """Close every kept connection."""
        for peer in self._known.values():
            peer.close()
