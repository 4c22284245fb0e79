"""One tensor: from JSON text or raw bytes to an array, checked before anything is allocated.

`check_shape` compares a shape with the model's; `from_json` and `from_binary` then read
exactly the number of elements that shape promises. Knows nothing of requests, of which
tensors belong together, or of batches.
"""

import re
import struct
from collections.abc import Hashable
from functools import cache
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np

from edge.errors import EdgeError, bad_input
from edge.oip.datatypes import BYTES_PREFIX_BYTES, DATATYPES, Array, Datatype, TensorSpecLike, bytes_array
from edge.oip.strict import show

_LENGTH: Final = struct.Struct("<I")
_LIST_IN_LIST: Final = re.compile(rb"\s*\[\s*\[")


@cache
def _decoder(json_type: Hashable, depth: int) -> msgspec.json.Decoder[Any]:
    kind: Any = json_type
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def check_shape(spec: TensorSpecLike, shape: list[int]) -> int:
    """The number of elements of `shape`, if it fits `spec`. Raises EdgeError(BAD_INPUT)."""
    if len(shape) != len(spec.shape):
        raise bad_input(
            f"input {show(spec.name)} has {len(shape)} axes {show(shape)}; the model wants "
            f"{len(spec.shape)}: {list(spec.shape)} (-1 is any length)"
        )
    count = 1
    for dim, wanted in zip(shape, spec.shape, strict=True):
        if dim < 1:
            raise bad_input(f"input {show(spec.name)} has shape {show(shape)}; every axis must be at least 1")
        if wanted not in (-1, dim):
            raise bad_input(
                f"input {show(spec.name)} has shape {show(shape)}; the model wants {list(spec.shape)} "
                "(-1 is any length)"
            )
        count *= dim
    return count


def from_json(spec: TensorSpecLike, shape: list[int], count: int, data: bytes) -> Array:
    """The array in the JSON text `data`: flat, or nested as `shape` says, row-major either way.

    Raises EdgeError(BAD_INPUT): wrong type, a value the datatype can't hold, ragged rows,
    or another number of elements than `count`.
    """
    row = DATATYPES[spec.datatype]
    # n elements have n - 1 commas, nested or not, and strings may hold more: no list is built for a lie
    commas = data.count(b",")
    if commas + 1 < count or (commas + 1 > count and row.pack):
        raise bad_input(
            f"input {show(spec.name)} of shape {show(shape)} needs {count} values, its data has {commas + 1}"
        )
    return _pack(spec, row, tuple(shape), _values(spec, row, shape, count, data))


def _values(spec: TensorSpecLike, row: Datatype, shape: list[int], count: int, data: bytes) -> list[Any]:
    """Exactly `count` Python values of the row's JSON type."""
    try:
        values: list[Any] = _decoder(row.json_type, 1).decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        nested = _nested(spec, row, shape, data)
        if nested is None:
            raise bad_input(f"the data of input {show(spec.name)} is not {row.name}: {error}") from error
        values = nested
    if len(values) != count:
        raise bad_input(
            f"input {show(spec.name)} of shape {show(shape)} needs {count} values, its data has {len(values)}"
        )
    return values


def _nested(spec: TensorSpecLike, row: Datatype, shape: list[int], data: bytes) -> list[Any] | None:
    """The values of lists nested as deep as `shape` is long, flattened; None if it can't be that."""
    if len(shape) < 2 or _LIST_IN_LIST.match(data) is None:
        return None
    try:
        level: list[Any] = [_decoder(row.json_type, len(shape)).decode(data)]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise bad_input(
            f"the data of input {show(spec.name)} is neither flat nor nested as shape {show(shape)}: {error}"
        ) from error
    for dim in shape:
        for inner in level:
            if len(inner) != dim:
                raise bad_input(
                    f"the nested data of input {show(spec.name)} has a list of {len(inner)} where shape "
                    f"{show(shape)} says {dim}"
                )
        level = list(chain.from_iterable(level))
    return level


def _pack(spec: TensorSpecLike, row: Datatype, shape: tuple[int, ...], values: list[Any]) -> Array:
    if not row.pack:
        try:
            return bytes_array([value.encode() for value in values], shape)
        except UnicodeEncodeError as error:
            raise bad_input(f"the data of input {show(spec.name)} is not valid Unicode: {error}") from error
    try:
        packed = struct.pack(f"<{len(values)}{row.pack}", *values)
    except (struct.error, OverflowError) as error:
        raise bad_input(
            f"input {show(spec.name)} has the value {show(_misfit(row, values))}, which {row.name} can't hold"
        ) from error
    return np.frombuffer(packed, row.dtype).reshape(shape)


def _misfit(row: Datatype, values: list[Any]) -> object:
    """The first value that does not fit."""
    one = struct.Struct(f"<{row.pack}")
    for value in values:
        try:
            one.pack(value)
        except (struct.error, OverflowError):
            return value
    return None


def from_binary(
    spec: TensorSpecLike, shape: list[int], count: int, body: bytes, start: int, size_bytes: int
) -> Array:
    """The array in `body[start:start + size_bytes]`, without a copy where alignment allows.

    The caller has checked that the range lies inside the body. Raises EdgeError(BAD_INPUT).
    """
    row = DATATYPES[spec.datatype]
    if not row.pack:
        return bytes_array(_split_bytes(spec, count, body, start, start + size_bytes), tuple(shape))
    if size_bytes != count * row.dtype.itemsize:
        raise bad_input(
            f"input {show(spec.name)} of shape {show(shape)} and datatype {row.name} has "
            f"{count * row.dtype.itemsize} bytes; its binary_data_size is {size_bytes}"
        )
    if row.json_type is bool and np.frombuffer(body, np.uint8, count, start).max() > 1:
        raise bad_input(f"input {show(spec.name)} is BOOL and holds a byte that is neither 0 nor 1")
    array = np.frombuffer(body, row.dtype, count, start)
    if not array.flags.aligned:
        array = array.copy()
    return array.reshape(shape)


def from_object(spec: TensorSpecLike, shape: list[int], count: int, name: str, content: bytes) -> Array:
    """The array that the object called `name` holds: of BYTES one element, else as `from_binary`.

    Raises EdgeError(BAD_INPUT).
    """
    row = DATATYPES[spec.datatype]
    if not row.pack and count == 1:
        return bytes_array([content], tuple(shape))
    if row.pack and len(content) != count * row.dtype.itemsize:
        raise bad_input(
            f"input {show(spec.name)} of shape {show(shape)} and datatype {row.name} has "
            f"{count * row.dtype.itemsize} bytes; the object {name} has {len(content)}"
        )
    return from_binary(spec, shape, count, content, 0, len(content))


def _split_bytes(spec: TensorSpecLike, count: int, body: bytes, start: int, end: int) -> list[bytes]:
    if count * BYTES_PREFIX_BYTES > end - start:
        raise _bad_bytes(spec, f"{count} elements don't fit in {end - start} bytes")
    items: list[bytes] = []
    at = start
    for index in range(count):
        if at + BYTES_PREFIX_BYTES > end:
            raise _bad_bytes(spec, f"it ends before element {index} of {count}")
        (length,) = _LENGTH.unpack_from(body, at)
        at += BYTES_PREFIX_BYTES
        if length > end - at:
            raise _bad_bytes(spec, f"element {index} claims {length} bytes where {end - at} are left")
        items.append(body[at : at + length])
        at += length
    if at != end:
        raise _bad_bytes(spec, f"{end - at} bytes are left after its {count} elements")
    return items


def _bad_bytes(spec: TensorSpecLike, what: str) -> EdgeError:
    return bad_input(f"the binary data of input {show(spec.name)} is not BYTES: {what}")
