"""From what is wrong with a setting to the line of the file where it stands, and what to write.

Works on YAML nodes and on msgspec's one-line errors. It does not know which settings there
are: the struct that describes the file is handed in.
"""

import difflib
import re
from typing import Any, Final

import msgspec
import yaml

_PATH: Final = re.compile(r" - at (?:`key` in )?`\$\.?(.*)`$")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*?)`")
_MISSING: Final = re.compile(r"Object missing required field `(.*?)`")
_EXPECTED: Final = re.compile(r"Expected `(.*?)`, got `(.*?)`")
_IN_WORDS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list, as in [a, b]",
    "object": "settings, as in name: value",
    "null": "nothing",
}
_HINTS: Final = {
    "bool": "; YAML reads no, yes, on and off as true or false: put the word in quotes",
    "null": "; nothing stands behind the colon: write a value, or leave the setting out",
    "date": "; YAML reads this as a date: put it in quotes",
    "datetime": "; YAML reads this as a date: put it in quotes",
}


def explain(message: str, tree: Any, name: str, described_by: type[msgspec.Struct]) -> str:
    """msgspec's error as "file:line: setting: problem; what to write"."""
    at = _PATH.search(message)
    path = re.sub(r"\[(\d+)\]", r".\1", at[1] if at else "").strip(".")
    keys = [key for key in path.split(".") if key]
    text = message[: at.start()] if at else message
    if unknown := _UNKNOWN.match(text):
        keys.append(unknown[1])
        known = _fields_at(keys[:-1], described_by)
        near = difflib.get_close_matches(unknown[1], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{name}:{line_of(tree, keys)}: {'.'.join(keys)}: unknown setting; {hint}"
    if missing := _MISSING.match(text):
        line = line_of(tree, keys)
        keys.append(missing[1])
        return f"{name}:{line}: {'.'.join(keys)}: is missing; edge/node.yaml shows what to write"
    if expected := _EXPECTED.match(text):
        wanted, given = expected[1], expected[2]
        words = " or ".join(_IN_WORDS.get(kind.strip(), kind.strip()) for kind in wanted.split("|"))
        hint = _HINTS.get(given, "") or f", this is {_IN_WORDS.get(given, given)}"
        text = f"write {words}{hint}"
    elif "`key` in" in message:
        text = "a setting's name must be text: put it in quotes"
    return f"{name}:{line_of(tree, keys)}: {'.'.join(keys) or 'the file'}: {text}"


def line_of(tree: Any, keys: list[str]) -> int:
    """1-based line of the setting at `keys`, or of the nearest section above it."""
    node, line = tree, 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == key), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def twice(tree: Any) -> tuple[int, int, str] | None:
    """(line, line of the first, setting) of a setting that stands twice in one section.

    YAML's own loader keeps the last one and says nothing.
    """
    waiting, visited = [tree], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if seen.setdefault(str(key.value), line) != line:
                    return line, seen[key.value], key.value
                waiting.append(value)
    return None


def _fields_at(keys: list[str], described_by: type[msgspec.Struct]) -> list[str]:
    """Names of the settings of the section at `keys`."""
    kind: Any = described_by
    for key in keys:
        if not key.isdigit():
            kind = next(field.type for field in msgspec.structs.fields(kind) if field.name == key)
        arguments = [
            argument
            for argument in getattr(kind, "__args__", ())
            if isinstance(argument, type) and issubclass(argument, msgspec.Struct)
        ]
        if arguments and not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            kind = arguments[0]
    return [field.name for field in msgspec.structs.fields(kind)]
