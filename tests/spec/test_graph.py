"""The whole specification of edge/worker/graph.py: which graphs may be loaded beside which blobs."""

import pytest
from onnx import ModelProto, TensorProto, helper

from edge.errors import EdgeError, Reason
from edge.worker.graph import check_external

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
    check_external(place(external(GOOD)).SerializeToString(), {BLOB: 8192})


@pytest.mark.parametrize("place", PLACES)
def test_another_file_is_found_wherever_it_hides(place):
    raw = place(external(GOOD | {"location": "/etc/passwd"})).SerializeToString()
    with pytest.raises(EdgeError, match="'/etc/passwd', which is no weights blob") as caught:
        check_external(raw, {BLOB: 8192})
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
        check_external(in_initializer(external(entries)).SerializeToString(), {BLOB: 8192})


def test_entries_without_the_declaration_are_refused_too():
    with pytest.raises(EdgeError, match="exactly"):
        check_external(in_initializer(external(GOOD, declared=False)).SerializeToString(), {BLOB: 8192})


def test_a_key_given_twice_is_refused():
    tensor = external(GOOD)
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(EdgeError, match="'location' twice"):
        check_external(in_initializer(tensor).SerializeToString(), {BLOB: 8192})


BROKEN = [
    ("a length past the end", b"\x3a\x7f\x00"),
    ("a number that never ends", b"\x08" + b"\xff" * 20),
    ("a fixed field cut off", b"\x0d\x00"),
    ("a group", b"\x0b\x0c"),
]


@pytest.mark.parametrize(("sentence", "raw"), BROKEN, ids=[case[0] for case in BROKEN])
def test_bytes_that_are_no_graph_are_refused(sentence, raw):
    with pytest.raises(EdgeError, match="publish the model again"):
        check_external(raw, {})


def test_graphs_nested_without_end_are_refused():
    raw = b""
    for _ in range(40):  # graph { node { attribute { g: graph
        attribute = b"\x32" + _sized(raw)
        raw = b"\x0a" + _sized(b"\x2a" + _sized(attribute))
    with pytest.raises(EdgeError, match="nest deeper"):
        check_external(b"\x3a" + _sized(raw), {})


def _sized(raw: bytes) -> bytes:
    size, out = len(raw), b""
    while size > 0x7F:
        out += bytes([size & 0x7F | 0x80])
        size >>= 7
    return out + bytes([size]) + raw
