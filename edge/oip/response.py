"""Named arrays -> the body that answers `POST /v2/models/{model}/infer`.

JSON by default; outputs asked for as binary follow the JSON as raw bytes (Triton's binary
tensor extension), in the order of `outputs`. NaN and infinities are exact in binary; JSON
has no such numbers, so there they become `null` (numpy reads that as NaN). Knows no HTTP.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from edge.errors import EdgeError, Reason, Source, bad_input
from edge.oip.datatypes import DATATYPES, Array, NamedArray
from edge.oip.request import InferRequest
from edge.oip.strict import show

SHORT_FROM: Final = 64
_DIGITS: Final = {2: (4, 5), 4: (7, 9)}

_encoder: Final = msgspec.json.Encoder()
_LENGTH: Final = struct.Struct("<I")


def encode_infer(
    *, model: str, version: str, request: InferRequest, outputs: Sequence[NamedArray]
) -> tuple[bytes, int | None]:
    """The body, and the size of its JSON where binary tensors follow (else None).

    `outputs` are all that the model gave; those the client asked for are taken from them.
    Raises EdgeError(BAD_INPUT) if BYTES that are not UTF-8 were asked for as JSON, and
    EdgeError(INTERNAL) if an output the client asked for is not among `outputs`.
    """
    answered: list[dict[str, Any]] = []
    tails: list[bytes] = []
    for output, binary in _wanted(request, outputs):
        if binary:
            raw = to_binary(output)
            tails.append(raw)
            answered.append(
                {
                    "name": output.name,
                    "datatype": output.datatype,
                    "shape": output.array.shape,
                    "parameters": {"binary_data_size": len(raw)},
                }
            )
        else:
            answered.append(
                {
                    "name": output.name,
                    "datatype": output.datatype,
                    "shape": output.array.shape,
                    "data": to_json_values(output, output.array.reshape(-1)),
                }
            )
    document = {"model_name": model, "model_version": version, "outputs": answered}
    if request.id:
        document["id"] = request.id
    head = _encoder.encode(document)
    return (b"".join((head, *tails)), len(head)) if tails else (head, None)


def _wanted(request: InferRequest, outputs: Sequence[NamedArray]) -> list[tuple[NamedArray, bool]]:
    if request.outputs is None:
        return [(output, request.binary_outputs) for output in outputs]
    by_name = {output.name: output for output in outputs}
    chosen = []
    for asked in request.outputs:
        if asked.name not in by_name:
            raise EdgeError(
                Reason.INTERNAL,
                f"the model gave no output {show(asked.name)}; it gave {show(list(by_name))}",
                source=Source.UPSTREAM,
            )
        chosen.append((by_name[asked.name], asked.binary))
    return chosen


def to_binary(output: NamedArray) -> bytes:
    """Row-major little-endian bytes; BYTES as <u32 length><bytes> each."""
    row = DATATYPES[output.datatype]
    if row.pack:
        return np.ascontiguousarray(output.array, row.dtype).tobytes()
    parts: list[bytes] = []
    for item in output.array.reshape(-1).tolist():
        parts.append(_LENGTH.pack(len(item)))
        parts.append(item)
    return b"".join(parts)


def to_json_values(output: NamedArray, values: Array, *, short_from: int = SHORT_FROM) -> Any:
    """`values` (of `output`, in any shape) as nested lists or one scalar for msgspec to write."""
    row = DATATYPES[output.datatype]
    if not row.pack:
        return _texts(output.name, values.tolist())
    if row.is_float and row.dtype.itemsize < 8 and values.size >= short_from:
        values = shortest(values)
    return values.tolist()


def _texts(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(name, item) for item in value]
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise bad_input(
            f"output {show(name)} is not UTF-8 text, so JSON can't hold it; ask for it with binary_data: true"
        ) from error


def shortest(values: Array) -> Array:
    """FP16/FP32 values as FP64 of few decimal digits that still read back as the same value.

    Written as a double, a float32 has 17 digits. Rounded to 7 significant ones many read back
    exactly, to 9 nearly all of the others; the rest stays as it is. 384 numbers: 5.0 kB
    instead of 8.1 kB for 2.4 times the time (about +50 us); 16 numbers would save 140 bytes
    for 30 times the time, hence `SHORT_FROM`. Tried and lost, in times of plain writing:
    "%.9g" 5, str() of numpy scalars 12.
    """
    exact = values.astype(np.float64)
    few, many = _DIGITS[values.dtype.itemsize]
    with np.errstate(all="ignore"):  # 0, NaN and infinities fail both comparisons
        scale = 10.0 ** (few - 1 - np.floor(np.log10(np.abs(exact))))
        short = np.rint(exact * scale) / scale
        scale *= 10.0 ** (many - few)
        longer = np.rint(exact * scale) / scale
        longer = np.where(longer.astype(values.dtype) == values, longer, exact)
        return np.where(short.astype(values.dtype) == values, short, longer)
