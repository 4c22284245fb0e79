"""`POST /run/{model}`: the shapes for a person with curl.

| task | body in | JSON out |
|---|---|---|
| embedding | text, or `{"input": "..."}`, or `{"input": ["...", ...]}` | `embedding`, or `embeddings` |
| bytes-classification | bytes; as JSON only if the content type says so | `label` and `score`, or `results` |
| tensors | `{"input": numbers}` or `{"inputs": {name: numbers}}`, nested as the shape | `outputs` |

One item in, one item out; a list in, a list out. In JSON, `{"object": name}` may stand for a text
or a tensor (`edge.oip.objects`); a tensor's shape is then what its size says. Knows no HTTP
beyond the content type, and no tokenizer, label table or graph: those are the worker's.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from edge.errors import EdgeError, Reason, bad_input
from edge.oip import tensor
from edge.oip.datatypes import DATATYPES, NamedArray, TensorSpecLike, bytes_array
from edge.oip.objects import Reader, checked_name, none_here
from edge.oip.response import to_json_values
from edge.oip.strict import decode, refuse_duplicate_keys, show

MAX_LISTS: Final = 65_536
_SHORT_ALWAYS: Final = 0
_BEGINS_WITH_INPUT: Final = re.compile(rb'\s*\{\s*"input"\s*:')
_NOTHING: Final = msgspec.Raw(b"")


class _Body(msgspec.Struct, gc=False):
    input: msgspec.Raw = _NOTHING
    inputs: dict[str, msgspec.Raw] | None = None


class _Reference(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    object: str


_Text = str | _Reference
_bodies: Final = msgspec.json.Decoder(_Body)
_texts: Final[msgspec.json.Decoder[_Text | list[_Text]]] = msgspec.json.Decoder(_Text | list[_Text])
_references: Final = msgspec.json.Decoder(_Reference)
_numbers: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()
_encoder: Final = msgspec.json.Encoder()


class RunRequest(msgspec.Struct, frozen=True, gc=False):
    """Inputs in the order of the model's specs; `single` if one item came without a list around it."""

    inputs: tuple[NamedArray, ...]
    single: bool


def decode_run(
    body: bytes,
    content_type: str | None,
    *,
    task: str,
    inputs: Sequence[TensorSpecLike],
    max_batch: int,
    batch_axis: int | None,
    read_object: Reader = none_here,
) -> RunRequest:
    """Read the body of `POST /run/{model}`. Raises EdgeError(BAD_INPUT), and what `read_object` raises."""
    says_json = _is_json(content_type)
    match task:
        case "embedding":
            items, single = _embedding_items(body, says_json, read_object)
            if not all(items):
                raise bad_input('the text is empty; send it as the body, or as {"input": "..."}')
        case "bytes-classification":
            items, single = _text_items(body, read_object) if says_json else ([body], True)
        case "tensors":
            return _tensors(body, inputs, max_batch, batch_axis, read_object)
        case _:
            raise EdgeError(Reason.INTERNAL, f"task {show(task)} has no /run shape")
    if len(items) > max_batch:
        raise bad_input(f"the input has {len(items)} items; this model takes at most {max_batch} at once")
    array = bytes_array(items, (len(items),))
    return RunRequest((NamedArray(inputs[0].name, inputs[0].datatype, array),), single)


def _is_json(content_type: str | None) -> bool:
    name = (content_type or "").partition(";")[0].strip().lower()
    return name == "application/json" or name.endswith("+json")


def _embedding_items(body: bytes, says_json: bool, read_object: Reader) -> tuple[list[bytes], bool]:
    """JSON if it says so or is plainly meant as JSON; curl -d calls everything a form."""
    if says_json or _BEGINS_WITH_INPUT.match(body) or (body.lstrip().startswith(b"{") and _has_input(body)):
        return _text_items(body, read_object)
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise bad_input(f"the text is not valid UTF-8: {error}") from error
    return [body], True


def _has_input(body: bytes) -> bool:
    """Text may start with a brace: only what is JSON, within limits, and has "input" is not text."""
    try:
        return decode(_bodies, body).input is not _NOTHING
    except EdgeError:
        return False


def _text_items(body: bytes, read_object: Reader) -> tuple[list[bytes], bool]:
    parsed = _parsed(body)
    if parsed.input is _NOTHING:
        raise bad_input('the JSON has no "input"; send {"input": "text"} or {"input": ["text", "text"]}')
    value = decode(_texts, bytes(parsed.input), 'the value of "input"')
    texts = value if isinstance(value, list) else [value]
    if not texts:
        raise bad_input('"input" is an empty list; put at least one text in it')
    try:
        return [_item(text, read_object) for text in texts], not isinstance(value, list)
    except UnicodeEncodeError as error:
        raise bad_input(f'"input" is not valid Unicode: {error}') from error


def _item(text: _Text, read_object: Reader) -> bytes:
    return text.encode() if isinstance(text, str) else read_object(checked_name(text.object, '"input"'))


def _parsed(body: bytes) -> _Body:
    parsed = decode(_bodies, body)
    keys = (parsed.input is not _NOTHING) + (0 if parsed.inputs is None else 1 + len(parsed.inputs))
    refuse_duplicate_keys(body, keys)
    return parsed


def _tensors(
    body: bytes,
    specs: Sequence[TensorSpecLike],
    max_batch: int,
    batch_axis: int | None,
    read_object: Reader,
) -> RunRequest:
    given = _tensor_texts(_parsed(body), specs)
    read = [_tensor(spec, given[spec.name], batch_axis, read_object) for spec in specs]
    if batch_axis is None:
        return RunRequest(tuple(one for one, _ in read), single=False)
    batches = {one.array.shape[batch_axis] for one, _ in read}
    singles = {single for _, single in read}
    if len(batches) > 1 or len(singles) > 1:
        raise bad_input(f"the inputs disagree on the number of items: {sorted(batches)}")
    if max(batches) > max_batch:
        raise bad_input(f"the input has {max(batches)} items; this model takes at most {max_batch} at once")
    return RunRequest(tuple(one for one, _ in read), singles == {True})


def _tensor_texts(parsed: _Body, specs: Sequence[TensorSpecLike]) -> dict[str, bytes]:
    """The JSON text of each input by its name; exactly those the model has."""
    names = [spec.name for spec in specs]
    if (parsed.input is _NOTHING) == (parsed.inputs is None):
        raise bad_input(f'send {{"input": numbers}}, or {{"inputs": {{name: numbers}}}} with {show(names)}')
    if parsed.inputs is None:
        if len(names) > 1:
            raise bad_input(f'this model has several inputs; send {{"inputs": {{...}}}} with {show(names)}')
        return {names[0]: bytes(parsed.input)}
    if set(parsed.inputs) != set(names):
        raise bad_input(f'"inputs" names {show(list(parsed.inputs))}; the model wants {show(names)}')
    return {name: bytes(text) for name, text in parsed.inputs.items()}


def _tensor(
    spec: TensorSpecLike, text: bytes, batch_axis: int | None, read_object: Reader
) -> tuple[NamedArray, bool]:
    """The tensor nested in `text`, and whether it was one item that lacked the batch axis."""
    if text.lstrip().startswith(b"{"):
        reference = decode(_references, text, f"input {show(spec.name)}")
        name = checked_name(reference.object, f"input {show(spec.name)}")
        return _named_tensor(spec, name, read_object(name)), False
    if text.count(b"[") > MAX_LISTS:
        raise bad_input(
            f"input {show(spec.name)} nests more than {MAX_LISTS} lists; send it over /v2 as binary"
        )
    given = _shape(decode(_numbers, text, f"input {show(spec.name)}"))
    shape = list(given)
    single = batch_axis is not None and len(given) == len(spec.shape) - 1
    if batch_axis is not None and single:
        shape.insert(batch_axis, 1)
    count = tensor.check_shape(spec, shape)
    array = tensor.from_json(spec, given, count, text if given else b"[%b]" % text)
    return NamedArray(spec.name, spec.datatype, array.reshape(shape)), single


def _named_tensor(spec: TensorSpecLike, name: str, content: bytes) -> NamedArray:
    """The tensor in an object: the one free axis of the model's shape is as long as its size says."""
    row = DATATYPES[spec.datatype]
    if spec.shape.count(-1) > 1:
        raise bad_input(
            f"input {show(spec.name)} has several free axes {list(spec.shape)}; name the object over /v2, "
            "where a shape stands beside it"
        )
    item_bytes = math.prod(dim for dim in spec.shape if dim != -1) * row.dtype.itemsize
    free = 1
    if not item_bytes:
        raise bad_input(
            f"input {show(spec.name)} is {row.name} {list(spec.shape)}, which has no element: there is "
            f"nothing to read from the object {name}"
        )
    if row.pack and -1 in spec.shape:
        free, odd_bytes = divmod(len(content), item_bytes)
        if odd_bytes or not free:
            raise bad_input(
                f"input {show(spec.name)} is {row.name} {list(spec.shape)}, {item_bytes} bytes an item; the "
                f"object {name} has {len(content)}"
            )
    shape = [free if dim == -1 else dim for dim in spec.shape]
    count = tensor.check_shape(spec, shape)
    return NamedArray(spec.name, spec.datatype, tensor.from_object(spec, shape, count, name, content))


def _shape(value: Any) -> list[int]:
    """The lengths along the first element of each level; `from_json` finds rows that differ."""
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def encode_run(
    *,
    model: str,
    version: str,
    task: str,
    single: bool,
    outputs: Sequence[NamedArray],
    batch_axis: int | None = 0,
) -> bytes:
    """The JSON answer; NaN and infinities are `null`, as in `encode_infer`.

    `embedding` takes the first output, FP32 [n, d]; `bytes-classification` the BYTES output
    as label and the other as score, both [n]. Raises EdgeError(BAD_INPUT) for BYTES outputs
    that are not UTF-8 (ask for them over OIP as binary).
    """
    document: dict[str, Any] = {"model": model, "version": version}
    match task:
        case "embedding":
            rows = _json(outputs[0])
            document |= {"embedding": rows[0]} if single else {"embeddings": rows}
        case "bytes-classification":
            labels = next(output for output in outputs if output.datatype == "BYTES")
            scores = next(output for output in outputs if output.datatype != "BYTES")
            pairs = zip(_json(labels), _json(scores), strict=True)
            results = [{"label": label, "score": score} for label, score in pairs]
            document |= results[0] if single else {"results": results}
        case _:
            axis = batch_axis if single else None
            document["outputs"] = {output.name: _json(output, axis) for output in outputs}
    return _encoder.encode(document)


def _json(output: NamedArray, drop_axis: int | None = None) -> Any:
    array = output.array
    if drop_axis is not None:
        # squeezed, not indexed: an element of an object array would lose its array
        array = array[(slice(None),) * drop_axis + (slice(1),)].squeeze(drop_axis)
    return to_json_values(output, array, short_from=_SHORT_ALWAYS)
