"""The client's end of a TLS connection that opens many records at a time.

`ssl.SSLSocket` asks the kernel twice for each record of 16 KiB, and is asked itself once for each. Here
one call takes what the kernel has by now and opens all of it into the reader's buffer. Blocks, with the
timeouts of the socket it is given. Looks enough like a socket for `http.client`; knows no HTTP.
"""

import contextlib
import io
import socket
import ssl
from typing import Any, Final

#: What is taken from the kernel at a time, and kept for each connection.
SEALED_BYTES: Final = 256 * 1024
#: A reader of heads asks for so much.
_BUFFER_BYTES: Final = 8 * 1024


class TlsStream:
    """One connection, once `name` has proved to be at its other end. For one thread at a time."""

    def __init__(self, plain: socket.socket, tls: ssl.SSLContext, name: str) -> None:
        """Raises ssl.SSLError, or OSError; `plain` is the caller's to close then."""
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._sealed = memoryview(bytearray(SEALED_BYTES))
        self._readers = 0
        self._closed = False
        self._shake()

    def _shake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError:
                # The other side is told why.
                with contextlib.suppress(OSError):
                    self._flush()
                raise
            else:
                self._flush()
                return

    def sendall(self, data: bytes) -> None:
        """All of it leaves for the kernel."""
        self._tls.write(data)
        self._flush()

    def readinto(self, buffer: Any) -> int:
        """Fill with what is there, waiting only for the first byte of it; 0 at the end of the stream."""
        room, got = memoryview(buffer), 0
        while got < len(room):
            try:
                count = self._tls.read(len(room) - got, room[got:])
            except ssl.SSLWantReadError:
                if got:
                    break
                self._flush()
                self._fill()
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                break
            else:
                if not count:
                    break
                got += int(count)
        return got

    def _fill(self) -> None:
        count = self._plain.recv_into(self._sealed)
        if count:
            self._incoming.write(self._sealed[:count])
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._plain.sendall(self._outgoing.read())

    def settimeout(self, timeout_s: float | None) -> None:
        """For each wait on the network from now on."""
        self._plain.settimeout(timeout_s)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What comes, buffered; the connection stays open until that is closed too."""
        self._readers += 1
        return io.BufferedReader(_Reader(self), _BUFFER_BYTES)

    def close(self) -> None:
        """Once nobody reads it any more."""
        self._closed = True
        self._close_unused()

    def reader_closed(self) -> None:
        """One of those that `makefile` gave is."""
        self._readers -= 1
        self._close_unused()

    def _close_unused(self) -> None:
        if self._closed and self._readers <= 0:
            self._plain.close()


class _Reader(io.RawIOBase):
    def __init__(self, stream: TlsStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._stream.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._stream.reader_closed()
