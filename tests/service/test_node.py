"""A whole node on loopback: `popctl serve`, real children, real models, plain HTTP."""

import concurrent.futures
import http.client
import json
import math
import os
import signal
from pathlib import Path

import pytest

from edge.config import Users
from netlab.clock import wait_until
from tests.support.node import STORE, open_directory, running_node
from tests.support.ports import free_port

SIXTEEN = [float(number) for number in range(16)]


@pytest.fixture(scope="module")
def node():
    with running_node() as running:
        yield running


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def embed(node, text):
    answer = node.request("/run/minilm", text)
    assert answer.status == 200, answer
    return answer.json["embedding"]


def test_text_in_vector_out(node):
    answer = node.request("/run/minilm", "How do I reach the nearest GPU?")
    assert answer.status == 200, answer
    assert (answer.json["model"], answer.json["version"]) == ("minilm", "1")
    assert len(answer.json["embedding"]) == 384


def test_a_paraphrase_is_nearer_than_an_unrelated_sentence(node):
    question, same, other = (
        embed(node, text)
        for text in (
            "How do I reach the nearest GPU?",
            "Which is the way to the closest accelerator?",
            "The cat sleeps on the sofa.",
        )
    )
    assert cosine(question, same) > cosine(question, other) + 0.2


def test_two_strings_in_one_call_are_two_texts_not_a_sentence_pair(node):
    texts = ["How do I reach the nearest GPU?", "The cat sleeps on the sofa."]
    answer = node.request("/run/minilm", json.dumps({"input": texts}), {"Content-Type": "application/json"})
    assert answer.status == 200, answer
    for together, text in zip(answer.json["embeddings"], texts, strict=True):
        assert cosine(together, embed(node, text)) > 0.99999


def test_bytes_in_file_type_out(node):
    answer = node.request("/run/magika", (STORE.parents[1] / "Makefile").read_bytes())
    assert answer.status == 200, answer
    assert answer.json["label"] == "makefile"
    assert answer.json["score"] > 0.5


def test_the_answer_says_where_it_ran_and_why(node):
    node.request("/run/identity", json.dumps({"input": [SIXTEEN]}))
    answer = node.request("/run/identity", json.dumps({"input": [SIXTEEN]}), {"X-Request-Id": "my-own.id_1"})
    assert answer.headers["edge-pop"] == "one"
    assert answer.headers["edge-served-by"] == "one-a/0"
    assert answer.headers["edge-route"].startswith("serve;reason=warm;score=")
    assert answer.headers["edge-residency"] == "device"
    assert answer.headers["edge-request-id"] == "my-own.id_1"
    stages = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
    assert list(stages) == ["route", "queue", "hydrate", "infer", "hop"]
    assert float(stages["infer"]) > 0.0
    assert float(stages["hydrate"]) == 0.0


def test_the_first_request_of_a_model_says_that_it_was_cold(node):
    answer = node.request("/run/mlp", json.dumps({"input": [[0.0] * 256]}))
    assert answer.status == 200, answer
    assert answer.headers["edge-route"].startswith("hydrate;reason=cold;score=")
    assert answer.headers["edge-residency"] in ("origin", "disk")
    again = node.request("/run/mlp", json.dumps({"input": [[0.0] * 256]}))
    assert again.headers["edge-route"].startswith("serve;reason=warm;score=")
    assert again.headers["edge-residency"] == "device"


def test_who_am_i(node):
    lines = dict(line.split(": ") for line in node.request("/pop").body.decode().splitlines())
    assert lines == {"pop": "one", "node": "one-a", "region": "us", "client": "127.0.0.1"}


def test_sixty_four_at_once_get_their_own_answers(node):
    def ask(number):
        row = [float(number)] * 16
        return number, node.request("/run/identity", json.dumps({"input": [row]}))

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for number, answer in pool.map(ask, range(64)):
            assert answer.status == 200, answer
            assert answer.json["outputs"]["y"][0] == [float(number)] * 16


@pytest.mark.parametrize(
    ("sentence", "path", "body", "headers", "status", "match"),
    [
        ("an unknown model", "/run/nobody", b"x", {}, 404, "unknown model"),
        ("an unknown version", "/v2/models/identity/versions/7/infer", b"{}", {}, 404, "version"),
        ("an unknown path", "/admin", None, {}, 404, "no such path"),
        ("GET where POST is meant", "/run/identity", None, {}, 405, "POST"),
        ("malformed JSON", "/v2/models/identity/infer", b'{"inputs": [', {}, 400, ""),
        ("a wrong shape", "/run/identity", b'{"input": [[1, 2]]}', {}, 400, ""),
        ("load is the operator's", "/v2/repository/models/mlp/load", b"", {}, 403, "key file"),
        (
            "a deadline of nonsense",
            "/run/identity",
            b"{}",
            {"Edge-Deadline-Ms": "soon"},
            400,
            "Edge-Deadline-Ms",
        ),
        ("a deadline of zero", "/run/identity", b"{}", {"Edge-Deadline-Ms": "0"}, 400, "Edge-Deadline-Ms"),
        (
            "a header length of nonsense",
            "/v2/models/identity/infer",
            b"{}",
            {"Inference-Header-Content-Length": "-1"},
            400,
            "Inference-Header",
        ),
    ],
)
def test_refusals_are_json_and_name_their_reason(node, sentence, path, body, headers, status, match):
    answer = node.request(path, body, headers)
    assert answer.status == status, answer
    assert match in answer.json["error"]
    assert answer.headers["edge-pop"] == "one"
    assert answer.headers["edge-drop-reason"]


def test_a_body_over_the_cap_is_refused_and_the_client_sees_it(node):
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    connection.putrequest("POST", "/run/magika")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    connection.close()


def test_a_body_of_several_megabytes_streams_through(node):
    answer = node.request("/run/magika", b"#include <stdio.h>\nint main(void) { return 0; }\n" * 100_000)
    assert answer.status == 200, answer
    assert answer.json["label"] in ("c", "cpp", "h")


def test_metrics_tell_what_happened(node):
    node.request("/run/identity", json.dumps({"input": [SIXTEEN]}))
    text = node.admin("/metrics").body.decode()
    assert (
        'edge_requests_total{code="200",model="identity",pop="one",route="serve",served_by="one-a/0"}' in text
    )
    assert 'edge_endpoint_up{served_by="one-a/0"} 1.0' in text
    assert 'edge_build_info{node="one-a",pop="one"' in text


def test_state_is_one_document(node):
    state = node.state
    assert (state["node"], state["pop"], state["schema_version"]) == ("one-a", "one", 1)
    assert state["endpoints"][0]["state"] == "up"
    assert {child["role"] for child in state["tree"]["children"]} == {"proxy", "weights", "worker-0"}


def test_children_have_no_rights(node):
    if os.getuid() != 0:
        pytest.skip("needs root: without it children keep the uid of their parent")
    for role in ("proxy", "weights", "worker-0"):
        status = dict(
            line.split(":\t")
            for line in Path(f"/proc/{node.child(role)}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == "0" * 16
        assert status["NoNewPrivs"] == "1"
        assert status["Uid"].split()[0] not in ("0", "")


def test_a_worker_that_is_killed_comes_back_and_only_its_requests_fail(node):
    body = json.dumps({"input": [SIXTEEN]})
    assert node.request("/run/identity", body).status == 200
    dead = node.kill("worker-0")
    wait_until(lambda: node.state["endpoints"][0]["state"] != "up", "the death was noticed", within_s=5)
    answer = node.request("/run/identity", body)
    assert answer.status == 200, f"a request after the death waits for the new worker: {answer}"
    assert node.child("worker-0") != dead


def test_a_worker_keeps_optimised_graphs_for_its_successor_and_shows_them_to_nobody(node):
    cache = node.directory / "run" / "worker-0.cache"

    def kept() -> list[Path]:
        embed(node, "the nearest one answers")
        return list(cache.iterdir())

    wait_until(kept, "a model in use is prepacked, and its graph kept", within_s=30)
    assert cache.stat().st_mode & 0o777 == 0o700
    if os.getuid() == 0:
        assert {path.stat().st_uid for path in (cache, *kept())} == {Users().worker}
    before = embed(node, "the nearest one answers")
    node.kill("worker-0")
    wait_until(lambda: node.state["endpoints"][0]["state"] != "up", "the death was noticed", within_s=5)
    assert cosine(before, embed(node, "the nearest one answers")) > 0.99999


def test_a_proxy_that_is_killed_is_back_on_the_same_socket(node):
    dead = node.kill("proxy")
    answer = node.request("/run/identity", json.dumps({"input": [SIXTEEN]}))
    assert answer.status == 200, f"a connection made meanwhile waits in the backlog: {answer}"
    assert wait_until(lambda: node.child("proxy") != dead, "the proxy has a new pid", within_s=5)


def test_weights_that_are_killed_come_back_and_warm_requests_do_not_notice(node):
    body = json.dumps({"input": [SIXTEEN]})
    assert node.request("/run/identity", body).status == 200
    node.kill("weights")
    for _ in range(20):
        assert node.request("/run/identity", body).status == 200
    cold = node.request("/run/ballast-64mb", json.dumps({"input": [[0.0] * 64]}))
    assert cold.status == 200, cold


def test_the_unicast_admin_port_takes_a_token():
    with open_directory() as secrets:
        (secrets / "token").write_text("s3cret-s3cret-s3cret\n")
        port = free_port()
        admin = f"admin:\n  listen: 127.0.0.1:{port}\n  token_file: {secrets}/token\n"
        with running_node(extra=admin) as node:
            for given, status in (
                ({}, 401),
                ({"Authorization": "Bearer wrong"}, 401),
                ({"Authorization": "Bearer s3cret-s3cret-s3cret"}, 200),
            ):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", "/metrics", headers=given)
                assert connection.getresponse().status == status
                connection.close()
            assert node.request("/metrics").status == 404, "the public plane has no admin paths"
            assert "telemetry" not in node.log_text.lower()


def test_a_stop_is_clean():
    with running_node() as node:
        pids = [child["pid"] for child in node.state["tree"]["children"]]
        assert node.request("/run/identity", json.dumps({"input": [SIXTEEN]})).status == 200
        assert node.stop() == 0
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        assert not (node.directory / "run" / "ready").exists()
        assert not [line for line in node.log if line["level"] == "error"]


def test_a_parent_that_is_killed_takes_its_children_along():
    with running_node() as node:
        pids = [child["pid"] for child in node.state["tree"]["children"]]
        node.process.send_signal(signal.SIGKILL)
        wait_until(
            lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()],
            "the children are gone",
            within_s=10,
        )
