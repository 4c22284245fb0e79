"""Content codings: gzip and deflate in, and out where the client asks for them.

`inflate` never holds more than its cap: it stops at the first byte too many, so a bomb costs
what an honest body costs. Knows no headers beyond the two values it is given.
"""

import gzip
import zlib
from typing import Final

from edge.errors import EdgeError, Reason, Source, bad_input
from edge.oip.strict import show

RATIO_FLOOR_BYTES: Final = 64 * 1024
MIN_BYTES: Final = 1024
LEVEL: Final = 1
"""Of JSON tensors, level 6 saves a tenth more than level 1 for four times the CPU."""

_GZIP_WBITS: Final = 31
_ZLIB_WBITS: Final = 15
_RAW_WBITS: Final = -15
_CODINGS: Final = ("gzip", "deflate")
_ALIASES: Final = {"x-gzip": "gzip"}


def inflate(body: bytes, encoding: str, *, max_bytes: int, max_ratio: float = 20.0) -> bytes:
    """`body` with its Content-Encoding undone; the same object for "" and "identity".

    At most `max_bytes`, and at most `max_ratio` times the body's own size once that is above
    64 KiB. "deflate" is zlib (RFC 9110, 8.4.1.2) or, as some clients send it, bare deflate.
    One gzip member only. Raises EdgeError: BAD_MEDIA_TYPE for another coding or several,
    TOO_LARGE past a cap, BAD_INPUT for what is corrupt, cut short or followed by more.
    """
    name = encoding.strip().lower()
    name = _ALIASES.get(name, name)
    if name in ("", "identity"):
        return body
    if name not in _CODINGS:
        raise EdgeError(
            Reason.BAD_MEDIA_TYPE,
            f"Content-Encoding {show(encoding)} is not supported; send gzip, deflate, or no coding",
            source=Source.DOWNSTREAM,
        )
    limit = min(max_bytes, max(RATIO_FLOOR_BYTES, int(len(body) * max_ratio)))
    inflater = zlib.decompressobj(_GZIP_WBITS if name == "gzip" else _deflate_wbits(body))
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise bad_input(f"the body is not valid {name}: {error}") from error
    if len(plain) > limit:
        raise EdgeError(
            Reason.TOO_LARGE,
            f"the {name} body of {len(body)} bytes grows past {limit} bytes; "
            f"at most {max_bytes} bytes and {max_ratio:g} times its size are taken",
            source=Source.DOWNSTREAM,
        )
    if not inflater.eof:
        raise bad_input(f"the {name} body is cut short")
    if inflater.unused_data:
        raise bad_input(f"{len(inflater.unused_data)} bytes follow the end of the {name} body")
    return plain


def _deflate_wbits(body: bytes) -> int:
    """Zlib or bare deflate? A zlib header says method 8 and is a multiple of 31 (RFC 1950, 2.2)."""
    is_zlib = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0
    return _ZLIB_WBITS if is_zlib else _RAW_WBITS


def deflate_for(
    accept_encoding: str | None, body: bytes, *, min_bytes: int = MIN_BYTES
) -> tuple[bytes, str | None]:
    """`body` in the coding the client likes best, and its name for Content-Encoding.

    (body, None) where none was asked for, the body is under `min_bytes`, or coding does not
    make it smaller: every client reads a plain body (tritonclient looks at Content-Encoding,
    not at what it asked for). Never refuses: a body in no coding is better than a 406.
    """
    if not accept_encoding or len(body) < min_bytes:
        return body, None
    coding = choose(accept_encoding)
    if coding is None:
        return body, None
    coded = gzip.compress(body, LEVEL, mtime=0) if coding == "gzip" else zlib.compress(body, LEVEL)
    return (coded, coding) if len(coded) < len(body) else (body, None)


def choose(accept_encoding: str) -> str | None:
    """gzip, deflate, or None, by the weights of an Accept-Encoding value (RFC 9110, 12.5.3).

    Of equal weights gzip wins, and either wins over identity. Malformed parts count as absent.
    """
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        name, _, parameters = part.partition(";")
        name = name.strip()
        weights[_ALIASES.get(name, name)] = _weight(parameters)
    others = weights.get("*", 0.0)
    best, coding = max((weights.get(name, others), name) for name in _CODINGS)
    return coding if best > 0 and best >= weights.get("identity", 0.0) else None


def _weight(parameters: str) -> float:
    name, _, value = parameters.partition("=")
    if not name.strip():
        return 1.0
    try:
        weight = float(value) if name.strip() == "q" else 0.0
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0
