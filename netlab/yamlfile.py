"""YAML text to plain values, with the line of every setting kept for the errors.

It reads the words of YAML 1.2's core schema: only `true` and `false` are booleans, so a POP may
be called `no` and a city `on`, and `12:30` is text. Duplicate settings are errors. It refuses to
know what the settings mean: topology.py does.
"""

import re
from typing import Any, Final

import yaml
from yaml.reader import ReaderError

#: Values in one file; a handful of aliases could otherwise unfold into millions.
MAX_VALUES: Final = 20_000
#: Of a whole number: what every reader of such a file can hold.
MAX_BITS: Final = 63
#: Characters of a value in an error.
MAX_SHOWN: Final = 40

Path = tuple[str | int, ...]


class YamlError(ValueError):
    """The text can't be read as settings; `line` is 1-based."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with the YAML 1.2 core schema's idea of what a plain word is."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 -- PyYAML's own class attribute


def _words() -> None:
    def add(tag: str, pattern: str, first: str) -> None:
        _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))

    add("bool", r"^(?:true|false)$", "tf")
    add("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789")
    add("float", r"^[-+]?[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?$", "-+0123456789")
    _CoreLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""])


_words()


class Settings:
    """The values of one file and where each of them stands."""

    def __init__(self, value: object, lines: dict[Path, int]) -> None:
        self.value = value
        self._lines = lines

    def line(self, path: Path) -> int:
        """1-based line of the setting at `path`, or of the nearest one above it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)


def read(text: str) -> Settings:
    """The settings in `text`. Raises YamlError."""
    try:
        return _read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(mark.line + 1 if mark else 1, f"is no YAML: {error.problem}") from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(
            line, f"is no YAML: {chr(error.character)!r} can't stand in a text; remove it"
        ) from error
    except RecursionError as error:
        raise YamlError(1, "is nested too deeply") from error


def _read(text: str) -> Settings:
    loader = _CoreLoader(text)
    try:
        root = loader.get_single_node()
        lines: dict[Path, int] = {}
        value = _value(loader, root, (), lines) if root is not None else None
    finally:
        loader.dispose()
    return Settings(value, lines)


def _value(loader: _CoreLoader, node: yaml.Node, path: Path, lines: dict[Path, int]) -> object:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(lines) > MAX_VALUES:
        raise YamlError(line, f"holds more than {MAX_VALUES} values")
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*path, index), lines) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError(line, "a setting's name must be a word")
            key = str(key_node.value)
            if key in found:
                raise YamlError(line, f"{key!r} is there twice; keep one of them")
            lines[*path, key] = line
            found[key] = _value(loader, value_node, (*path, key), lines)
        return found
    try:
        plain: object = loader.construct_object(node)
    except (ValueError, LookupError, AttributeError) as error:  # PyYAML's own, for what a `!!tag` promised
        kind = node.tag.rpartition(":")[2]
        raise YamlError(line, f"{_short(node.value)!r} can't be read as {kind}") from error
    if isinstance(plain, int) and plain.bit_length() > MAX_BITS:
        raise YamlError(line, f"{_short(node.value)!r} is too large: write a number below 2^{MAX_BITS}")
    return plain


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
