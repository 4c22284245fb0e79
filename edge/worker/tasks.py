"""What a model does with a request, by the task its manifest names.

`tensors` runs the graph as it is, `embedding` tokenises each text alone and batches the
encoder, `bytes-classification` is magika's rule. A task turns a request into `Work` (checked,
the client's fault until here), runs several works as one execution, and gives each its own
outputs back. It knows arrays and graphs; nothing of queues, deadlines, bodies or frames.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np

from edge.errors import EdgeError, Reason, Source, bad_input
from edge.oip.datatypes import DATATYPES, Array, NamedArray, bytes_array
from edge.weights.manifest import Manifest
from edge.worker.engine import Signature

#: Text beyond this many characters is not tokenised: 256 tokens end long before, and a tokenizer
#: that is given megabytes can't be stopped.
TEXT_MAX_CHARS: Final = 16_384


class Work(NamedTuple):
    """One request, ready to run. Works with equal `key` may share an execution."""

    items: int
    key: Hashable
    arrays: tuple[Array, ...] = ()
    texts: tuple[str, ...] = ()
    contents: tuple[bytes, ...] = ()


class Graphs(Protocol):
    """One execution over the graphs of a model."""

    def call(self, graph: str, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs of a graph."""


class Task(Protocol):
    """What each task can do."""

    def accept(self, inputs: Sequence[NamedArray]) -> Work:
        """Check one request's tensors. Raises EdgeError(BAD_INPUT)."""

    def run(self, works: Sequence[Work], graphs: Graphs) -> list[list[NamedArray]]:
        """One execution for all works; outputs in the order of the manifest, per work."""

    def example(self) -> Work:
        """A harmless request, to warm a device up with."""


def signatures(manifest: Manifest) -> dict[str, Signature]:
    """What the graphs of this manifest's task must take and give."""
    if manifest.task == "tensors":
        inputs = {tensor.name: tensor.datatype for tensor in manifest.inputs}
        return {"graph": Signature(inputs, {tensor.name: tensor.datatype for tensor in manifest.outputs})}
    if manifest.task == "embedding":
        tokens = {"input_ids": "INT64", "attention_mask": "INT64"}
        return {
            "tokenizer": Signature({"text": "BYTES"}, tokens, host=True),
            "encoder": Signature(tokens, {"embedding": "FP32"}),
        }
    return {"graph": Signature({"bytes": "INT32"}, {"target_label": "FP32"})}


def make(manifest: Manifest, aux: Mapping[str, bytes]) -> Task:
    """The task of a manifest. Raises EdgeError(LOAD_FAILED) if an aux blob is not what it needs."""
    if manifest.task == "tensors":
        return Tensors(manifest)
    if manifest.task == "embedding":
        return Embedding(manifest)
    return BytesClassification(manifest, aux["labels"])


class Tensors:
    """The graph as it is; along a batch axis, works are joined and the outputs cut apart again."""

    def __init__(self, manifest: Manifest) -> None:
        self._specs = manifest.inputs
        self._names = [spec.name for spec in manifest.inputs]
        self._outputs = manifest.outputs
        self._batched = manifest.batch_axis == 0
        self._text = {spec.name for spec in manifest.inputs if spec.datatype == "BYTES"}
        self._one_shape = self._batched and all(-1 not in spec.shape[1:] for spec in manifest.inputs)

    def accept(self, inputs: Sequence[NamedArray]) -> Work:
        """Shapes but for the batch axis are the key."""
        arrays = tuple([tensor.array for tensor in inputs])
        if self._text:
            arrays = tuple(
                _as_text(tensor) if tensor.name in self._text else tensor.array for tensor in inputs
            )
        if self._one_shape:
            return Work(arrays[0].shape[0], None, arrays)
        if self._batched:
            return Work(arrays[0].shape[0], tuple(array.shape[1:] for array in arrays), arrays)
        return Work(1, None, arrays)

    def run(self, works: Sequence[Work], graphs: Graphs) -> list[list[NamedArray]]:
        """Joined along axis 0 if there are several."""
        if len(works) == 1:
            joined: Sequence[Array] = works[0].arrays
        else:
            joined = [np.concatenate(arrays) for arrays in zip(*[work.arrays for work in works], strict=True)]
        results = graphs.call("graph", dict(zip(self._names, joined, strict=True)))
        outputs = [
            _from_text(array) if spec.datatype == "BYTES" else array
            for spec, array in zip(self._outputs, results, strict=True)
        ]
        if not self._batched:
            return [self._named(outputs)]
        total = sum([work.items for work in works])
        for spec, array in zip(self._outputs, outputs, strict=True):
            if array.shape[:1] != (total,):
                raise _wrong_output(
                    f"output {spec.name!r} has shape {list(array.shape)} for a batch of {total}"
                )
        if len(works) == 1:
            return [self._named(outputs)]
        return [
            self._named([array[start:end] for array in outputs]) for start, end in pairwise(_bounds(works))
        ]

    def example(self) -> Work:
        """Zeros; every free axis is 1."""
        return self.accept(
            [
                NamedArray(
                    spec.name, spec.datatype, _zeros(spec.datatype, tuple(max(1, d) for d in spec.shape))
                )
                for spec in self._specs
            ]
        )

    def _named(self, arrays: Sequence[Array]) -> list[NamedArray]:
        return [
            NamedArray(spec.name, spec.datatype, array)
            for spec, array in zip(self._outputs, arrays, strict=True)
        ]


class Embedding:
    """Texts -> vectors. The tokenizer takes one text at a time: two it would read as a sentence pair."""

    def __init__(self, manifest: Manifest) -> None:
        self._output = manifest.outputs[0].name

    def accept(self, inputs: Sequence[NamedArray]) -> Work:
        """The key is the length class of the longest text: short ones are not padded to long ones."""
        texts = tuple(_text(item, inputs[0].name)[:TEXT_MAX_CHARS] for item in inputs[0].array.tolist())
        longest = max(map(len, texts))
        return Work(len(texts), min(longest, 2048).bit_length(), texts=texts)

    def run(self, works: Sequence[Work], graphs: Graphs) -> list[list[NamedArray]]:
        """Tokenise each, pad to the longest with id 0 and mask 0 on the right, encode all at once."""
        tokens = [
            graphs.call("tokenizer", {"text": np.array([text], dtype=object)})
            for work in works
            for text in work.texts
        ]
        wide = max(ids.shape[-1] for ids, _ in tokens)
        ids = np.zeros((len(tokens), wide), np.int64)
        mask = np.zeros((len(tokens), wide), np.int64)
        for row, (one_ids, one_mask) in enumerate(tokens):
            ids[row, : one_ids.shape[-1]] = one_ids.reshape(-1)
            mask[row, : one_mask.shape[-1]] = one_mask.reshape(-1)
        (vectors,) = graphs.call("encoder", {"input_ids": ids, "attention_mask": mask})
        if vectors.ndim != 2 or vectors.shape[0] != len(tokens):
            raise _wrong_output(f"output 'embedding' has shape {list(vectors.shape)} for {len(tokens)} texts")
        return [
            [NamedArray(self._output, "FP32", vectors[start:end])] for start, end in pairwise(_bounds(works))
        ]

    def example(self) -> Work:
        """A short sentence."""
        return Work(1, 0, texts=("the nearest one answers",))


class Labels(msgspec.Struct, frozen=True):
    """The `labels` blob: sizes of the rule, and per class its label, threshold and generic label."""

    schema: int
    beg_size: int
    end_size: int
    block_size: int
    padding_token: int
    min_bytes: int
    labels: list[str]
    thresholds: list[float]
    generic: list[str]
    empty: str
    few_text: str
    few_binary: str


_SIZE_MAX: Final = 1 << 20


class BytesClassification:
    """Bytes -> (label, score), as magika 1.0.3 does with `standard_v3_3` and high confidence."""

    def __init__(self, manifest: Manifest, raw_labels: bytes) -> None:
        self._label, self._score = (tensor.name for tensor in manifest.outputs)
        try:
            self._table = table = msgspec.json.decode(raw_labels, type=Labels)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _bad_table(manifest, str(error)) from error
        classes = len(table.labels)
        sizes = (table.beg_size, table.end_size, table.block_size, table.min_bytes)
        if table.schema != 1 or not classes or {len(table.thresholds), len(table.generic)} != {classes}:
            raise _bad_table(manifest, "schema is not 1, or its lists differ in length")
        if min(sizes) < 1 or max(sizes) > _SIZE_MAX or table.min_bytes > table.beg_size:
            raise _bad_table(manifest, f"sizes {sizes} are out of bounds")

    def accept(self, inputs: Sequence[NamedArray]) -> Work:
        """Every content fits: the rule reads its two ends."""
        contents = tuple(inputs[0].array.tolist())
        return Work(len(contents), None, contents=contents)

    def run(self, works: Sequence[Work], graphs: Graphs) -> list[list[NamedArray]]:
        """Contents too short for the graph are answered by rule, all others in one call."""
        answers: list[tuple[str, float]] = []
        rows: list[Array] = []
        asked: list[int] = []
        for work in works:
            for content in work.contents:
                row = self._features(content)
                if isinstance(row, str):
                    answers.append((row, 1.0))
                else:
                    asked.append(len(answers))
                    rows.append(row)
                    answers.append(("", 0.0))
        if rows:
            for at, answer in zip(asked, self._classify(np.stack(rows), graphs), strict=True):
                answers[at] = answer
        return [self._named(answers[start:end]) for start, end in pairwise(_bounds(works))]

    def example(self) -> Work:
        """A line of shell."""
        return Work(1, None, contents=(b"#!/bin/sh\nexit 0\n",))

    def _classify(self, rows: Array, graphs: Graphs) -> list[tuple[str, float]]:
        table = self._table
        (chances,) = graphs.call("graph", {"bytes": rows})
        if chances.shape != (len(rows), len(table.labels)):
            raise _wrong_output(
                f"output 'target_label' has shape {list(chances.shape)} for {len(rows)} rows, "
                f"{len(table.labels)} labels"
            )
        answers = []
        for row, best in enumerate(chances.argmax(axis=1).tolist()):
            score = float(chances[row, best])
            sure = score >= table.thresholds[best]
            answers.append((table.labels[best] if sure else table.generic[best], score))
        return answers

    def _features(self, content: bytes) -> Array | str:
        """The graph's row of `beg_size + end_size` tokens, or the label that needs no graph."""
        table = self._table
        if not content:
            return table.empty
        if len(content) < table.min_bytes:
            return self._few(content)
        head = content[: table.block_size]
        beg = head.lstrip()[: table.beg_size]
        end = content[-table.block_size :].rstrip()[-table.end_size :]
        if len(beg) < table.min_bytes:
            return self._few(head)
        row = np.full(table.beg_size + table.end_size, table.padding_token, np.int32)
        row[: len(beg)] = np.frombuffer(beg, np.uint8)
        row[len(row) - len(end) :] = np.frombuffer(end, np.uint8)
        return row

    def _few(self, content: bytes) -> str:
        try:
            content.decode()
        except UnicodeDecodeError:
            return self._table.few_binary
        return self._table.few_text

    def _named(self, answers: list[tuple[str, float]]) -> list[NamedArray]:
        labels = bytes_array([label.encode() for label, _ in answers], (len(answers),))
        scores = np.array([score for _, score in answers], np.float32)
        return [NamedArray(self._label, "BYTES", labels), NamedArray(self._score, "FP32", scores)]


def _bounds(works: Sequence[Work]) -> list[int]:
    """Where each work's share of the batch axis begins, and the end."""
    at, bounds = 0, [0]
    for work in works:
        at += work.items
        bounds.append(at)
    return bounds


def _text(item: bytes, name: str) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError as error:
        raise bad_input(f"input {name!r} is text and must be UTF-8: {error}") from error


def _as_text(tensor: NamedArray) -> Array:
    """Bytes as the strings that the runtime takes."""
    array = np.empty(tensor.array.size, dtype=object)
    array[:] = [_text(item, tensor.name) for item in tensor.array.reshape(-1).tolist()]
    return array.reshape(tensor.array.shape)


def _from_text(array: Array) -> Array:
    return bytes_array([str(item).encode() for item in array.reshape(-1).tolist()], array.shape)


def _zeros(datatype: str, shape: tuple[int, ...]) -> Array:
    if datatype == "BYTES":
        return bytes_array([b""] * int(np.prod(shape)), shape)
    return np.zeros(shape, DATATYPES[datatype].dtype)


def _wrong_output(what: str) -> EdgeError:
    message = f"the model's {what}; was it published with the right batch_axis?"
    return EdgeError(Reason.INFER_FAILED, message, source=Source.UPSTREAM)


def _bad_table(manifest: Manifest, what: str) -> EdgeError:
    message = f"{manifest.name} version {manifest.version} can't be loaded: its labels blob: {what}"
    return EdgeError(Reason.LOAD_FAILED, message, source=Source.UPSTREAM)
