"""What an operator can do to a running node: over the admin plane, with popctl, and with a key in public."""

import concurrent.futures
import http.client
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tritonclient.http

from edge.policy.keys import digest
from netlab.clock import wait_until
from tests.support import tiny
from tests.support.node import Answer, Node, open_directory, running_node
from tests.support.ports import free_port
from tests.support.stores import a_store, doubler

BODY = json.dumps({"input": [[0.0] * 16]})
KEYS = {"user": "infer", "chief": "operate"}


@pytest.fixture(scope="module")
def node():
    """One worker, small models, keys for a user and an operator; lists need a key."""
    with open_directory() as root:
        (root / "origin" / "blobs").mkdir(parents=True)
        blobs = root / "origin" / "blobs"
        a_store(
            root / "origin", tiny.identity(blobs), doubler(blobs), tiny.picker(blobs), tiny.spinner(blobs)
        )
        keys = root / "keys.yaml"
        keys.write_text(
            "keys:\n"
            + "".join(
                f"  - {{name: {name}, sha256: {digest(name)}, roles: [{role}]}}\n"
                for name, role in KEYS.items()
            )
        )
        port = free_port()
        public = (
            f'public:\n  listen: ["127.0.0.1:{port}"]\n  keys_file: {keys}\n  lists_need_key: true\n'
            "drain:\n  lame_duck_ms: 100\n"
        )
        with running_node(origin=f"file://{root}/origin", extra=public, port=port) as running:
            yield running


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


def admin(node: Node, method: str, path: str, body: Any = None) -> Answer:
    """One call on the node's UNIX socket; `body` as JSON, or raw bytes."""
    connection = http.client.HTTPConnection("admin", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(str(node.directory / "run" / "admin.sock"))
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, raw)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def popctl(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("popctl"))
    return subprocess.run(
        [program, *arguments, "-c", str(node.directory / "node.yaml")],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def told(node: Node, *arguments: str) -> Any:
    """What a command says as JSON; it must succeed."""
    ran = popctl(node, *arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def row(node: Node, model: str, version: str = "1") -> Any:
    rows = told(node, "models", "ls")["models"]
    return next(one for one in rows if (one["model"], one["version"]) == (model, version))


REFUSED = [
    ("no such path", "GET", "/edge/nothing", None, 404, "unknown-path"),
    ("a method that it does not take", "POST", "/edge/state", None, 405, "bad-method"),
    ("a model that nobody knows", "GET", "/edge/models/nobody", None, 404, "unknown-model"),
    ("a request that nobody remembers", "GET", "/edge/explain/nothing", None, 404, "unknown-path"),
    ("an unknown field", "POST", "/edge/drain", {"now": True}, 400, "bad-request"),
    ("no JSON", "POST", "/edge/explain", b"{", 400, "bad-request"),
    ("a model that is no text", "POST", "/edge/explain", {"model": 7}, 400, "bad-request"),
    ("an unknown wish", "POST", "/edge/explain", {"model": "identity", "warm": 1}, 400, "bad-request"),
    ("a place that is none", "POST", "/edge/explain", {"model": "identity", "force": ["../eu"]}, 400, "bad-request"),
    ("an empty session", "POST", "/edge/explain", {"model": "identity", "session": ""}, 400, "bad-request"),
    ("a word that is none", "POST", "/edge/explain", {"model": "identity", "cold": "icy"}, 400, "bad-request"),
    ("a child that is none", "POST", "/edge/restart", {"roles": ["king"]}, 400, "bad-request"),
    ("a tier that is none", "POST", "/edge/models/identity/prefetch", {"tier": "moon"}, 400, "bad-request"),
    ("a worker that is none", "POST", "/edge/models/identity/prefetch", {"tier": "device", "worker": "9"}, 503, "no-endpoint"),
    ("a version that is none", "POST", "/edge/models/identity/prefetch", {"version": "9"}, 404, "unknown-model"),
    ("an evict that does not say from where", "POST", "/edge/models/identity/evict", {}, 400, "bad-request"),
    ("a pin that does not say which way", "POST", "/edge/models/identity/pin", None, 400, "bad-request"),
    ("a body that is a book", "POST", "/edge/explain", b" " * 70_000, 413, "too-large"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "method", "path", "body", "status", "reason"), REFUSED, ids=[row[0] for row in REFUSED]
)
def test_the_admin_plane_refuses_by_name(node, sentence, method, path, body, status, reason):
    answer = admin(node, method, path, body)
    assert (answer.status, answer.json["reason"]) == (status, reason), answer
    assert answer.json["error"], sentence


def test_a_model_comes_near_stays_and_goes(node):
    assert told(node, "models", "prefetch", "picker")["outcome"] == "on-disk"
    wait_until(lambda: row(node, "picker")["on_disk"] == [node.name], "it is on disk", within_s=5)
    assert row(node, "picker")["on_device"] == []
    done = told(node, "models", "prefetch", "picker", "--tier", "device", "--worker", "0")
    assert (done["outcome"], done["workers"]) == ("resident", [f"{node.name}/0"])
    assert row(node, "picker")["on_device"] == [f"{node.name}/0"]
    told(node, "models", "pin", "picker")
    refused = popctl(node, "models", "evict", "picker")
    assert (refused.returncode, "pinned" in refused.stderr) == (1, True)
    told(node, "models", "unpin", "picker")
    refused = popctl(node, "models", "evict", "picker", "--tier", "disk")
    assert (refused.returncode, "evict it from the device first" in refused.stderr) == (1, True)
    assert told(node, "models", "evict", "picker")["freed_bytes"] > 0
    assert told(node, "models", "evict", "picker")["outcome"] == "absent"
    told(node, "models", "evict", "picker", "--tier", "disk")
    wait_until(lambda: row(node, "picker")["on_disk"] == [], "it has left the disk", within_s=5)


def test_a_model_is_shown_with_what_it_takes(node):
    shown = told(node, "models", "show", "identity")
    assert (shown["current"], [one["version"] for one in shown["versions"]]) == ("2", ["1", "2"])
    assert shown["manifest"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}]
    assert popctl(node, "models", "show", "nobody").returncode == 4
    assert "identity" in popctl(node, "models", "ls").stdout


def test_the_weight_store_is_shown(node):
    node.request("/run/identity", BODY)
    assert told(node, "weights")["weights"]["disk_used_bytes"] > 0
    assert "disk_used_bytes" in popctl(node, "weights").stdout


def test_peers_of_a_node_without_any(node):
    assert told(node, "peers")["peers"] == []
    assert popctl(node, "peers").stdout == "this node has no peers\n"


def test_a_request_is_explained_afterwards(node):
    answer = node.request("/run/identity", BODY, {"X-Request-Id": "why-1"})
    assert answer.status == 200, answer
    document = told(node, "explain", "why-1")
    assert (document["model"], document["version"], document["status"]) == ("identity", "2", 200)
    (candidate,) = document["decisions"][0]["candidates"]
    assert (candidate["endpoint"], candidate["why_not"]) == (f"{node.name}/0", "")
    lines = popctl(node, "explain", "why-1").stdout.splitlines()
    assert lines[0].startswith("why-1: identity version 2, status 200 by one-a/0 in ")
    assert lines[2].split()[:3] == ["endpoint", "score", "net"]
    assert lines[3].split()[0] == f"{node.name}/0"
    unknown = popctl(node, "explain", "never-asked")
    assert (unknown.returncode, unknown.stdout) == (4, "")


def test_a_dry_run_heeds_wishes_and_runs_nothing(node):
    node.request("/run/identity", BODY)
    before = node.request("/v2/models/identity/stats").json
    document = told(node, "explain", "--model", "identity")
    assert document["decision"]["route"] == "serve"
    document = told(node, "explain", "--model", "identity", "--force", "mars")
    assert document["decision"] == {"route": "shed", "reason": "region-unavailable", "retry_after_s": document["decision"]["retry_after_s"]}  # fmt: skip
    assert document["candidates"][0]["why_not"] == "not-forced"
    assert node.request("/v2/models/identity/stats").json == before
    assert popctl(node, "explain").returncode == 2
    assert popctl(node, "explain", "x", "--model", "identity").returncode == 2


def test_drain_says_connection_close_and_undrain_takes_it_back(node):
    done = told(node, "drain", "--wait")
    assert (done["phase"], done["running"]) == ("drained", 0)
    answer = node.request("/run/identity", BODY)
    assert (answer.status, answer.headers.get("connection")) == (200, "close"), "what still comes is answered"
    assert told(node, "undrain")["phase"] == "serving"
    assert "close" not in node.request("/run/identity", BODY).headers.get("connection", "")


def test_a_drain_ends_the_connections_that_nobody_asks_on(node):
    kept = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    kept.request("GET", "/pop")
    kept.getresponse().read()
    told(node, "drain")
    assert kept.sock.recv(1) == b"", "or the next POP would reset it"
    kept.close()
    told(node, "undrain")


def test_a_drained_node_stays_drained_whatever_becomes_of_its_proxy(node):
    told(node, "drain")
    refused = popctl(node, "announce")
    assert (refused.returncode, "popctl undrain" in refused.stderr) == (1, True), refused.stderr
    told(node, "withdraw")
    told(node, "restart", "proxy", "--wait")
    assert told(node, "status")["phase"] == "drained", "its successor knows"
    before = node.kill("proxy")
    wait_until(lambda: node.child("proxy") not in (0, before), "another proxy is there", within_s=20)
    wait_until(lambda: popctl(node, "status").returncode == 0, "it answers", within_s=20)
    assert told(node, "status")["phase"] == "drained", "so does the one after a death"
    assert told(node, "undrain")["phase"] == "serving"
    told(node, "restart", "proxy", "--wait")
    assert told(node, "status")["phase"] == "serving"


def test_drain_waits_for_what_runs(node):
    endless = json.dumps({"input": [tiny.ENDLESS]})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(node.request, "/run/spinner", endless, {"Edge-Deadline-Ms": "3000"})
        wait_until(lambda: admin(node, "GET", "/edge/drain").json["running"], "it runs", within_s=3)
        ran = popctl(node, "drain", "--wait", "--json")
        ended = running.done()
        assert running.result(10).status == 504
    told(node, "undrain")
    assert (ran.returncode, json.loads(ran.stdout)["running"], ended) == (0, 0, True), ran.stderr
    assert "1 requests still run" in ran.stderr


def test_restart_waits_until_all_are_back(node):
    before = {child["role"]: child["pid"] for child in node.state["tree"]["children"]}
    done = told(node, "restart", "worker", "proxy", "--wait")
    after = {child["role"]: child["pid"] for child in done["children"]}
    assert after["weights"] == before["weights"]
    assert after["proxy"] != before["proxy"]
    assert after["worker-0"] != before["worker-0"]
    assert all(child["up"] and child["ready"] for child in done["children"])
    assert node.request("/run/identity", BODY).status == 200


def test_a_proxy_that_leaves_leaves_the_admin_socket_to_its_successor(node):
    """Only the old one knows of `before`; it still finishes a request when the new one is asked."""
    endless = json.dumps({"input": [tiny.ENDLESS]})
    assert node.request("/run/identity", BODY, {"X-Request-Id": "before"}).status == 200
    assert admin(node, "GET", "/edge/explain/before").status == 200
    old = node.child("proxy")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(node.request, "/run/spinner", endless, {"Edge-Deadline-Ms": "7000"})
        wait_until(lambda: admin(node, "GET", "/edge/drain").json["running"], "it runs", within_s=3)
        assert admin(node, "POST", "/edge/restart", {"roles": ["proxy"]}).status == 200
        wait_until(lambda: node.child("proxy") != old, "the new one is there", within_s=6)
        found = [admin(node, "GET", "/edge/explain/before").status for _ in range(60)]
        ended = running.done()
        assert running.result(20).status == 504
    assert not ended, "the old one was gone too soon for this to show anything"
    assert set(found[10:]) == {404}, f"the old one still answered: {found}"
    wait_until(lambda: not node.state["tree"].get("restarting"), "the restart has ended", within_s=20)


def test_the_state_fits_a_screen(node):
    shown = popctl(node, "status").stdout
    assert f"node: {node.name}\n" in shown
    assert "phase: serving\n" in shown
    assert len(shown.splitlines()) < 40


PUBLIC = [
    ("a dry run without a key", "/v2/models/identity/explain", {}, b"", 401),
    ("a dry run with a user's key", "/v2/models/identity/explain", bearer("user"), b"", 403),
    ("a dry run with an operator's key", "/v2/models/identity/explain", bearer("chief"), b"", 200),
    ("of a version", "/v2/models/identity/versions/1/explain", bearer("chief"), b'{"body_bytes": 9}', 200),
    ("with a field that is none", "/v2/models/identity/explain", bearer("chief"), b'{"bytes": 9}', 400),
    ("of nobody", "/v2/models/nobody/explain", bearer("chief"), b"", 404),
    ("a guessed key", "/v2/models/identity/explain", bearer("guess"), b"", 401),
    ("load without a key", "/v2/repository/models/identity/load", {}, b"", 401),
    ("load with a user's key", "/v2/repository/models/identity/load", bearer("user"), b"{}", 403),
    ("load with an operator's key", "/v2/repository/models/identity/load", bearer("chief"), b"{}", 200),
    ("load of another configuration", "/v2/repository/models/identity/load", bearer("chief"), b'{"parameters": {"config": "{}"}}', 400),
    ("unload with an operator's key", "/v2/repository/models/identity/unload", bearer("chief"), b'{"parameters": {"unload_dependents": false}}', 200),
    ("a list without a key", "/v2/repository/index", {}, b"", 401),
    ("a list with a guessed key", "/v2/repository/index", bearer("guess"), b"", 401),
    ("a list with a user's key", "/v2/repository/index", bearer("user"), b"", 200),
    ("a list with an operator's key", "/v2/repository/index", bearer("chief"), b"", 200),
    ("statistics of all without a key", "/v2/models/stats", {}, None, 401),
    ("statistics of all with a key", "/v2/models/stats", bearer("user"), None, 200),
    ("one model without a key", "/v2/models/identity", {}, None, 200),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "path", "headers", "body", "status"), PUBLIC, ids=[row[0] for row in PUBLIC]
)
def test_what_a_key_opens_on_the_public_plane(node, sentence, path, headers, body, status):
    answer = node.request(path, body, headers)
    assert answer.status == status, f"{sentence}: {answer}"


def test_a_public_dry_run_heeds_the_request_s_own_headers(node):
    wishes = {**bearer("chief"), "Edge-Force-Region": "mars"}
    document = node.request("/v2/models/identity/explain", b"", wishes).json
    assert document["decision"]["reason"] == "region-unavailable"


def test_tritonclient_loads_and_unloads_with_a_key(node):
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{node.port}")
    try:
        client.load_model("picker", headers=bearer("chief"))
        assert row(node, "picker")["on_device"] == [f"{node.name}/0"]
        client.unload_model("picker", headers=bearer("chief"))
        assert row(node, "picker")["on_device"] == []
        assert {one["name"] for one in client.get_model_repository_index(headers=bearer("user"))} == {
            "identity",
            "picker",
            "spinner",
        }
    finally:
        client.close()
