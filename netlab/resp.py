"""One command to a Redis, one answer: the protocol (RESP2) over a socket that somebody made.

It refuses to know what commands mean, and keeps no connection: tests and `poplab` ask rarely.
"""

import socket
from collections.abc import Sequence
from io import BufferedReader
from typing import Final

MAX_ANSWER_BYTES: Final = 16 << 20
MAX_ITEMS: Final = 1_000_000
MAX_DEPTH: Final = 8

Value = str | int | list["Value"] | None


class RedisError(Exception):
    """Redis answered with an error; the text is its own."""


def ask(wire: socket.socket, user: str, password: str, words: Sequence[str]) -> Value:
    """Log in, ask, answer. Raises RedisError, OSError (TimeoutError where nobody answers in time).

    Source: Redis serialization protocol specification, RESP2.
    """
    with wire.makefile("rb") as reader:
        for command in (("AUTH", user, password), words):
            wire.sendall(_command(command))
            answer = _value(reader, MAX_DEPTH)
    return answer


def _command(words: Sequence[str]) -> bytes:
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _value(reader: BufferedReader, depth: int) -> Value:
    line = reader.readline(65536)
    if not line.endswith(b"\r\n") or depth == 0:
        raise ConnectionError(f"Redis closed, or said what is no answer: {line[:80]!r}")
    kind, text = line[:1], line[1:-2].decode(errors="replace")
    if kind == b"+":
        return text
    if kind == b"-":
        raise RedisError(text)
    if kind not in b":$*" or not text.removeprefix("-").isdecimal():
        raise ConnectionError(f"Redis said what is no answer: {line[:80]!r}")
    number = int(text)
    if kind == b":":
        return number
    if number < 0:
        return None
    if kind == b"$":
        return _bulk(reader, number)
    if number > MAX_ITEMS:
        raise ConnectionError(f"an answer of {number} items; at most {MAX_ITEMS} are read")
    return [_value(reader, depth - 1) for _ in range(number)]


def _bulk(reader: BufferedReader, size: int) -> str:
    if size > MAX_ANSWER_BYTES:
        raise ConnectionError(f"an answer of {size} bytes; at most {MAX_ANSWER_BYTES} are read")
    data = reader.read(size + 2)
    if len(data) != size + 2:
        raise ConnectionError("Redis closed in the middle of an answer")
    return data[:-2].decode(errors="replace")
