"""A whole node whose clients name objects: what they get, what it costs, and what is refused."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.weights.entry import entry_path
from tests.support import tiny
from tests.support.blobs import Bucket
from tests.support.node import Answer, Node, open_directory, running_node
from tests.support.objects import put_object
from tests.support.ports import free_port
from tests.support.stores import a_store

ROW = [n + 0.5 for n in range(16)]
ROWS = struct.pack("<32f", *ROW, *ROW)
LIMIT = 100_000


@pytest.fixture(scope="module")
def origin() -> Iterator[Path]:
    with open_directory() as directory:
        root = directory / "origin"
        Bucket(root)
        a_store(root, tiny.identity(root / "blobs"))
        put_object(root, "rows/two.f32", ROWS)
        put_object(root, "huge", os.urandom(LIMIT + 1))
        bad = put_object(root, "bad", os.urandom(64))
        (root / "blobs" / bad.blake3).write_bytes(os.urandom(64))
        for path in root.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield root


@pytest.fixture(scope="module")
def node(origin: Path) -> Iterator[Node]:
    limits = f"  limits:\n    max_body_bytes: {LIMIT}\n"
    port = free_port()
    extra = f'public:\n  listen: ["127.0.0.1:{port}"]\n{limits}'
    with running_node(origin=f"file://{origin}/", extra=extra, port=port) as node:
        yield node


def named(name: str, shape: tuple[int, ...] = (2, 16), **more: Any) -> str:
    tensor = {"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"object": name}}
    return json.dumps({"inputs": [tensor], **more})


def infer(node: Node, body: str | bytes, **headers: str) -> Answer:
    return node.request(
        "/v2/models/identity/infer", body, {name.replace("_", "-"): v for name, v in headers.items()}
    )


def test_a_tensor_that_is_named_is_read_once_from_outside(node: Node, origin: Path) -> None:
    answer = infer(node, named("rows/two.f32"))
    assert answer.status == 200, answer.body
    assert answer.json["outputs"][0]["data"] == ROW + ROW
    entry_bytes = (origin / entry_path("rows/two.f32")).stat().st_size
    egress = dict(part.split("=") for part in answer.headers["edge-egress"].split(";"))
    model_bytes = int(egress["weights"]) - entry_bytes - len(ROWS)
    assert model_bytes >= 0, "the entry and the object, and the model, which was cold"
    assert float(answer.headers["server-timing"].split("hydrate;dur=")[1].split(",")[0]) > 0
    again = infer(node, named("rows/two.f32"))
    assert again.json["outputs"][0]["data"] == ROW + ROW
    assert again.headers["edge-egress"] == "req=0;weights=0"


def test_over_run_and_among_other_ways(node: Node) -> None:
    answer = node.request("/run/identity", '{"input": {"object": "rows/two.f32"}}')
    assert answer.json["outputs"]["y"] == [ROW, ROW]
    body = named("rows/two.f32", outputs=[{"name": "y", "parameters": {"binary_data": True}}])
    binary = infer(node, body)
    size = int(binary.headers["inference-header-content-length"])
    assert binary.body[size:] == ROWS


@pytest.mark.parametrize(
    ("sentence", "body", "status", "reason", "says"),
    [
        ("nobody published it", named("rows/none"), 404, "unknown-object", "popctl data push FILE rows/none"),
        ("more than a body may have", named("huge"), 413, "too-large", f"at most {LIMIT}"),
        ("the origin has other bytes", named("bad", (1, 16)), 503, "blob-corrupt", "bad"),
        ("another shape", named("rows/two.f32", (1, 16)), 400, "bad-input", "the object rows/two.f32 has 128"),
        ("a name that can't be", named("../catalog"), 400, "bad-input", "a name is up to 8 segments"),
        ("a name behind an escape", named("rows/two.f32").replace("rows/", "rows\\/"), 400, "bad-input", "plain"),
        ("in too long a JSON", named("rows/two.f32").ljust(20_000), 400, "bad-input", "at most 16384 bytes"),
    ],
)  # fmt: skip
def test_refused(node: Node, sentence: str, body: str, status: int, reason: str, says: str) -> None:
    answer = infer(node, body)
    assert (answer.status, says in answer.json["error"]) == (status, True), answer.body
    assert f"reason={reason}" in answer.headers["edge-route"]


def test_what_only_looks_like_a_reference_is_data(node: Node) -> None:
    """A parameter of the request is no input's: ignored, as the protocol asks, and cheap to be wrong about."""
    tensor = {"name": "x", "shape": [1, 16], "datatype": "FP32", "data": ROW}
    answer = infer(node, json.dumps({"inputs": [tensor], "parameters": {"object": "rows/none"}}))
    assert answer.status == 200, answer.body


def test_who_names_an_object_waits_for_a_weights_process_that_died(node: Node) -> None:
    node.kill("weights")
    answer = infer(node, named("rows/two.f32"), Edge_Deadline_Ms="20000")
    assert answer.status == 200, answer.body
