"""Hostile bodies against a real node: 4xx with a sentence, in bounded time and memory, and it serves on."""

import gzip
import json
import struct
import zlib
from pathlib import Path

import pytest

from netlab.clock import now_s
from tests.support.node import running_node

INFER = "/v2/models/identity/infer"
ROW = [0.0] * 16
JSON_TYPE = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def node():
    with running_node() as running:
        assert running.request("/run/identity", json.dumps({"input": [ROW]})).status == 200
        yield running


def tensor(**changes):
    plain = {"name": "x", "datatype": "FP32", "shape": [1, 16], "data": ROW}
    return {"inputs": [{**plain, **changes}]}


def text(value):
    return json.dumps(value).encode()


def binary(header, tail):
    raw = text(header)
    return raw + tail, {"Inference-Header-Content-Length": str(len(raw))}


def with_binary(size, tail, **changes):
    one = {
        "name": "x",
        "datatype": "FP32",
        "shape": [1, 16],
        "parameters": {"binary_data_size": size},
        **changes,
    }
    return binary({"inputs": [one]}, tail)


CASES = [
    ("no JSON", b"{", {}, 400),
    ("nothing", b"", {}, 400),
    ("no UTF-8", b"\xff\xfe{}", {}, 400),
    ("an array", b"[]", {}, 400),
    ("no inputs", b"{}", {}, 400),
    ("NaN", b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[NaN]}]}', {}, 400),
    ("depth of 10,000", b"[" * 10_000, {}, 400),
    ("depth of 100,000 in the data", text(tensor()).replace(b"[0.0", b"[" * 100_000 + b"0.0"), {}, 400),
    ("an integer of a million digits", text(tensor()).replace(b"[0.0", b"[" + b"9" * 1_000_000), {}, 400),
    ("a wrong dtype", text(tensor(datatype="INT64")), {}, 400),
    ("an unknown dtype", text(tensor(datatype="FP8")), {}, 400),
    ("a wrong shape", text(tensor(shape=[2, 8])), {}, 400),
    ("a shape that does not match the data", text(tensor(shape=[2, 16])), {}, 400),
    ("a negative dimension", text(tensor(shape=[-1, 16])), {}, 400),
    ("a product that overflows", text(tensor(shape=[2**40, 16])), {}, 400),
    ("a wrong name", text(tensor(name="y")), {}, 400),
    ("ragged data", text(tensor(data=[ROW, ROW[1:]])), {}, 400),
    ("an input twice", text({"inputs": tensor()["inputs"] * 2}), {}, 400),
    ("an unknown output", text({**tensor(), "outputs": [{"name": "z"}]}), {}, 400),
    ("a batch above the maximum", text(tensor(shape=[65, 16], data=[0.0] * 65 * 16)), {}, 400),
    ("binary shorter than it says", *with_binary(64, bytes(60)), 400),
    ("binary longer than it says", *with_binary(64, bytes(68)), 400),
    ("a binary size of 4 GiB", *with_binary(2**32, bytes(64)), 400),
    ("a header length beyond the body", text(tensor()), {"Inference-Header-Content-Length": "999999"}, 400),
    ("a header length of zero", text(tensor()), {"Inference-Header-Content-Length": "0"}, 400),
    ("an unknown coding", text(tensor()), {"Content-Encoding": "br"}, 415),
    ("gzip that is none", b"hello", {"Content-Encoding": "gzip"}, 400),
    ("a gzip bomb", gzip.compress(bytes(256 << 20), 9), {"Content-Encoding": "gzip"}, 413),
    ("a deflate bomb", zlib.compress(bytes(256 << 20), 9), {"Content-Encoding": "deflate"}, 413),
]


def memory_kib(pid):
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0])


@pytest.mark.parametrize(("sentence", "body", "headers", "status"), CASES, ids=[case[0] for case in CASES])
def test_bad_bodies(node, sentence, body, headers, status):
    worker, proxy = node.child("worker-0"), node.child("proxy")
    before_kib = memory_kib(worker), memory_kib(proxy)
    started_s = now_s()
    answer = node.request(INFER, body, {**JSON_TYPE, **headers})
    took_s = now_s() - started_s
    assert answer.status == status, answer
    assert answer.json["error"]
    assert answer.headers["content-type"] == "application/json"
    assert took_s < 5.0
    grown_kib = memory_kib(worker) - before_kib[0], memory_kib(proxy) - before_kib[1]
    assert max(grown_kib) < 96 * 1024, f"peak memory grew by {grown_kib} KiB"
    assert node.child("worker-0") == worker, "the worker died of it"


@pytest.mark.parametrize(
    ("sentence", "elements"),
    [
        ("a length beyond the end", struct.pack("<I", 100) + b"abc"),
        ("a length of 4 GiB", struct.pack("<I", 0xFFFFFFFF) + b"abc"),
        ("a length cut off", b"\x01\x00"),
    ],
)
def test_lying_bytes_elements(node, sentence, elements):
    one = {
        "name": "text",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": len(elements)},
    }
    body, headers = binary({"inputs": [one]}, elements)
    answer = node.request("/v2/models/minilm/infer", body, headers)
    assert answer.status == 400, answer


def test_a_bad_request_does_not_harm_its_neighbours_in_a_batch(node):
    import concurrent.futures

    def ask(number):
        good = number % 2 == 0
        body = text(tensor() if good else tensor(shape=[2, 8]))
        return good, node.request(INFER, body, JSON_TYPE).status

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for good, status in pool.map(ask, range(200)):
            assert status == (200 if good else 400)


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("a path inside", "..%2f..%2fetc"),
        ("dots", ".."),
        ("a NUL", "a%00b"),
        ("look-alikes", "%D1%96dentity"),
        ("300 characters", "m" * 300),
    ],
)
def test_model_names_are_names(node, sentence, name):
    answer = node.request(f"/v2/models/{name}/infer", text(tensor()), JSON_TYPE)
    assert answer.status in (400, 404), answer


def test_after_all_of_it_the_node_is_well(node):
    assert node.request("/run/identity", json.dumps({"input": [ROW]})).status == 200
    assert not [line for line in node.log if line.get("level") in ("error", "critical")]
    assert "Traceback" not in node.log_text
