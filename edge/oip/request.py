"""The body of `POST /v2/models/{model}/infer` -> named arrays, all of it checked.

Protocol: open-inference-protocol `inference_rest.md`, and Triton's binary tensor extension
(`extension_binary_data.md`): JSON of `Inference-Header-Content-Length` bytes, then the raw
tensors in the order of `inputs`; an input may name an object instead (`edge.oip.objects`).
Everything is compared with the model's own specs, so what comes out can be run as it is. Knows
no HTTP and no model beyond these specs.

Not supported, and said so with 400: sequences, shared memory, classification. Other
parameters that are not known are ignored, as the protocol asks.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from edge.errors import bad_input
from edge.oip import tensor
from edge.oip.datatypes import NamedArray, TensorSpecLike
from edge.oip.objects import Reader, checked_name, none_here
from edge.oip.strict import decode, refuse_duplicate_keys, show

ID_MAX_BYTES: Final = 256

# values as the protocol has them; nothing nested
_Values = dict[str, bool | int | float | str | None]
_Parameters = _Values | UnsetType | None
_NO_DATA: Final = msgspec.Raw(b"")


class _Tensor(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = _NO_DATA
    parameters: _Parameters = UNSET


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: _Parameters = UNSET


class _Body(msgspec.Struct, gc=False):
    inputs: list[_Tensor]
    id: str | UnsetType | None = UNSET
    outputs: list[_Output] | UnsetType | None = UNSET
    parameters: _Parameters = UNSET
    model_name: Any = UNSET  # the KServe client sends it; the path has named the model already


_bodies: Final = msgspec.json.Decoder(_Body)


class RequestedOutput(msgspec.Struct, frozen=True, gc=False):
    """One output the client asked for. `classification` is always 0: anything else is refused."""

    name: str
    binary: bool
    classification: int = 0


class InferRequest(msgspec.Struct, frozen=True, gc=False):
    """A request that fits the model.

    `inputs` stand in the order of the model's specs. `outputs` is None where the client
    named none and gets all, binary if `binary_outputs`. `id` is "" where there was none.
    """

    id: str
    inputs: tuple[NamedArray, ...]
    outputs: tuple[RequestedOutput, ...] | None
    binary_outputs: bool


def decode_infer(
    body: bytes,
    *,
    json_bytes: int | None,
    inputs: Sequence[TensorSpecLike],
    outputs: Sequence[TensorSpecLike],
    max_batch: int,
    batch_axis: int | None,
    read_object: Reader = none_here,
) -> InferRequest:
    """Read one request; `json_bytes` is the value of Inference-Header-Content-Length, if sent.

    `inputs` and `outputs` are the model's. Memory: at most what the bytes of the body and of the
    objects amount to (a JSON number of two characters becomes about 40 bytes for a moment). Raises
    EdgeError(BAD_INPUT) that names the tensor and the value, and what `read_object` raises.
    """
    head = body
    if json_bytes is not None:
        if not 1 <= json_bytes <= len(body):
            raise bad_input(
                f"Inference-Header-Content-Length is {json_bytes}; it must be the size of the JSON, "
                f"from 1 to the {len(body)} bytes of the body"
            )
        head = body[:json_bytes]
    parsed = decode(_bodies, head)
    refuse_duplicate_keys(head, _keys(parsed))
    parameters = parsed.parameters or {}
    if parameters:
        _refuse_sequence(parameters)
    binary_outputs = _flag(parameters, "binary_data_output", default=False)
    return InferRequest(
        id=_request_id(parsed.id),
        inputs=_inputs(parsed.inputs, inputs, body, len(head), max_batch, batch_axis, read_object),
        outputs=_outputs(parsed.outputs, outputs, binary_outputs) if parsed.outputs else None,
        binary_outputs=binary_outputs,
    )


def _inputs(
    given: list[_Tensor],
    specs: Sequence[TensorSpecLike],
    body: bytes,
    tail_start: int,
    max_batch: int,
    batch_axis: int | None,
    read_object: Reader,
) -> tuple[NamedArray, ...]:
    by_name = {spec.name: spec for spec in specs}
    read: dict[str, NamedArray] = {}
    at = tail_start
    batch: int | None = None
    for one in given:
        spec = by_name.get(one.name)
        if spec is None:
            raise bad_input(f"the model has no input {show(one.name)}; it has {show(list(by_name))}")
        if one.name in read:
            raise bad_input(f"input {show(one.name)} is given twice")
        if one.datatype != spec.datatype:
            raise bad_input(
                f"input {show(one.name)} has datatype {show(one.datatype)}; the model wants {spec.datatype}"
            )
        count = tensor.check_shape(spec, one.shape)
        if batch_axis is not None:
            batch = _batch(one.name, one.shape[batch_axis], batch, max_batch)
        data = bytes(one.data)
        size_bytes = _binary_size(one)
        if (name := _object_name(one, data, size_bytes)) is not None:
            array = tensor.from_object(spec, one.shape, count, name, read_object(name))
        elif size_bytes is None:
            if not data or data == b"null":
                raise bad_input(f"input {show(one.name)} has neither data nor binary_data_size")
            array = tensor.from_json(spec, one.shape, count, data)
        else:
            if data and data != b"null":
                raise bad_input(
                    f"input {show(one.name)} has both data and binary_data_size; send one of them"
                )
            if size_bytes > len(body) - at:
                raise bad_input(
                    f"input {show(one.name)} has binary_data_size {size_bytes}, but {len(body) - at} "
                    "bytes follow the JSON for it; is Inference-Header-Content-Length set and right?"
                )
            array = tensor.from_binary(spec, one.shape, count, body, at, size_bytes)
            at += size_bytes
        read[one.name] = NamedArray(one.name, one.datatype, array)
    if at != len(body):
        raise bad_input(f"{len(body) - at} bytes follow the JSON that no input's binary_data_size claims")
    if len(read) != len(by_name):
        raise bad_input(f"inputs are missing: {show([name for name in by_name if name not in read])}")
    return tuple(read.values()) if len(read) == 1 else tuple(read[spec.name] for spec in specs)


def _batch(name: str, size: int, before: int | None, max_batch: int) -> int:
    if size > max_batch:
        raise bad_input(f"input {show(name)} has a batch of {size}; this model takes at most {max_batch}")
    if before is not None and before != size:
        raise bad_input(f"input {show(name)} has a batch of {size}, the input before it has {before}")
    return size


def _binary_size(one: _Tensor) -> int | None:
    if not one.parameters:
        return None
    _refuse_shared_memory(one.name, one.parameters)
    size = one.parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise bad_input(
            f"input {show(one.name)} has binary_data_size {show(size)}; it must be a number of bytes"
        )
    return size


def _object_name(one: _Tensor, data: bytes, size_bytes: int | None) -> str | None:
    """The object that this input names in the place of data; None if it names none."""
    if not one.parameters or (given := one.parameters.get("object")) is None:
        return None
    if size_bytes is not None or (data and data != b"null"):
        raise bad_input(f"input {show(one.name)} names an object and has data too; send one of them")
    return checked_name(given, f"input {show(one.name)}")


def _outputs(
    given: list[_Output], specs: Sequence[TensorSpecLike], binary_outputs: bool
) -> tuple[RequestedOutput, ...]:
    known = {spec.name for spec in specs}
    wanted: dict[str, RequestedOutput] = {}
    for one in given:
        if one.name not in known:
            raise bad_input(f"the model has no output {show(one.name)}; it has {show(sorted(known))}")
        if one.name in wanted:
            raise bad_input(f"output {show(one.name)} is asked for twice")
        parameters = one.parameters or {}
        _refuse_shared_memory(one.name, parameters)
        if parameters.get("classification", 0) != 0:
            raise bad_input(
                f"output {show(one.name)} asks for classification, which is not supported; ask for the tensor"
            )
        binary = _flag(parameters, "binary_data", default=binary_outputs)
        wanted[one.name] = RequestedOutput(one.name, binary)
    return tuple(wanted.values())


def _request_id(given: str | UnsetType | None) -> str:
    if not isinstance(given, str):
        return ""
    # length first: isprintable and encode read the whole string
    if len(given) > ID_MAX_BYTES or not given.isprintable() or len(given.encode()) > ID_MAX_BYTES:
        raise bad_input(f"the id {show(given)} must be printable and at most {ID_MAX_BYTES} bytes long")
    return given


def _flag(parameters: _Values, name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise bad_input(f"the parameter {name} is {show(value)}; it must be true or false")
    return value


def _refuse_sequence(parameters: _Values) -> None:
    if parameters.get("sequence_id") not in (None, 0, ""):
        raise bad_input("sequence_id is not supported: every request stands alone")


def _refuse_shared_memory(name: str, parameters: _Values) -> None:
    for key in parameters:
        if key.startswith("shared_memory_"):
            raise bad_input(f"{key} of {show(name)} is not supported: send the tensor in the body")


def _keys(parsed: _Body) -> int:
    """How many distinct JSON keys the decoder has seen; unknown ones are not among them."""
    count = (
        1 + (parsed.id is not UNSET) + (parsed.model_name is not UNSET) + _parameter_keys(parsed.parameters)
    )
    for one in parsed.inputs:
        count += 3 + (one.data is not _NO_DATA) + _parameter_keys(one.parameters)
    if parsed.outputs is not UNSET:
        count += 1 + sum(1 + _parameter_keys(one.parameters) for one in parsed.outputs or ())
    return count


def _parameter_keys(parameters: _Parameters) -> int:
    return 0 if parameters is UNSET else 1 + len(parameters or ())
