"""Data by reference: how a request names an object in the place of data. Pure.

    OIP   {"inputs": [{"name": "x", "shape": [1, 256], "datatype": "FP32", "parameters": {"object": "a/b"}}]}
    /run  {"input": {"object": "a/b"}}  or  {"input": [{"object": "a"}, "text"]}
          {"inputs": {"x": {"object": "a"}}}

An object is what its tensor would be on the wire: little-endian values, row-major; of BYTES one
element byte for byte, or of several the binary layout of OIP (each after its length). `names_in`
is for who must have the objects ready before the tensors are decoded, and decodes nothing. Knows
no place where objects lie: the decoder is handed a Reader.
"""

import re
from collections.abc import Callable
from typing import Final

from edge.errors import EdgeError, bad_input

#: The JSON of a request that names objects is no longer; nothing is looked for in longer ones.
LOOK_BYTES: Final = 16 * 1024
#: Distinct objects of one request.
MAX_OBJECTS: Final = 8
NAME_MAX_CHARS: Final = 512

OBJECT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,7}")
"""Up to eight segments; use `is_object_name`."""

#: The bytes of an object by its name. Raises EdgeError.
Reader = Callable[[str], bytes]

_KEY: Final = b'"object"'
# Inside a JSON string every quote is escaped, so this finds keys of valid JSON and nothing else.
_REFERENCE: Final = re.compile(rb'"object"[ \t\r\n]*:[ \t\r\n]*"([A-Za-z0-9][A-Za-z0-9._/-]{0,511})"')
_BEGINS_WITH_INPUT: Final = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"inputs?"[ \t\r\n]*:')


def is_object_name(text: str) -> bool:
    """May `text` name an object?"""
    return len(text) <= NAME_MAX_CHARS and OBJECT_NAME.fullmatch(text) is not None


def names_in(body: bytes, protocol: str, content_type: str, oip_json_bytes: int | None) -> tuple[str, ...]:
    """The objects that this body may name, each once; the decoder says which of them it needs.

    A bounded search: at most LOOK_BYTES are read, and only where JSON is expected. Text that looks
    like a reference costs a look-up and nothing else. Raises EdgeError(BAD_INPUT) past MAX_OBJECTS.
    """
    end = len(body) if oip_json_bytes is None else oip_json_bytes
    if end > LOOK_BYTES or body.find(_KEY, 0, end) < 0:
        return ()
    if protocol == "run" and not (_says_json(content_type) or _BEGINS_WITH_INPUT.match(body)):
        return ()
    found = dict.fromkeys([match[1].decode() for match in _REFERENCE.finditer(body, 0, end)])
    names = tuple([name for name in found if is_object_name(name)])
    if len(names) > MAX_OBJECTS:
        raise bad_input(f"the request names {len(names)} objects; at most {MAX_OBJECTS} are taken")
    return names


def _says_json(content_type: str) -> bool:
    name = content_type.partition(";")[0].strip().lower()
    return name == "application/json" or name.endswith("+json")


def checked_name(value: object, where: str) -> str:
    """`value` if it may name an object. Raises EdgeError(BAD_INPUT)."""
    if not isinstance(value, str) or not is_object_name(value):
        shown = repr(value[:81] if isinstance(value, str) else value)[:80]
        raise bad_input(
            f"{where} names the object {shown}; a name is up to 8 segments of letters, digits, '.', '_' and "
            "'-', each beginning with a letter or digit, with '/' between them"
        )
    return value


def none_here(name: str) -> bytes:
    """The Reader of who takes no objects."""
    raise unprepared(name)


def unprepared(name: str) -> EdgeError:
    """An object that `names_in` did not find in the request that names it."""
    return bad_input(
        f"the object {name!r} was not looked for: send the request without Content-Encoding, its JSON in "
        f'at most {LOOK_BYTES} bytes and the reference as plain {{"object": "{name}"}}; over /run it begins '
        'with {"input" or says Content-Type: application/json'
    )
