"""Tensor datatypes of the Open Inference Protocol v2 and what each is in numpy.

The table below is the whole truth: a datatype that is not in it cannot be served. Source:
kserve/open-inference-protocol, "Tensor Data Types". BF16 is left out: numpy has no such
type. Knows nothing of JSON, of bodies, or of models.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


class NamedArray(msgspec.Struct, frozen=True, gc=False):
    """One tensor: its name, its OIP datatype, and its values in row-major order.

    BYTES is an object array of `bytes`. Arrays decoded from a body are read-only and may
    share its memory.
    """

    name: str
    datatype: str
    array: Array


class TensorSpecLike(Protocol):
    """What a model says of one input or output; -1 in `shape` is "any"."""

    @property
    def name(self) -> str:
        """Its name on the wire."""

    @property
    def datatype(self) -> str:
        """An OIP datatype."""

    @property
    def shape(self) -> tuple[int, ...]:
        """One entry per axis; -1 is any length."""


@dataclass(frozen=True, slots=True)
class Datatype:
    """One row of the table.

    `pack` is the letter of the `struct` module that writes one value and refuses what does
    not fit ("" for BYTES, which has no fixed size); `json_type` is what JSON must hold.
    """

    name: str
    dtype: np.dtype[np.generic]
    pack: str
    json_type: type

    @property
    def is_float(self) -> bool:
        """True for FP16, FP32, FP64."""
        return self.json_type is float


DATATYPES: Final[dict[str, Datatype]] = {
    row.name: row
    for row in (
        Datatype("BOOL", np.dtype(np.bool_), "?", bool),
        Datatype("UINT8", np.dtype("<u1"), "B", int),
        Datatype("UINT16", np.dtype("<u2"), "H", int),
        Datatype("UINT32", np.dtype("<u4"), "I", int),
        Datatype("UINT64", np.dtype("<u8"), "Q", int),
        Datatype("INT8", np.dtype("<i1"), "b", int),
        Datatype("INT16", np.dtype("<i2"), "h", int),
        Datatype("INT32", np.dtype("<i4"), "i", int),
        Datatype("INT64", np.dtype("<i8"), "q", int),
        Datatype("FP16", np.dtype("<f2"), "e", float),
        Datatype("FP32", np.dtype("<f4"), "f", float),
        Datatype("FP64", np.dtype("<f8"), "d", float),
        Datatype("BYTES", np.dtype(object), "", str),
    )
}
"""OIP name -> row. Binary tensors are little endian."""

OF_NUMPY: Final[dict[np.dtype[np.generic], str]] = {row.dtype: row.name for row in DATATYPES.values()}
"""numpy dtype -> OIP name; object arrays are BYTES."""

BYTES_PREFIX_BYTES: Final = 4
"""In a binary tensor each BYTES element is preceded by its length, unsigned 32 bit, little endian."""


def bytes_array(items: list[bytes], shape: tuple[int, ...]) -> Array:
    """An object array of `shape` that holds `items`; numpy alone would make an "S" array and drop zeros."""
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(shape)
