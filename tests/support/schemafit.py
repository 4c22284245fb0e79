"""Whether a value fits a JSON schema: as much of draft 2020-12 as netlab/schema.py writes.

An unknown keyword is an AssertionError, so that a schema says nothing that is not checked.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

_TYPES: Final[dict[str, Any]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
_WORDS: Final = frozenset({"$schema", "$defs", "title", "description", "default"})


def fits(value: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    """Whether it fits every keyword; `definitions` is what `$ref` means."""
    return all(
        _keyword(keyword, told, value, schema, definitions)
        for keyword, told in schema.items()
        if keyword not in _WORDS
    )


def _keyword(
    keyword: str, told: Any, value: Any, schema: Mapping[str, Any], known: Mapping[str, Any]
) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match keyword:
        case "$ref":
            return fits(value, known[told.removeprefix("#/$defs/")], known)
        case "anyOf":
            return any(fits(value, one, known) for one in told)
        case "not":
            return not fits(value, told, known)
        case "type":
            return isinstance(value, _TYPES[told]) and (told == "boolean" or not isinstance(value, bool))
        case "enum":
            return any(value == one and type(value) is type(one) for one in told)
        case "pattern":
            return not isinstance(value, str) or re.search(told, value) is not None
        case "minLength" | "maxLength":
            return not isinstance(value, str) or _within(keyword, len(value), told)
        case "minimum" | "maximum":
            return not is_number or _within(keyword, value, told)
        case "minItems" | "maxItems":
            return not isinstance(value, list) or _within(keyword, len(value), told)
        case "minProperties" | "maxProperties":
            return not isinstance(value, dict) or _within(keyword, len(value), told)
        case "prefixItems":
            return not isinstance(value, list) or all(
                fits(item, one, known) for item, one in zip(value, told, strict=False)
            )
        case "items":
            rest = value[len(schema.get("prefixItems", ())) :] if isinstance(value, list) else []
            return all(told is not False and fits(item, told, known) for item in rest)
        case "required":
            return not isinstance(value, dict) or all(name in value for name in told)
        case "properties":
            return not isinstance(value, dict) or all(
                fits(value[name], one, known) for name, one in told.items() if name in value
            )
        case "propertyNames":
            return not isinstance(value, dict) or all(fits(name, told, known) for name in value)
        case "additionalProperties":
            named = schema.get("properties", {})
            rest = (
                [one for name, one in value.items() if name not in named] if isinstance(value, dict) else []
            )
            return all(told is not False and fits(one, told, known) for one in rest)
        case _:
            raise AssertionError(f"nobody checks {keyword}")


def _within(keyword: str, size: float, bound: float) -> bool:
    return size >= bound if keyword.startswith("min") else size <= bound
