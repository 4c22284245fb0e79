"""What a client may ask for in its headers, read into values. Pure.

A header that can't be read is refused with what it takes; none is guessed. What the wishes
lead to is `edge.policy.route`'s business.
"""

import re
import zlib
from typing import Final, TypeVar

import msgspec

from edge.errors import EdgeError, Reason, Source
from edge.http.headers import Headers
from edge.policy.facts import Cold

MAX_PLACES: Final = 8
_DIGITS: Final = frozenset("0123456789")
_PLACE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SESSION: Final = re.compile(r"[\x21-\x7e]{1,256}")
_COLD: Final = {str(one): one for one in Cold}
_BOOLEAN: Final = {"?1": True, "1": True, "true": True, "?0": False, "0": False, "false": False}
#: Ends a list of preferred places: anywhere else is as good.
_ANYWHERE: Final = "any"

T = TypeVar("T")


class Wishes(msgspec.Struct, frozen=True, gc=False):
    """One request's wishes; places are regions or POPs. `deadline_ms` counts from its head."""

    deadline_ms: float
    prefer: tuple[str, ...] = ()
    force: frozenset[str] = frozenset()
    cold: Cold = Cold.FAR
    reject_if_busy: bool = False
    session: int | None = None


def read(headers: Headers, *, deadline_ms: float, max_deadline_ms: float) -> Wishes:
    """The wishes of one request. Raises EdgeError(BAD_REQUEST) that names the header and what it takes."""
    get = headers.get
    given = get("edge-deadline-ms")
    if given is not None:
        deadline_ms = min(_milliseconds(given), max_deadline_ms)
    prefer, force = get("edge-prefer-region"), get("edge-force-region")
    cold, busy, session = get("edge-cold"), get("edge-reject-if-busy"), get("edge-session")
    if prefer is None and force is None and cold is None and busy is None and session is None:
        return Wishes(deadline_ms)
    return Wishes(
        deadline_ms,
        () if prefer is None else _places("Edge-Prefer-Region", prefer),
        frozenset() if force is None else frozenset(_places("Edge-Force-Region", force)),
        Cold.FAR if cold is None else _word("Edge-Cold", cold.strip(), _COLD),
        busy is not None and _word("Edge-Reject-If-Busy", busy.strip().lower(), _BOOLEAN),
        None if session is None else _session(session),
    )


def _milliseconds(given: str) -> int:
    if not given or len(given) > 9 or not _DIGITS.issuperset(given) or int(given) == 0:
        raise _bad("Edge-Deadline-Ms is no whole number of milliseconds above 0")
    return int(given)


def _places(header: str, given: str) -> tuple[str, ...]:
    places = [token.strip(" \t") for token in given.split(",")]
    if len(places) > MAX_PLACES or not all(_PLACE.fullmatch(place) for place in places):
        raise _bad(f"{header} takes up to {MAX_PLACES} regions or POPs, as in eu,us")
    if _ANYWHERE in places:
        places = places[: places.index(_ANYWHERE)]
    return tuple(places)


def _word(header: str, given: str, words: dict[str, T]) -> T:
    found = words.get(given)
    if found is None:
        raise _bad(f"{header} takes one of {', '.join(words)}")
    return found


def _session(given: str) -> int:
    if _SESSION.fullmatch(given) is None:
        raise _bad("Edge-Session takes 1 to 256 visible characters")
    return zlib.crc32(given.encode())


def _bad(message: str) -> EdgeError:
    return EdgeError(Reason.BAD_REQUEST, message, source=Source.DOWNSTREAM)
