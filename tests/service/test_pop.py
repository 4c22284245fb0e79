"""Two nodes of a POP: an ingress without a worker, and one that has it, over mutual TLS."""

import contextlib
import json
import socket
import ssl

import pytest

from netlab.ca import issue, write_ca
from netlab.clock import wait_until
from tests.support.node import free_port, open_directory, running_node

ROW = json.dumps({"input": [[1.0] * 16]})


def mesh_section(directory, port, certificate, key, peers=""):
    return (
        f"mesh:\n  listen: 127.0.0.1:{port}\n  ca: {directory}/ca.pem\n  certificate: {certificate}\n  key: {key}\n"
        + (f"  peers:\n{peers}" if peers else "")
    )


@contextlib.contextmanager
def pop(*, foreign_worker=False):
    """(ingress, worker node, mesh port of the worker node); with a foreign CA on the worker's side on request."""
    with open_directory() as pki, open_directory() as foreign_pki, contextlib.ExitStack() as stack:
        ca = write_ca(pki)
        foreign = write_ca(foreign_pki)
        a_cert, a_key = issue(ca, "iad-a", ["127.0.0.1"], pki)
        side = foreign_pki if foreign_worker else pki
        b_cert, b_key = issue(foreign if foreign_worker else ca, "iad-b", ["127.0.0.1"], side)
        a_port, b_port = free_port(), free_port()
        b = stack.enter_context(
            running_node(name="iad-b", pop="iad", extra=mesh_section(side, b_port, b_cert, b_key))
        )
        peers = f'    - {{node: iad-b, pop: iad, address: "127.0.0.1:{b_port}", workers: 1}}\n'
        a = stack.enter_context(
            running_node(
                name="iad-a", pop="iad", workers=(), extra=mesh_section(pki, a_port, a_cert, a_key, peers)
            )
        )
        yield a, b, b_port


@pytest.fixture(scope="module")
def nodes():
    with pop() as (a, b, port):
        wait_until(lambda: a.state["endpoints"][0]["state"] == "up", "iad-a sees iad-b", within_s=10)
        yield a, b, port


def test_the_ingress_answers_from_the_node_that_has_the_worker(nodes):
    a, _, _ = nodes
    a.request("/run/identity", ROW)
    answer = a.request("/run/identity", ROW)
    assert answer.status == 200, answer
    assert answer.json["outputs"]["y"] == [[1.0] * 16]
    assert (answer.headers["edge-pop"], answer.headers["edge-served-by"]) == ("iad", "iad-b/0")
    wait_until(
        lambda: a.request("/run/identity", ROW).headers["edge-route"] == "serve;reason=warm-peer",
        "the ingress knows that its peer is warm",
        within_s=5,
    )


def test_metadata_is_answered_by_a_node_without_a_worker(nodes):
    a, _, _ = nodes
    assert a.request("/v2/models/minilm").json["inputs"] == [
        {"name": "text", "datatype": "BYTES", "shape": [-1]}
    ]
    assert a.request("/v2/health/ready").json == {"ready": True}


def test_a_large_body_goes_over_a_link_of_its_own(nodes):
    a, _, _ = nodes
    answer = a.request(
        "/run/magika", b"# a comment\nimport os\n\n\ndef main() -> None:\n    print(os.name)\n" * 60_000
    )
    assert answer.status == 200, answer
    assert answer.json["label"] == "python"


def test_errors_cross_the_hop_unchanged(nodes):
    a, b, _ = nodes
    bad = '{"input": [[1, 2]]}'
    from_a, from_b = a.request("/run/identity", bad), b.request("/run/identity", bad)
    assert (from_a.status, from_a.json, from_a.headers["edge-drop-reason"]) == (
        from_b.status,
        from_b.json,
        from_b.headers["edge-drop-reason"],
    )


def knock(port, context):
    """TLS 1.3 refuses a client's certificate at the first read, not at the handshake."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw, context.wrap_socket(raw) as tls:
        tls.sendall(b"x")
        if tls.recv(1) == b"":
            raise ConnectionResetError("closed")


@pytest.mark.parametrize("certificate", ["none", "foreign"])
def test_the_mesh_takes_nobody_without_a_certificate_of_the_fleet(nodes, certificate):
    _, _, port = nodes
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with open_directory() as directory:
        if certificate == "foreign":
            cert, key = issue(write_ca(directory), "iad-a", ["127.0.0.1"], directory)
            context.load_cert_chain(cert, key)
        with pytest.raises(OSError, match=r"(?i)alert|reset|closed|eof|certificate"):
            knock(port, context)


def test_a_peer_of_another_fleet_is_never_up():
    with pop(foreign_worker=True) as (a, _, _):
        endpoint = a.state["endpoints"][0]
        assert (endpoint["name"], endpoint["state"]) == ("iad-b", "down")
        answer = a.request("/run/identity", ROW)
        assert (answer.status, answer.headers["edge-drop-reason"]) == (503, "no-endpoint")
        assert 1 <= int(answer.headers["retry-after"]) <= 3


def test_a_node_without_worker_and_without_peers_refuses_with_its_reason():
    with running_node(name="ams-a", pop="ams", workers=()) as node:
        answer = node.request("/run/minilm", "hello")
        assert (answer.status, answer.headers["edge-drop-reason"]) == (503, "no-endpoint")
        assert answer.headers["edge-pop"] == "ams"
        assert node.request("/v2/health/ready").status == 503
        assert node.request("/v2/models/minilm/ready").status == 400
        index = node.request("/v2/repository/index", b"{}").json
        assert {row["state"] for row in index} == {"UNAVAILABLE"}


def test_the_peer_dies_and_comes_back(nodes):
    a, b, _ = nodes
    b.kill("proxy")
    wait_until(lambda: a.state["endpoints"][0]["state"] != "up", "iad-a noticed", within_s=5)
    wait_until(lambda: a.state["endpoints"][0]["state"] == "up", "iad-b is back", within_s=15)
    assert a.request("/run/identity", ROW).status == 200
