"""How much one client may ask of the front door: bytes, counts and times, each with its default.

It refuses to know how they are enforced: `edge.http` does that, and `edge.config` embeds this
record so that an operator can set each by its name. The number behind a name is the status
that a client gets when it goes past it.
"""

import msgspec


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the public plane. `*_bytes` are bytes, `*_ms` milliseconds."""

    max_connections: int = 4096
    """Open connections of this process, counted at accept, before TLS. Above: 503, Retry-After."""
    max_connections_per_client: int = 1024
    """The same for one source: an IPv4 address or an IPv6 /64. Above: 503, Retry-After."""
    max_line_bytes: int = 8192
    """The request line. Above: 414."""
    max_header_line_bytes: int = 8192
    """One header or trailer line. Above: 431."""
    max_header_bytes: int = 32768
    """All header lines of a request, or all trailers. Above: 431."""
    max_headers: int = 100
    """Header lines of a request. Above: 431."""
    max_body_bytes: int = 64 * 1024 * 1024
    """A request's body, as it travels. Above: 413, before it is read where Content-Length says so."""
    max_chunk_extension_bytes: int = 4096
    """Chunk extensions of one request in total. Above: 400."""
    max_chunk_overhead_bytes: int = 65536
    """Bytes of chunk framing beyond the bytes of data, so that tiny chunks can't burn a core. Above: 400."""
    max_trailers: int = 32
    """Trailer lines of a chunked request; they are counted and dropped. Above: 431."""
    header_timeout_ms: int = 10_000
    """From the connection, or a request's first byte, to the end of its headers. Above: 408."""
    body_min_bytes_per_s: int = 1024
    """What a body must arrive with, measured over `body_window_ms`. Below: 408."""
    body_window_ms: int = 10_000
    """The window of `body_min_bytes_per_s`; a body that stops is answered 408 within two of them."""
    idle_timeout_ms: int = 60_000
    """A kept-alive connection without a request is closed, silently."""
    write_timeout_ms: int = 20_000
    """A client that takes no byte of its answer for so long is reset."""
    tls_handshake_timeout_ms: int = 10_000
    """From accept to the end of the TLS handshake; the connection is counted meanwhile."""
    linger_ms: int = 2_000
    """How long unread input is discarded after a last answer, so that the client sees the answer."""
    max_pipelined: int = 32
    """Requests of one connection answered back to back before other connections get their turn."""
    max_buffered_bytes: int = 256 * 1024
    """Input held for one connection (unread body, or requests waiting); above it TCP pushes back."""
