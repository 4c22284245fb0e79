"""Which request headers come in, and how the `Edge-*` answers are written.

Pure. It refuses to know routes, models and sockets. Names are the public API's; everything that is
not on a list here stops at the door.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Final

from edge.errors import EdgeError, Reason, Source

#: `Edge-*` request headers that clients may send; every other one is dropped, underscore twins too.
EDGE_REQUEST_HEADERS: Final = frozenset(
    {
        "edge-prefer-region",
        "edge-force-region",
        "edge-deadline-ms",
        "edge-reject-if-busy",
        "edge-cold",
        "edge-session",
    }
)
#: Read for an inference request, each as one value.
_INFERENCE_HEADERS: Final = frozenset(
    {
        "content-type",
        "content-encoding",
        "accept-encoding",
        "inference-header-content-length",
        "traceparent",
        "x-request-id",
    }
)
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "expect",
    }
)
#: A client that calls these "only for this connection" wants two readers to disagree.
_NOT_NOMINABLE: Final = frozenset(
    {"host", "authorization", "content-length", "content-type", "content-encoding", "cdn-loop"}
) | {"inference-header-content-length"}
#: Read by us as one value; twice is a request that two readers would read differently.
_SINGLE: Final = (
    _INFERENCE_HEADERS - {"accept-encoding"}
    | EDGE_REQUEST_HEADERS
    | {"authorization", "content-length", "host"}
)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_UNSAFE: Final = re.compile(r"[^\t\x20-\x7e]")


class _Rule(Enum):
    """What happens to a request header of this name."""

    MANY = "many"  # passes, any number of times
    SINGLE = "single"  # passes, once
    CONNECTION = "connection"  # names others to drop
    EXPECT = "expect"  # one value is known
    DROP = "drop"


@lru_cache(maxsize=512)
def _rule(raw_name: bytes) -> tuple[str, _Rule]:
    """The name as text and its rule; cached, since clients use few names."""
    name = raw_name.decode("ascii")
    if name == "connection":
        return name, _Rule.CONNECTION
    if name == "expect":
        return name, _Rule.EXPECT
    forged = name.startswith("edge-") and name not in EDGE_REQUEST_HEADERS
    if name in _HOP_BY_HOP or "_" in name or forged:
        return name, _Rule.DROP
    return name, _Rule.SINGLE if name in _SINGLE else _Rule.MANY


class Headers:
    """Request headers by lower-case name, in order of arrival, immutable."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, tuple[str, ...]]) -> None:
        self._values = values

    def get(self, name: str) -> str | None:
        """The first value of `name` (any case), or None."""
        values = self._values.get(name) or self._values.get(name.lower())
        return None if values is None else values[0]

    def getall(self, name: str) -> tuple[str, ...]:
        """Every value of `name` (any case), in order."""
        return self._values.get(name.lower(), ())

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for name, values in self._values.items():
            for value in values:
                yield name, value

    def __repr__(self) -> str:
        return f"Headers({list(self)!r})"


def _bad(message: str) -> EdgeError:
    return EdgeError(Reason.BAD_REQUEST, message, source=Source.DOWNSTREAM)


def admit(raw: Sequence[tuple[bytes, bytes]]) -> Headers:
    """Raw request headers (lower-case names) -> those the handler may see.

    Dropped: hop-by-hop and Connection-nominated ones, names with an underscore, `Edge-*` that no client
    may set. Raises EdgeError: BAD_EXPECTATION, or BAD_REQUEST for a repeated single header or a
    nomination of one that frames or authorises the request.
    """
    values: dict[str, tuple[str, ...]] = {}
    nominated: list[str] = []
    for raw_name, raw_value in raw:
        name, rule = _rule(raw_name)
        value = raw_value.decode()
        if rule is _Rule.MANY or rule is _Rule.SINGLE:
            if name not in values:
                values[name] = (value,)
            elif rule is _Rule.MANY:
                values[name] = (*values[name], value)
            else:
                raise _bad(f"the header {name} is repeated")
        elif rule is _Rule.CONNECTION:
            nominated += [token.strip(" \t").lower() for token in value.split(",")]
        elif rule is _Rule.EXPECT and value.lower() != "100-continue":
            raise EdgeError(
                Reason.BAD_EXPECTATION,
                "the only expectation met here is 100-continue",
                source=Source.DOWNSTREAM,
            )
    for name in nominated:
        if name in _NOT_NOMINABLE or name.startswith("edge-"):
            raise _bad("Connection may not nominate a header that frames, authorises or steers the request")
        values.pop(name, None)
    return Headers(values)


def request_id(given: str | None, fresh: str) -> str:
    """The client's `X-Request-Id` if it is 1 to 128 of `[A-Za-z0-9._-]`, else `fresh`."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else fresh


def edge_headers(
    *,
    pop: str | None = None,
    served_by: str | None = None,
    route: str | None = None,
    residency: str | None = None,
    server_timing_ms: Sequence[tuple[str, float]] = (),
    request_id: str | None = None,
    drop_reason: Reason | None = None,
    retry_after_s: int | None = None,
) -> list[tuple[str, str]]:
    """The given `Edge-*` answer headers, in one order. ValueError for what can't stand in a header."""
    named = (
        ("Edge-Pop", pop),
        ("Edge-Served-By", served_by),
        ("Edge-Route", route),
        ("Edge-Residency", residency),
        ("Edge-Request-Id", request_id),
        ("Edge-Drop-Reason", drop_reason),
    )
    headers = [(name, safe_value(value)) for name, value in named if value is not None]
    if server_timing_ms:
        headers.append(("Server-Timing", server_timing(server_timing_ms)))
    if retry_after_s is not None:
        headers.append(("Retry-After", str(retry_after_s)))
    return headers


def server_timing(parts_ms: Sequence[tuple[str, float]]) -> str:
    """(name, milliseconds) -> `route;dur=0.1, infer;dur=4.2` (W3C Server Timing)."""
    return ", ".join(
        f"{safe_value(name)};dur={dur:.3g}" if dur < 100 else f"{safe_value(name)};dur={dur:.0f}"
        for name, dur in parts_ms
    )


def safe_value(value: str) -> str:
    """`value` if it is visible ASCII, blanks and tabs; else ValueError: no CR, LF or NUL ever leaves."""
    if _UNSAFE.search(value):
        raise ValueError(f"{value!r} can't stand in a header")
    return str(value)
