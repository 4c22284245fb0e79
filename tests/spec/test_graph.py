"""The whole specification of edge/worker/graph.py: which graphs may be loaded beside which blobs."""

import pytest
from onnx import ModelProto, TensorProto, helper

from edge.errors import EdgeError, Reason
from edge.worker.graph import DOMAINS, LIBRARIES, check_graph
from models import external as publishing

BLOB = "a" * 64
GOOD = {"location": BLOB, "offset": "4096", "length": "4096"}


def external(entries: dict[str, str], *, declared: bool = True) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1024])
    if declared:
        tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def in_initializer(tensor: TensorProto) -> ModelProto:
    return helper.make_model(
        helper.make_graph([helper.make_node("Neg", ["w"], ["y"])], "g", [], [], [tensor])
    )


def in_constant(tensor: TensorProto) -> ModelProto:
    return helper.make_model(
        helper.make_graph([helper.make_node("Constant", [], ["w"], value=tensor)], "g", [], [])
    )


def in_subgraph(tensor: TensorProto) -> ModelProto:
    inner = helper.make_graph([helper.make_node("Neg", ["w"], ["y"])], "inner", [], [], [tensor])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def in_function(tensor: TensorProto) -> ModelProto:
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    function = helper.make_function("own", "f", [], ["y"], [node], [helper.make_opsetid("", 17)])
    return helper.make_model(helper.make_graph([], "g", [], []), functions=[function])


def in_sparse(tensor: TensorProto) -> ModelProto:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    return model


def in_training(tensor: TensorProto) -> ModelProto:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    model.training_info.add().algorithm.initializer.append(tensor)
    return model


PLACES = [in_initializer, in_constant, in_subgraph, in_function, in_sparse, in_training]


@pytest.mark.parametrize("place", PLACES)
def test_a_range_of_a_listed_blob_is_let_through(place):
    check_graph(place(external(GOOD)).SerializeToString(), {BLOB: 8192})


@pytest.mark.parametrize("place", PLACES)
def test_another_file_is_found_wherever_it_hides(place):
    raw = place(external(GOOD | {"location": "/etc/passwd"})).SerializeToString()
    with pytest.raises(EdgeError, match="'/etc/passwd', which is no weights blob") as caught:
        check_graph(raw, {BLOB: 8192})
    assert caught.value.reason is Reason.LOAD_FAILED


REFUSED = [
    ("a path that climbs", GOOD | {"location": f"../{BLOB}"}, "no weights blob"),
    (
        "the runtime's own name for a memory address",
        GOOD | {"location": "*/_ORT_MEM_ADDR_/*"},
        "no weights blob",
    ),
    ("an end behind the blob's end", GOOD | {"offset": "8192"}, "ends at 12288, its blob has 8192 bytes"),
    ("a negative offset", GOOD | {"offset": "-4096"}, "'-4096', which is no number"),
    ("a number without end", GOOD | {"length": "9" * 4000}, "which is no number"),
    ("an unknown key", GOOD | {"checksum": "0"}, "exactly"),
    ("a missing length", {"location": BLOB, "offset": "0"}, "exactly"),
    ("nothing said at all", {}, "exactly"),
]


@pytest.mark.parametrize(("sentence", "entries", "match"), REFUSED, ids=[case[0] for case in REFUSED])
def test_refused(sentence, entries, match):
    with pytest.raises(EdgeError, match=match):
        check_graph(in_initializer(external(entries)).SerializeToString(), {BLOB: 8192})


def test_entries_without_the_declaration_are_refused_too():
    with pytest.raises(EdgeError, match="exactly"):
        check_graph(in_initializer(external(GOOD, declared=False)).SerializeToString(), {BLOB: 8192})


def test_a_key_given_twice_is_refused():
    tensor = external(GOOD)
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(EdgeError, match="'location' twice"):
        check_graph(in_initializer(tensor).SerializeToString(), {BLOB: 8192})


def in_one(*ranges: tuple[int, int]) -> bytes:
    """A graph with a tensor per (offset, length) of one blob."""
    graph = helper.make_graph([helper.make_node("Neg", ["w"], ["y"])], "g", [], [])
    for offset, length in ranges:
        entries = {"location": BLOB, "offset": str(offset), "length": str(length)}
        graph.initializer.append(external(entries))
    return bytes(helper.make_model(graph).SerializeToString())


APART = [
    ("one behind the other", [(4096, 4096), (0, 4096)], ""),
    ("tied weights are one range with two names", [(0, 4096), (0, 4096), (4096, 4096)], ""),
    ("nothing lies anywhere", [(0, 0), (0, 8192), (4096, 0), (8192, 0)], "overlap"),
    ("empty ones at the edges", [(0, 0), (0, 8192), (8192, 0)], ""),
    ("half of one in the other", [(0, 4096), (2048, 4096)], "one ends at 4096, one is 2048-6144"),
    ("one inside the other", [(0, 8192), (4096, 64)], "two tensors overlap"),
    ("one begins where the other begins", [(0, 64), (0, 128)], "two tensors overlap"),
    ("one range a hundred times", [(0, 8192)] * 100, "tensors of 819200 bytes in all"),
]


@pytest.mark.parametrize(("sentence", "ranges", "match"), APART, ids=[case[0] for case in APART])
def test_ranges_share_all_or_nothing(sentence, ranges, match):
    raw = in_one(*ranges)
    if not match:
        check_graph(raw, {BLOB: 8192})
        return
    with pytest.raises(EdgeError, match=match):
        check_graph(raw, {BLOB: 8192})


def operator(domain: str, op: str = "Op", **more: object) -> ModelProto:
    return helper.make_model(
        helper.make_graph([helper.make_node(op, [], ["y"], domain=domain)], "g", [], []), **more
    )


def nested(model: ModelProto) -> ModelProto:
    node = helper.make_node("If", ["c"], ["y"], then_branch=model.graph, else_branch=model.graph)
    return helper.make_model(helper.make_graph([node], "outer", [], []))


OWN = helper.make_function("own", "Op", [], ["y"], [helper.make_node("Op", [], ["y"])], [])
EVIL = helper.make_function(
    "own",
    "Op",
    [],
    ["y"],
    [helper.make_node("Op", [], ["y"], domain="evil")],
    [helper.make_opsetid("evil", 1)],
)
EXTENSIONS = ("onnxruntime-extensions",)
OPERATORS = [
    ("the standard's", operator(""), (), ""),
    ("the runtime's own", operator("com.microsoft"), (), ""),
    ("a library that the manifest names", operator("ai.onnx.contrib"), EXTENSIONS, ""),
    ("a library that it does not name", operator("ai.onnx.contrib"), (), "'Op' is of domain 'ai.onnx.contrib'"),
    ("from nowhere", operator("evil"), EXTENSIONS, "'Op' is of domain 'evil', which the manifest's custom_ops"),
    ("from nowhere, in a branch", nested(operator("evil")), (), "domain 'evil'"),
    ("the graph's own function", operator("own", functions=[OWN]), (), ""),
    ("from nowhere, in a function of its own", operator("own", functions=[EVIL]), (), "domain 'evil'"),
    ("a compiled file", operator("com.microsoft", "EPContext"), (), "EPContext stands for a compiled file"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "model", "custom_ops", "match"), OPERATORS, ids=[c[0] for c in OPERATORS]
)
def test_operators_come_from_where_the_manifest_says(sentence, model, custom_ops, match):
    raw = model.SerializeToString()
    if not match:
        check_graph(raw, {}, custom_ops)
        return
    with pytest.raises(EdgeError, match=match):
        check_graph(raw, {}, custom_ops)


def test_what_may_be_published_may_be_loaded():
    assert publishing.DOMAINS == DOMAINS
    assert {domain: library for library, domain in LIBRARIES.items()} == publishing.EXTENSION_DOMAINS


BROKEN = [
    ("a length past the end", b"\x3a\x7f\x00"),
    ("a number that never ends", b"\x08" + b"\xff" * 20),
    ("a fixed field cut off", b"\x0d\x00"),
    ("a group", b"\x0b\x0c"),
]


@pytest.mark.parametrize(("sentence", "raw"), BROKEN, ids=[case[0] for case in BROKEN])
def test_bytes_that_are_no_graph_are_refused(sentence, raw):
    with pytest.raises(EdgeError, match="publish the model again"):
        check_graph(raw, {})


def test_graphs_nested_without_end_are_refused():
    raw = b""
    for _ in range(40):  # graph { node { attribute { g: graph
        attribute = b"\x32" + _sized(raw)
        raw = b"\x0a" + _sized(b"\x2a" + _sized(attribute))
    with pytest.raises(EdgeError, match="nest deeper"):
        check_graph(b"\x3a" + _sized(raw), {})


def _sized(raw: bytes) -> bytes:
    size, out = len(raw), b""
    while size > 0x7F:
        out += bytes([size & 0x7F | 0x80])
        size >>= 7
    return out + bytes([size]) + raw
