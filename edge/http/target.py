"""A request target -> decoded path segments and a raw query, or the error it is answered with. Pure.

Strict on purpose: a path that two programs could read differently is refused here, so that nothing
behind the door has to agree with us on how to normalise. It knows no route.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from edge.errors import EdgeError, Reason, Source

_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*)+")
_PCHARS: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})+")
_QUERY: Final = re.compile(r"[!-~]*")
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{0,5})?")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f/\\]")


class Target(NamedTuple):
    """Where a request goes. `/` has no segments; a trailing slash is a last, empty segment."""

    path: tuple[str, ...]
    query: str
    """What follows the first `?`, as it came: not decoded."""


#: `OPTIONS *`: about the server, no path.
ASTERISK: Final = Target(("*",), "")


def _bad(message: str) -> EdgeError:
    return EdgeError(Reason.BAD_REQUEST, message, source=Source.DOWNSTREAM)


def parse_target(method: str, raw: str, hosts: frozenset[str]) -> Target:
    """Read origin-form, absolute-form for one of `hosts`, or `OPTIONS *`.

    `hosts` are names or addresses, lower case, without brackets.

    Raises EdgeError: BAD_REQUEST, or MISDIRECTED for an absolute-form of another host.
    """
    if not raw.startswith("/"):
        if raw == "*" and method == "OPTIONS":
            return ASTERISK
        raw = _origin_form(raw, hosts)
    path, _, query = raw.partition("?")
    if "#" in raw:
        raise _bad("the target has a fragment")
    if not _QUERY.fullmatch(query):
        raise _bad("the query has a character that must be percent-encoded")
    return Target(_segments(path), query)


def _origin_form(raw: str, hosts: frozenset[str]) -> str:
    found = _ABSOLUTE.fullmatch(raw)
    authority = None if found is None else _AUTHORITY.fullmatch(found[1])
    if found is None or authority is None:
        raise _bad("the target is neither a path nor an http URL")
    if authority[1].strip("[]").lower() not in hosts:
        raise EdgeError(
            Reason.MISDIRECTED, "the target names a host that is not served here", source=Source.DOWNSTREAM
        )
    rest = found[2]
    return rest if rest.startswith("/") else "/" + rest


@lru_cache(maxsize=1024)
def _segments(path: str) -> tuple[str, ...]:
    if _PLAIN.fullmatch(path):
        return tuple(path[1:].split("/"))
    if path == "/":
        return ()
    if not _PCHARS.fullmatch(path):
        raise _bad("the path has a character that must be percent-encoded, or a broken escape")
    raw_segments = path[1:].split("/")
    if "" in raw_segments[:-1]:
        raise _bad("the path has an empty segment")
    return tuple(_segment(raw) for raw in raw_segments)


def _segment(raw: str) -> str:
    try:
        segment = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise _bad("the path is not UTF-8 under its escapes") from None
    if segment in {".", ".."}:
        raise _bad("the path has a dot segment")
    if _CONTROL.search(segment):
        raise _bad("the path hides a slash, a backslash or a control character")
    return segment
