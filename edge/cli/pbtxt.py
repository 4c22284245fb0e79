"""The few fields of a Triton `config.pbtxt` that say what a model takes and gives. Pure, and strict.

Protobuf's text format as such files use it: `name: value`, `name { ... }`, `name [ ... ]`, strings,
numbers, words, `#` comments. Fields that are not needed are read over, whatever they hold; what is
needed and wrong is refused with its line. Bounded: a file of MAX_BYTES nests MAX_DEPTH deep at most.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 16
MAX_TENSORS: Final = 64
MAX_DIMS: Final = 16
MAX_DIM: Final = 1 << 40
MAX_BATCH: Final = 4096

_TOKEN: Final = re.compile(
    r"""(?P<blank>[ \t\r\n,;]+|\#[^\n]*)
      | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<word>[A-Za-z_][A-Za-z0-9_.]*)
      | (?P<number>-?(?:0[xX][0-9A-Fa-f]+|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?))
      | (?P<mark>[{}<>\[\]:])""",
    re.VERBOSE,
)
_CLOSES: Final = {"{": "}", "<": ">"}
#: TYPE_* of model_config.proto -> the Open Inference Protocol's names.
_TYPES: Final = {
    "TYPE_STRING": "BYTES",
    **{f"TYPE_{name}": name for name in ("BOOL", "FP16", "FP32", "FP64")},
    **{f"TYPE_{sign}INT{bits}": f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}


class PbtxtError(ValueError):
    """What is wrong, with its line; the message names neither file nor cure."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


class Tensor(NamedTuple):
    """One input or output; `dims` without the batch axis, -1 for any."""

    name: str
    datatype: str
    dims: tuple[int, ...]


class ModelConfig(NamedTuple):
    """`name` may be empty: then it is the folder's. `max_batch_size` 0: no batch axis."""

    name: str
    max_batch_size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def parse(raw: bytes) -> ModelConfig:
    """A whole file. Raises PbtxtError."""
    if len(raw) > MAX_BYTES:
        raise PbtxtError(1, f"it has {len(raw)} bytes; at most {MAX_BYTES} are read")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise PbtxtError(raw[: error.start].count(b"\n") + 1, "it is no UTF-8 text") from error
    fields = _Reader(text).message(depth=0)
    inputs = [_tensor(one) for one in fields.get("input", ())]
    outputs = [_tensor(one) for one in fields.get("output", ())]
    for side, tensors in (("input", inputs), ("output", outputs)):
        if len(tensors) > MAX_TENSORS:
            raise PbtxtError(1, f"it has {len(tensors)} {side}s; at most {MAX_TENSORS} are taken")
    batch = _one(fields, "max_batch_size")
    return ModelConfig(
        _text(name) if (name := _one(fields, "name")) is not None else "",
        _number(batch, 0, MAX_BATCH) if batch is not None else 0,
        tuple(inputs),
        tuple(outputs),
    )


_Value = _Token | dict[str, list["_Value"]]
_Fields = dict[str, list[_Value]]


class _Reader:
    """Tokens to fields; every value of a field is kept in order, messages as fields of their own."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next: _Token = next(self._tokens)

    def message(self, depth: int, closes: str = "") -> _Fields:
        """Up to the mark that closes it, or the end of the file."""
        if depth > MAX_DEPTH:
            raise PbtxtError(self._next.line, f"it nests deeper than {MAX_DEPTH}")
        fields: _Fields = {}
        while not (self._next.text == closes if closes else self._next.kind == "end"):
            name = self._take("word", "a field's name")
            colon = self._skip(":")
            values = fields.setdefault(name.text, [])
            if self._skip("["):
                while not self._skip("]"):
                    values.append(self._value(depth))
            elif colon or self._next.text in _CLOSES:
                values.append(self._value(depth))
            else:
                raise PbtxtError(
                    self._next.line, f"after {name.text} comes ':' or '{{', not {_show(self._next)}"
                )
        if closes:
            self._advance()
        return fields

    def _value(self, depth: int) -> _Value:
        if self._next.text in _CLOSES and self._next.kind == "mark":
            closes = _CLOSES[self._advance().text]
            return self.message(depth + 1, closes)
        if self._next.kind not in ("text", "word", "number"):
            raise PbtxtError(self._next.line, f"a value is missing before {_show(self._next)}")
        return self._advance()

    def _take(self, kind: str, what: str) -> _Token:
        if self._next.kind != kind:
            raise PbtxtError(self._next.line, f"{what} is expected, not {_show(self._next)}")
        return self._advance()

    def _skip(self, mark: str) -> bool:
        if self._next.kind == "mark" and self._next.text == mark:
            self._advance()
            return True
        return False

    def _advance(self) -> _Token:
        token = self._next
        if token.kind != "end":
            self._next = next(self._tokens)
        return token


def _tokens(text: str) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise PbtxtError(line, f"{text[at : at + 20]!r} can't be read")
        kind = str(found.lastgroup)
        if kind != "blank":
            yield _Token(kind, found[0], line)
        line += found[0].count("\n")
        at = found.end()
    yield _Token("end", "", line)


def _show(token: _Token) -> str:
    return "the end of the file" if token.kind == "end" else repr(token.text[:40])


def _one(fields: _Fields, name: str) -> _Value | None:
    values = fields.get(name, [])
    if len(values) > 1:
        raise PbtxtError(_line(values[1]), f"{name} is given twice")
    return values[0] if values else None


def _line(value: _Value) -> int:
    """Of a message the line of the first thing in it."""
    if isinstance(value, _Token):
        return value.line
    return min((_line(one) for values in value.values() for one in values), default=1)


def _text(value: _Value) -> str:
    if not isinstance(value, _Token) or value.kind != "text":
        raise PbtxtError(_line(value), "a name is a string in quotes")
    inner = value.text[1:-1]
    if "\\" in inner:
        raise PbtxtError(value.line, f"{value.text[:40]} has an escape; names have none")
    return inner


def _number(value: _Value, least: int, most: int) -> int:
    if isinstance(value, _Token) and re.fullmatch(r"-?[0-9]{1,13}", value.text):
        number = int(value.text)
        if least <= number <= most:
            return number
    shown = _show(value) if isinstance(value, _Token) else "a message"
    raise PbtxtError(_line(value), f"a whole number from {least} to {most} is expected, not {shown}")


def _tensor(value: _Value) -> Tensor:
    if isinstance(value, _Token):
        raise PbtxtError(value.line, f"an input or output is written in braces, not as {_show(value)}")
    line = _line(value)
    name, datatype, reshape = (_one(value, field) for field in ("name", "data_type", "reshape"))
    if name is None or datatype is None or "dims" not in value:
        raise PbtxtError(line, "an input or output needs name, data_type and dims")
    if reshape is not None:
        raise PbtxtError(line, "reshape is not supported: give the dims that the graph has")
    if not isinstance(datatype, _Token) or datatype.text not in _TYPES:
        shown = _show(datatype) if isinstance(datatype, _Token) else "a message"
        raise PbtxtError(line, f"data_type {shown} is none of {', '.join(sorted(_TYPES))}")
    dims = value["dims"]
    if len(dims) > MAX_DIMS:
        raise PbtxtError(line, f"{len(dims)} dims; at most {MAX_DIMS} are taken")
    return Tensor(_text(name), _TYPES[datatype.text], tuple(_number(dim, -1, MAX_DIM) for dim in dims))
