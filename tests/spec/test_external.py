"""Specification of models/external.py: which graphs may be published, and how weights are laid out."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from blake3 import blake3
from onnx import TensorProto, helper, numpy_helper

from models.errors import GraphError
from models.external import GRAPH_MAX_BYTES, WeightsFile, check_graph, move_out

D = "d" * 64
GOOD = {"location": D, "offset": "4096", "length": "64"}


def graph_with(external: list[tuple[str, str]], dims: tuple[int, ...] = (4, 4), **model: Any) -> bytes:
    w = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in external:
        w.external_data.add(key=key, value=value)
    node = helper.make_node("Add", ["w", "w"], ["y"], domain=model.get("node_domain", ""))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])
    graph = helper.make_graph([node], "g", [], [y], [w] if model.get("at") != "attribute" else [])
    if model.get("at") == "attribute":
        graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=w))
    opsets = [helper.make_opsetid("", 17), *model.get("opsets", [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def changed(**entries: str) -> list[tuple[str, str]]:
    return list((GOOD | entries).items())


EXTENSIONS = [helper.make_opsetid("ai.onnx.contrib", 1)]


def test_a_good_graph_passes_the_gate() -> None:
    check_graph(graph_with(changed()), {D: 8192}, ())
    check_graph(graph_with(changed(), opsets=EXTENSIONS), {D: 8192}, ("onnxruntime-extensions",))


@pytest.mark.parametrize(
    ("what", "raw", "says"),
    [
        ("no ONNX", b"\xff\xff", "not an ONNX graph"),
        ("nothing", b"", "it has no node"),
        ("a path as location", graph_with(changed(location="../w.bin")), "lies in '../w.bin', which is no weights"),
        ("another digest", graph_with(changed(location="e" * 64)), "which is no weights file's digest"),
        ("beyond the file's end", graph_with(changed(offset="8192")), "end within the file's 8192 bytes"),
        ("a negative offset", graph_with(changed(offset="-4096")), "offset or length that is no number"),
        ("an offset of 20 digits", graph_with(changed(offset="9" * 20)), "offset or length that is no number"),
        ("between pages", graph_with(changed(offset="64")), "must begin at a multiple of 4096"),
        ("a length that is not the shape's", graph_with(changed(length="60")), "its shape [4, 4] needs others"),
        ("a negative dimension", graph_with(changed(), (-4, -4)), "its shape [-4, -4] needs others"),
        ("a key nobody asked for", graph_with(changed(checksum="0")), "has external keys ['checksum', "),
        ("no length", graph_with([("location", D), ("offset", "0")]), "has external keys ['location', 'offset']"),
        ("a key twice", graph_with([*changed(), ("offset", "0")]), "'offset', 'offset'"),
        ("hidden in an attribute", graph_with(changed(location="/etc/passwd"), at="attribute"), "/etc/passwd"),
        ("operators of the tokenizer library", graph_with(changed(), opsets=EXTENSIONS), "'ai.onnx.contrib' is not"),
        ("operators of an unknown library", graph_with(changed(), node_domain="evil"), "domain 'evil'"),
    ],
)  # fmt: skip
def test_a_hostile_graph_does_not(what: str, raw: bytes, says: str) -> None:
    with pytest.raises(GraphError) as caught:
        check_graph(raw, {D: 8192}, ())
    assert says in str(caught.value), what


def test_a_graph_that_carries_its_weights_is_too_large() -> None:
    with pytest.raises(GraphError, match=f"at most {GRAPH_MAX_BYTES}, move its weights out"):
        check_graph(bytes(GRAPH_MAX_BYTES + 1), {}, ())


def test_tensors_lie_page_aligned_in_the_order_they_came(tmp_path: Path) -> None:
    done: list[int] = []
    weights = WeightsFile(tmp_path / "w", done.append)
    weights.add("a", np.arange(6, dtype=np.float32).reshape(2, 3).T)
    weights.stream("b", np.dtype(np.float16), [4], [b"1234", b"", b"5678"])
    weights.close()
    raw = (tmp_path / "w").read_bytes()
    assert raw[:24] == np.array([0, 3, 1, 4, 2, 5], "<f4").tobytes()
    assert (raw[4096:], sum(done), weights.digest) == (b"12345678", 4104, blake3(raw).hexdigest())
    shown = [(t.name, list(t.dims), {e.key: e.value for e in t.external_data}) for t in weights.tensors()]
    assert shown == [
        ("a", [3, 2], {"location": weights.digest, "offset": "0", "length": "24"}),
        ("b", [4], {"location": weights.digest, "offset": "4096", "length": "8"}),
    ]


def test_parts_that_do_not_make_the_shape_are_refused(tmp_path: Path) -> None:
    weights = WeightsFile(tmp_path / "w", lambda _: None)
    with pytest.raises(GraphError, match=r"tensor t: 3 bytes do not make shape \[1\] of float32"):
        weights.stream("t", np.dtype(np.float32), [1], [b"123"])
    weights.close()


def test_large_floats_move_out_and_all_else_stays(tmp_path: Path) -> None:
    arrays = {
        "large": np.ones(300, np.float32),
        "small": np.ones(4, np.float32),
        "axes": np.ones(300, np.int64),
    }
    model = onnx.load_model_from_string(graph_with(changed()))
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    assert move_out(model, tmp_path / "w", lambda _: None)
    outside = [t.name for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    assert (outside, (tmp_path / "w").stat().st_size) == (["large"], 1200)
    assert not move_out(model, tmp_path / "again", lambda _: None)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("what", "changes", "says"),
    [
        ("text outside", {"data_type": TensorProto.STRING}, "has data type 8, which can't lie outside"),
        (
            "both in and out",
            {"data_location": TensorProto.DEFAULT},
            "has external data but says that it has none",
        ),
    ],
)
def test_a_tensor_that_contradicts_itself_does_not(what: str, changes: dict[str, Any], says: str) -> None:
    model = onnx.load_model_from_string(graph_with(changed()))
    for field, value in changes.items():
        setattr(model.graph.initializer[0], field, value)
    with pytest.raises(GraphError) as caught:
        check_graph(model.SerializeToString(), {D: 8192}, ())
    assert says in str(caught.value), what
