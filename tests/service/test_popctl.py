"""`popctl` as a program: data on stdout, sentences on stderr, and a status that says which kind."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge.cli.ask import AskError, ask
from tests.support.node import empty_origin, running_node


def popctl(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("popctl"))
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.fixture(scope="module")
def node():
    with empty_origin() as origin, running_node(origin=origin, workers=()) as running:
        yield running


@pytest.fixture
def answering(tmp_path):
    """A UNIX socket that answers one connection with given bytes, or keeps it waiting."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        threads = []

        def answer(raw: bytes) -> str:
            def serve() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(raw)

            threads.append(threading.Thread(target=serve))
            threads[-1].start()
            return str(path)

        yield answer
        for thread in threads:
            thread.join(5)


def test_status_of_a_running_node(node):
    config = node.directory / "node.yaml"
    state = json.loads(popctl("status", "--json", "-c", config).stdout)
    assert {child["role"] for child in state["tree"]["children"]} == {"proxy", "weights"}
    shown = popctl("status", "--socket", node.directory / "run" / "admin.sock")
    assert shown.returncode == 0
    assert f"node: {node.name}\n" in shown.stdout
    assert "announcement: never" in shown.stdout


def test_models_of_a_running_node(node):
    ran = popctl("models", "ls", "--json", "-c", node.directory / "node.yaml")
    assert json.loads(ran.stdout)["models"] == []


@pytest.mark.parametrize("command", ["withdraw", "announce"])
def test_a_node_without_an_announcement_says_never(node, command):
    ran = popctl(command, "--json", "-c", node.directory / "node.yaml")
    assert (ran.returncode, json.loads(ran.stdout)["announcement"], ran.stderr) == (0, "never", "")


def test_operators_calls_in_public_are_refused_without_a_key_file(node):
    answer = node.request("/v2/models/identity/explain", b"", {"Authorization": "Bearer chief"})
    assert (answer.status, "key file" in answer.json["error"]) == (403, True)
    assert node.request("/v2/repository/index", b"").status == 200, "lists need no key by default"


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["peers"],
        ["weights"],
        ["models", "ls"],
        ["drain"],
        ["undrain"],
        ["announce"],
        ["version"],
    ],
    ids=" ".join,
)
def test_json_is_one_document_on_stdout_and_nothing_else(node, command):
    place = [] if command == ["version"] else ["--socket", node.directory / "run" / "admin.sock"]
    ran = popctl(*command, "--json", *place)
    assert (ran.returncode, ran.stderr, len(ran.stdout.splitlines())) == (0, "", 1)
    assert isinstance(json.loads(ran.stdout), dict)


def test_version():
    versions = json.loads(popctl("version", "--json").stdout)
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["aiohttp"][0].isdigit()
    assert popctl("version").stdout.startswith("edgepop: ")


FAILURES = [
    ("no such command", ["fly"], 2, "No such command 'fly'"),
    ("no file for serve", ["serve"], 2, "Missing option '-c'"),
    (
        "a file that is not there",
        ["serve", "-c", "/nowhere.yaml"],
        1,
        "popctl: /nowhere.yaml: can't be read: No such",
    ),
    ("neither file nor socket", ["status"], 2, "popctl: give either -c FILE or --socket PATH"),
    ("both", ["status", "-c", "/a", "--socket", "/b"], 2, "popctl: give either -c FILE or --socket PATH"),
    ("no node there", ["status", "--socket", "/nowhere.sock"], 4, "popctl: no node runs here: /nowhere.sock"),
]


@pytest.mark.parametrize(
    ("sentence", "arguments", "status", "problem"), FAILURES, ids=[row[0] for row in FAILURES]
)
def test_a_failure_has_its_status_and_its_sentence(sentence, arguments, status, problem):
    ran = popctl(*arguments)
    assert (ran.returncode, ran.stdout) == (status, ""), sentence
    assert problem in ran.stderr


def test_a_dead_socket_is_a_failure(tmp_path):
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    ran = popctl("status", "--socket", path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "Connection refused" in ran.stderr


ANSWERS = [
    (
        "an error of the node",
        b'HTTP/1.1 502 x\r\nContent-Length: 17\r\n\r\n{"error": "gone"}',
        502,
        "gone .status 502",
    ),
    ("no such path", b"HTTP/1.1 404 x\r\nContent-Length: 2\r\n\r\n{}", 404, "refused .status 404"),
    ("no JSON", b"HTTP/1.1 200 x\r\nContent-Length: 2\r\n\r\nhi", 200, "status 200 without JSON"),
    ("no HTTP", b"SSH-2.0\r\n", 0, "does not speak HTTP"),
]


@pytest.mark.parametrize(("sentence", "raw", "status", "problem"), ANSWERS, ids=[row[0] for row in ANSWERS])
def test_an_answer_that_is_none(answering, sentence, raw, status, problem):
    with pytest.raises(AskError, match=problem) as caught:
        ask(answering(raw), "GET", "/edge/state", timeout_s=5)
    assert caught.value.status == status, sentence


def test_a_node_that_does_not_answer(tmp_path):
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(TimeoutError):
            ask(str(path), "GET", "/edge/state", timeout_s=0.1)


def test_a_reader_that_has_left_is_a_quiet_failure(node):
    read, write = os.pipe()
    os.close(read)
    program = str(Path(sys.executable).with_name("popctl"))
    with os.fdopen(write, "wb") as closed:
        ran = subprocess.run(
            [program, "status", "-c", str(node.directory / "node.yaml")],
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (1, b"")


def test_a_name_that_is_no_text_is_found_nowhere(node):
    name = os.fsdecode(b"m\xff")
    for command in (["models", "show", name], ["models", "pin", name], ["explain", name]):
        ran = popctl(*command, "--socket", node.directory / "run" / "admin.sock")
        assert (ran.returncode, ran.stdout) == (4, ""), command
        assert ran.stderr.startswith("popctl: ")
        assert "m%FF" in ran.stderr


def test_an_unknown_model_is_named_with_where_the_known_are(node):
    ran = popctl("models", "show", "nobody", "--socket", node.directory / "run" / "admin.sock")
    assert "unknown model 'nobody'; POST /v2/repository/index and `popctl models ls` list them" in ran.stderr


AWAY = [["weights"], ["models", "ps"], ["models", "verify", "--all"]]


@pytest.mark.parametrize("command", AWAY, ids=" ".join)
def test_a_weight_store_that_is_away_is_no_empty_one(answering, command):
    told = b'{"schema_version": 1, "error": "the weight store does not answer"}'
    path = answering(b"HTTP/1.1 200 x\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told))
    ran = popctl(*command, "--socket", path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "the weight store does not answer; popctl status tells more" in ran.stderr
