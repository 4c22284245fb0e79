"""all-MiniLM-L6-v2: six BERT layers written down as ONNX, and its tokenizer as a second graph.

Source: the model's safetensors and vocab.txt. Architecture: BERT (Devlin et al. 2018),
post-norm, GELU by erf, 12 heads of 32; then the mean over the tokens of a text, scaled to
length 1, as sentence-transformers configures it (1_Pooling, 2_Normalize, 256 tokens).

Tokenizer graph: `text` string [1] -> `input_ids`, `attention_mask` int64 [1, tokens]. It
takes ONE text: two strings would silently become one sentence pair. Encoder graph:
`input_ids`, `attention_mask` int64 [batch, tokens] -> `embedding` FP32 [batch, 384]; pad
with zeros on the right, in both.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from models.catalog import Entry
from models.errors import CatalogError
from models.external import Progress, WeightsFile
from models.toy import save_model

HIDDEN: Final = 384
HEADS: Final = 12
LAYERS: Final = 6
MAX_TOKENS: Final = 256
SEPARATOR_ID: Final = 102
_EPSILON: Final = 1e-12
_SAFETENSORS_HEADER_MAX_BYTES: Final = 1024 * 1024
# Gelu is an operator since opset 20; ONNX Runtime has had it on all its providers since 1.17.
_OPSET: Final = 20

Array = np.ndarray[Any, Any]


class _Slot(msgspec.Struct, frozen=True):
    """One tensor in a safetensors file's header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def build(_entry: Entry, sources: dict[str, Path], folder: Path, progress: Progress) -> None:
    """Write `tokenizer`, `encoder` and `weights` into `folder`."""
    by_name = {Path(member).name: path for member, path in sources.items()}
    try:
        tensors = read_safetensors(by_name["model.safetensors"])
        vocabulary = by_name["vocab.txt"].read_text(encoding="utf-8")
    except KeyError as error:
        raise CatalogError(f"builder minilm needs {error.args[0]} among the files") from error
    _tokenizer(vocabulary, folder / "tokenizer")
    weights = WeightsFile(folder / "weights", progress)
    try:
        arranged = _arranged(tensors)
    except KeyError as error:
        raise CatalogError(
            f"{by_name['model.safetensors']} has no tensor {error}; it is another model"
        ) from error
    for name, array in arranged.items():
        weights.add(name, array)
    weights.close()
    _encoder(weights, folder / "encoder")


def read_safetensors(path: Path) -> dict[str, Array]:
    """Every float32 tensor of a safetensors file, mapped: 8 bytes of header length, JSON, data."""
    mapped = np.memmap(path, np.uint8, "r")
    header_bytes = int.from_bytes(mapped[:8].tobytes(), "little")
    if header_bytes > min(_SAFETENSORS_HEADER_MAX_BYTES, len(mapped) - 8):
        raise CatalogError(f"{path}: its header claims {header_bytes} bytes; that is no safetensors file")
    raw = msgspec.json.decode(mapped[8 : 8 + header_bytes].tobytes(), type=dict[str, msgspec.Raw])
    data = mapped[8 + header_bytes :]
    arrays = {}
    for name, text in raw.items():
        if name == "__metadata__":
            continue
        slot = msgspec.json.decode(text, type=_Slot)
        if slot.dtype == "F32":
            start, end = slot.data_offsets
            arrays[name] = data[start:end].view("<f4").reshape(slot.shape)
    return arrays


def _arranged(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The encoder's initializers: matrices turned to [in, out], Q, K and V side by side."""
    text_only = tensors["embeddings.token_type_embeddings.weight"][0]
    arranged: dict[str, Array] = {
        "words": tensors["embeddings.word_embeddings.weight"],
        # Every token is of type 0, so its row is part of the positions.
        "positions": tensors["embeddings.position_embeddings.weight"] + text_only,
        "embed_norm.scale": tensors["embeddings.LayerNorm.weight"],
        "embed_norm.bias": tensors["embeddings.LayerNorm.bias"],
    }
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        qkv = [f"{at}.attention.self.{part}" for part in ("query", "key", "value")]
        arranged[f"{layer}.qkv.w"] = np.concatenate([tensors[f"{part}.weight"].T for part in qkv], axis=1)
        arranged[f"{layer}.qkv.b"] = np.concatenate([tensors[f"{part}.bias"] for part in qkv])
        for ours, theirs in (("mix", "attention.output"), ("up", "intermediate"), ("down", "output")):
            arranged[f"{layer}.{ours}.w"] = tensors[f"{at}.{theirs}.dense.weight"].T
            arranged[f"{layer}.{ours}.b"] = tensors[f"{at}.{theirs}.dense.bias"]
        for ours, theirs in (("mix_norm", "attention.output"), ("down_norm", "output")):
            arranged[f"{layer}.{ours}.scale"] = tensors[f"{at}.{theirs}.LayerNorm.weight"]
            arranged[f"{layer}.{ours}.bias"] = tensors[f"{at}.{theirs}.LayerNorm.bias"]
    return arranged


class _Sheet:
    """Nodes of one graph in the making; a node's output is called after the node."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, op: str, output: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: Any = np.int64) -> str:
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name


def _encoder(weights: WeightsFile, path: Path) -> None:
    sheet = _Sheet()
    node, constant = sheet.node, sheet.constant
    for name, value in (("zero", [0]), ("one", [1]), ("heads_apart", [0, 0, 3, HEADS, HIDDEN // HEADS])):
        constant(name, value)
    constant("heads_together", [0, 0, HIDDEN])
    constant("mask_axes", [1, 2])
    constant("last_axis", [2])
    constant("embedding_axis", [1])
    constant("first", 0)
    constant("second", 1)
    constant("third", 2)
    constant("scale", 1.0 / np.sqrt(HIDDEN / HEADS), np.float32)
    constant("shut", -1e4, np.float32)
    constant("whole", 1.0, np.float32)
    constant("tiny", _EPSILON, np.float32)

    # Positions as a Slice with a 1-D end: Range + Gather breaks in ONNX Runtime's optimizer.
    node("Shape", "tokens", "input_ids", start=1, end=2)
    node("Slice", "places", "positions", "zero", "tokens", "zero")
    node("Gather", "word_rows", "words", "input_ids")
    node("Add", "embed_sum", "word_rows", "places")
    node("Cast", "mask", "attention_mask", to=TensorProto.FLOAT)
    node("Sub", "padding", "whole", "mask")
    node("Mul", "padding_bias", "padding", "shut")
    node("Unsqueeze", "mask_bias", "padding_bias", "mask_axes")
    state = _norm(sheet, "embed_norm", "embed_sum")
    for layer in range(LAYERS):
        state = _layer(sheet, str(layer), state)
    node("Unsqueeze", "mask_column", "mask", "last_axis")
    node("Mul", "kept", state, "mask_column")
    node("ReduceSum", "total", "kept", "one", keepdims=0)
    node("ReduceSum", "count", "mask", "one", keepdims=1)
    node("Max", "count_safe", "count", "tiny")
    node("Div", "mean", "total", "count_safe")
    node("ReduceL2", "length", "mean", "embedding_axis", keepdims=1)
    node("Max", "length_safe", "length", "tiny")
    node("Div", "embedding", "mean", "length_safe")
    graph = helper.make_graph(
        sheet.nodes,
        "minilm-encoder",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "tokens"]) for n in _TOKEN_INPUTS],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", HIDDEN])],
        [*sheet.constants, *weights.tensors()],
    )
    save_model(graph, path, {"": _OPSET})


_TOKEN_INPUTS: Final = ("input_ids", "attention_mask")


def _layer(sheet: _Sheet, at: str, state: str) -> str:
    """One BERT layer: attention over the heads, then two dense layers, each added and normed."""
    node = sheet.node
    node("Reshape", f"{at}.apart", _dense(sheet, f"{at}.qkv", state), "heads_apart")
    # [batch, tokens, 3, heads, width] -> [3, batch, heads, tokens, width]
    node("Transpose", f"{at}.turned", f"{at}.apart", perm=[2, 0, 3, 1, 4])
    for part, index in (("q", "first"), ("k", "second"), ("v", "third")):
        node("Gather", f"{at}.{part}", f"{at}.turned", index, axis=0)
    node("Transpose", f"{at}.k_turned", f"{at}.k", perm=[0, 1, 3, 2])
    node("MatMul", f"{at}.products", f"{at}.q", f"{at}.k_turned")
    node("Mul", f"{at}.scaled", f"{at}.products", "scale")
    node("Add", f"{at}.masked", f"{at}.scaled", "mask_bias")
    node("Softmax", f"{at}.attention", f"{at}.masked", axis=-1)
    node("MatMul", f"{at}.heads", f"{at}.attention", f"{at}.v")
    node("Transpose", f"{at}.heads_turned", f"{at}.heads", perm=[0, 2, 1, 3])
    node("Reshape", f"{at}.together", f"{at}.heads_turned", "heads_together")
    node("Add", f"{at}.mix_sum", _dense(sheet, f"{at}.mix", f"{at}.together"), state)
    middle = _norm(sheet, f"{at}.mix_norm", f"{at}.mix_sum")
    node("Gelu", f"{at}.gelu", _dense(sheet, f"{at}.up", middle), approximate="none")
    node("Add", f"{at}.down_sum", _dense(sheet, f"{at}.down", f"{at}.gelu"), middle)
    return _norm(sheet, f"{at}.down_norm", f"{at}.down_sum")


def _dense(sheet: _Sheet, at: str, state: str) -> str:
    sheet.node("MatMul", f"{at}.product", state, f"{at}.w")
    return sheet.node("Add", f"{at}.dense", f"{at}.product", f"{at}.b")


def _norm(sheet: _Sheet, at: str, state: str) -> str:
    return sheet.node("LayerNormalization", at, state, f"{at}.scale", f"{at}.bias", axis=-1, epsilon=_EPSILON)


def _tokenizer(vocabulary: str, path: Path) -> None:
    sheet = _Sheet()
    sheet.nodes.append(
        helper.make_node(
            "BertTokenizer",
            ["text"],
            ["all_ids", "types", "all_mask"],
            name="tokenizer",
            domain="ai.onnx.contrib",
            vocab_file=vocabulary,
            do_lower_case=1,
            strip_accents=1,
        )
    )
    sheet.constant("row", [1, -1])
    sheet.constant("zero", [0])
    sheet.constant("axis", [1])
    sheet.constant("room", [MAX_TOKENS - 1])
    sheet.constant("last", [-1])
    sheet.constant("end", [np.iinfo(np.int64).max])
    # Keep what fits and the last token, which is [SEP]; a text that fits has `tokens - 1` before it.
    sheet.node("Size", "tokens", "all_ids")
    for part in ("ids", "mask"):
        sheet.node("Reshape", f"{part}_row", f"all_{part}", "row")
        sheet.node("Slice", f"{part}_before", f"{part}_row", "zero", "last", "axis")
        sheet.node("Slice", f"{part}_kept", f"{part}_before", "zero", "room", "axis")
        sheet.node("Slice", f"{part}_last", f"{part}_row", "last", "end", "axis")
    for part, name in (("ids", "input_ids"), ("mask", "attention_mask")):
        sheet.node("Concat", name, f"{part}_kept", f"{part}_last", axis=1)
    graph = helper.make_graph(
        sheet.nodes,
        "minilm-tokenizer",
        [helper.make_tensor_value_info("text", TensorProto.STRING, [1])],
        [helper.make_tensor_value_info(name, TensorProto.INT64, [1, "tokens"]) for name in _TOKEN_INPUTS],
        sheet.constants,
    )
    save_model(graph, path, {"": _OPSET, "ai.onnx.contrib": 1})
