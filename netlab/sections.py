"""A section of a planet's file to a struct, with errors that say where and what to write instead.

Each section is converted by itself, so that every error names the file, the line, the setting
and the next step. It refuses to know which sections there are and what they mean.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from netlab import yamlfile
from netlab.topology import unknown

T = TypeVar("T")

#: A name becomes part of an interface's name (15 bytes in all) and of a namespace's.
NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,11}")
#: Names of what the lab has itself: routers, cities, programs, a doctor's namespace, everything to heal.
TAKEN: Final = re.compile(r"(r|c|redis|doctor)-.*|wan|origin|host|all")
_AT: Final = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*?)`")
_MISSING: Final = re.compile(r"Object missing required field `(.*?)`")


class TopologyError(Exception):
    """The file can't be used; the text says where and what to write."""


class Sections:
    """The settings of one file; `name` stands in the errors."""

    def __init__(self, settings: yamlfile.Settings, name: str) -> None:
        self._settings = settings
        self._file = name

    def fail(self, path: yamlfile.Path, problem: str) -> TopologyError:
        """The error for the setting at `path`, with its line."""
        where = ".".join(str(part) for part in path) or "the file"
        return TopologyError(f"{self._file}:{self._settings.line(path)}: {where}: {problem}")

    def section(self, value: object, kind: type[T], path: yamlfile.Path) -> T:
        """`value`, which stands at `path`, as a struct that holds no other struct. Raises TopologyError."""
        try:
            return msgspec.convert(value, kind, strict=True)
        except msgspec.ValidationError as error:
            raise self._explained(str(error), kind, path) from error

    def check_name(self, name: str, path: yamlfile.Path) -> None:
        """Raises TopologyError for what can't be a name in the kernel."""
        if not NAME.fullmatch(name):
            raise self.fail(path, f"{name!r} is no name: write a-z, 0-9 and -, at most 12, a letter first")

    def check_place(self, name: str, path: yamlfile.Path) -> None:
        """As `check_name`, for a node or a city: its name is a namespace's, and people write it alone."""
        self.check_name(name, path)
        if TAKEN.fullmatch(name):
            raise self.fail(path, f"{name!r} is a name the lab uses itself: write another")

    def check_known(self, name: str, names: Sequence[str], kind: str, path: yamlfile.Path) -> None:
        """Raises TopologyError for a name that is not there."""
        if name not in names:
            raise self.fail(path, unknown(name, names, kind))

    def number(self, value: float, low: float, high: float, path: yamlfile.Path) -> float:
        """The value, within its bounds. Raises TopologyError."""
        if not low <= value <= high:
            raise self.fail(path, f"{value:g} is out of range: write a number from {low:g} to {high:g}")
        return value

    def _explained(self, message: str, kind: type, path: yamlfile.Path) -> TopologyError:
        at = _AT.search(message)
        text = message[: at.start()] if at else message
        keys = re.findall(r"[^.\[\]]+", at[1]) if at else []
        path = (*path, *(int(key) if key.isdigit() else key for key in keys))
        if found := _UNKNOWN.match(text):
            known = [field.name for field in msgspec.structs.fields(kind)]
            near = difflib.get_close_matches(found[1], known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            return self.fail((*path, found[1]), f"unknown setting; {hint}")
        if found := _MISSING.match(text):
            return self.fail(
                (*path, found[1]), "is missing; netlab/topologies/planet.yaml shows what to write"
            )
        if text == "Expected `object`, got `null`":
            text = "is empty; netlab/topologies/planet.yaml shows what to write"
        if text.startswith("Expected `object`"):
            text += ": write settings below it, as netlab/topologies/planet.yaml does"
        if text.startswith("Expected `bool`"):
            text += ": write true or false"
        if "got `bool`" in text and "Expected `str`" in text:
            text += '; put the word in quotes, as in "true"'
        return self.fail(path, text)
