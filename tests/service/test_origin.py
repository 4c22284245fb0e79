"""The lab's origin as a program: what clients and obstore get from it, honest and faulty."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import HTTPStore, from_url

from netlab.clock import now_s, wait_until
from netlab.origin import listen_address, pace_of

ROOT = Path(__file__).parents[2]
DIGEST = "ab" * 32
BLOB = os.urandom(3_000_001)
NAME = f"blobs/{DIGEST}"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Running:
    port: int
    port6: int
    control: Path
    root: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, name: str, method: str = "GET", host: str = "127.0.0.1", **headers: str) -> Answer:
        port = self.port6 if ":" in host else self.port
        connection = http.client.HTTPConnection(host, port, timeout=20)
        return exchange(connection, method, "/" + name, headers)

    def desk(self, method: str, path: str, body: bytes | None = None) -> Answer:
        connection = http.client.HTTPConnection("control", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.control))
        return exchange(connection, method, path, {}, body)

    def fault(self, **rule: object) -> None:
        assert self.desk("POST", "/_fault", json.dumps(rule).encode()).status == 200

    def stats(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.desk("GET", "/_stats").body)
        return said


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None = None,
) -> Answer:
    try:
        connection.request(method, path, body, {name.replace("_", "-"): v for name, v in headers.items()})
        response = connection.getresponse()
        return Answer(response.status, dict(response.headers), response.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("origin")
    root, control, log = directory / "root", directory / "o.sock", directory / "log"
    for name, content in {
        NAME: BLOB,
        f"manifests/{DIGEST}.json": b"{}",
        "catalog.json": b'{"epoch": 1}',
        "empty": b"",
        "a b": b"blank",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (directory / "secret").write_bytes(b"secret")
    (root / "link-out").symlink_to(directory / "secret")
    (root / "folder-out").symlink_to(directory)
    os.mkfifo(root / "fifo")
    command = [sys.executable, "-m", "netlab.origin", "--root", str(root), "--control", str(control)]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0", "--listen", "[::1]:0"],
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
        )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n", log.read_text()
        ports = re.findall(r"on \('([^']+)', (\d+)", log.read_text())
        by_host = {host: int(port) for host, port in ports}
        yield Running(by_host["127.0.0.1"], by_host["::1"], control, root)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert not control.exists()
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def origin(program: Running) -> Iterator[Running]:
    assert program.desk("POST", "/_stats/reset").status == 200
    yield program
    assert program.desk("DELETE", "/_fault").status == 200


def test_a_blob_comes_whole_with_its_validators(origin: Running) -> None:
    answer = origin.ask(NAME)
    assert (answer.status, answer.body) == (200, BLOB)
    assert answer.headers["ETag"] == f'"{DIGEST}"'
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Length"] == str(len(BLOB))
    assert answer.headers["Last-Modified"].endswith("GMT")


def test_etags_are_digests_where_the_name_is_one(origin: Running) -> None:
    facts = (origin.root / "catalog.json").stat()
    assert origin.ask(f"manifests/{DIGEST}.json", "HEAD").headers["ETag"] == f'"{DIGEST}"'
    assert origin.ask("catalog.json", "HEAD").headers["ETag"] == f'"{facts.st_size:x}-{facts.st_mtime_ns:x}"'


def test_head_is_get_without_body(origin: Running) -> None:
    head, get = origin.ask(NAME, "HEAD"), origin.ask(NAME)
    drop = {"Date"}
    assert head.body == b""
    assert {k: v for k, v in head.headers.items() if k not in drop} == {
        k: v for k, v in get.headers.items() if k not in drop
    }


SIZE = len(BLOB)


@pytest.mark.parametrize(
    ("sentence", "wanted", "first", "stop"),
    [
        ("the first bytes", "bytes=0-99", 0, 100),
        ("one byte", "bytes=7-7", 7, 8),
        ("from the middle on", "bytes=1500000-", 1_500_000, SIZE),
        ("the last bytes", "bytes=-10", SIZE - 10, SIZE),
        ("more last bytes than there are", "bytes=-99999999", 0, SIZE),
        ("a stop past the end is cut", f"bytes={SIZE - 5}-{SIZE + 500}", SIZE - 5, SIZE),
        ("everything", f"bytes=0-{SIZE - 1}", 0, SIZE),
    ],
)
def test_a_range(origin: Running, sentence: str, wanted: str, first: int, stop: int) -> None:
    answer = origin.ask(NAME, Range=wanted)
    assert answer.status == 206, sentence
    assert answer.body == BLOB[first:stop]
    assert answer.headers["Content-Range"] == f"bytes {first}-{stop - 1}/{SIZE}"


@pytest.mark.parametrize(
    "wanted",
    [
        f"bytes={SIZE}-",
        "bytes=5-2",
        "bytes=-0",
        "bytes=-",
        "bytes=a-b",
        "lines=0-1",
        "bytes=0-1,4-5",
        "bytes=1",
    ],
)
def test_a_range_that_is_none(origin: Running, wanted: str) -> None:
    answer = origin.ask(NAME, Range=wanted)
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert "error" in json.loads(answer.body)


def test_an_empty_file_has_no_range(origin: Running) -> None:
    assert origin.ask("empty").body == b""
    assert origin.ask("empty", Range="bytes=0-0").status == 416


@pytest.mark.parametrize(
    ("sentence", "headers", "status"),
    [
        ("the same version", {"If_None_Match": f'"{DIGEST}"'}, 304),
        ("one of several, weakly", {"If_None_Match": f'"x", W/"{DIGEST}"'}, 304),
        ("any", {"If_None_Match": "*"}, 304),
        ("another version", {"If_None_Match": '"x"'}, 200),
        ("not since", {"If_Modified_Since": "Fri, 01 Jan 2100 00:00:00 GMT"}, 304),
        ("since", {"If_Modified_Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200),
        (
            "a tag outranks a date",
            {"If_None_Match": '"x"', "If_Modified_Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
            200,
        ),
        ("a range of this version", {"Range": "bytes=0-1", "If_Range": f'"{DIGEST}"'}, 206),
        ("a range of another version", {"Range": "bytes=0-1", "If_Range": '"x"'}, 200),
    ],
)
def test_conditions(origin: Running, sentence: str, headers: dict[str, str], status: int) -> None:
    assert origin.ask(NAME, **headers).status == status, sentence


@pytest.mark.parametrize(
    "name",
    [
        "nothing",
        "",
        "blobs",
        "blobs/",
        "../secret",
        "blobs/../../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "/etc/passwd",
        "link-out",
        "folder-out/secret",
        "fifo",
        "a%00b",
        "%ff%fe",
        "x" * 2000,
        f"{NAME}/x",
        "_stats",
        "_fault",
    ],
)
def test_what_is_not_there_or_not_below_the_root_is_not_found(origin: Running, name: str) -> None:
    answer = origin.ask(name)
    assert answer.status == 404
    assert b"secret" not in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PROPFIND"])
def test_nobody_writes(origin: Running, method: str) -> None:
    answer = origin.ask(NAME, method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert (origin.root / NAME).read_bytes() == BLOB


def test_a_blank_in_a_name(origin: Running) -> None:
    assert origin.ask("a%20b").body == b"blank"


def test_bytes_are_counted_by_client(origin: Running) -> None:
    origin.ask(NAME, Range="bytes=0-999")
    origin.ask(NAME, "HEAD")
    origin.ask(NAME, host="::1")
    origin.ask("nothing")
    stats = origin.stats()
    assert stats["clients"]["127.0.0.1"] == {
        "requests": 3,
        "bytes": 1000,
        "statuses": {"206": 1, "200": 1, "404": 1},
    }
    assert stats["clients"]["::1"]["bytes"] == SIZE
    assert stats["total_bytes"] == SIZE + 1000
    assert origin.desk("POST", "/_stats/reset").status == 200
    assert origin.stats()["clients"] == {}


def open_store(origin: Running) -> HTTPStore:
    """As a node would open it; obstore refuses plain http unless told that it is meant."""
    store = from_url(origin.url, client_options={"allow_http": True})
    assert isinstance(store, HTTPStore)
    return store


def test_obstore_reads_it(origin: Running) -> None:
    store = open_store(origin)
    meta = obstore.head(store, NAME)
    assert (meta["size"], meta["e_tag"]) == (SIZE, f'"{DIGEST}"')
    assert bytes(obstore.get(store, NAME).bytes()) == BLOB
    assert bytes(obstore.get_range(store, NAME, start=100, end=2_000_000)) == BLOB[100:2_000_000]
    with pytest.raises(FileNotFoundError):
        obstore.head(store, "nothing")


def test_fault_200_to_range_is_refused_by_obstore_and_harms_no_other(origin: Running) -> None:
    origin.fault(kind="200-to-range", path_prefix="blobs/", count=2)
    assert origin.ask(NAME).status == 200  # no Range: not used up
    answer = origin.ask(NAME, Range="bytes=0-9")
    assert (answer.status, len(answer.body)) == (200, SIZE)
    with pytest.raises(BaseError, match=r"(?i)partial|206|range"):
        obstore.get_range(open_store(origin), NAME, start=0, end=10)
    assert origin.ask(NAME, Range="bytes=0-9").status == 206


def test_fault_5xx_lasts_its_count_below_its_prefix(origin: Running) -> None:
    origin.fault(kind="5xx", path_prefix="blobs/", count=2)
    assert origin.ask("catalog.json").status == 200
    assert [origin.ask(NAME, "HEAD").status for _ in range(3)] == [503, 503, 200]


def test_fault_cut_ends_halfway_and_obstore_resumes(origin: Running) -> None:
    origin.fault(kind="cut", count=1)
    with pytest.raises(http.client.IncompleteRead) as cut:
        origin.ask(NAME)
    assert cut.value.partial == BLOB[: SIZE // 2]
    origin.fault(kind="cut", count=1)
    assert bytes(obstore.get(open_store(origin), NAME).bytes()) == BLOB


def test_fault_corrupt_flips_one_byte_of_what_was_asked(origin: Running) -> None:
    origin.fault(kind="corrupt", count=2)
    for first, stop in ((0, SIZE), (10, 20)):
        body = origin.ask(NAME, Range=f"bytes={first}-{stop - 1}").body
        wrong = [n for n, (a, b) in enumerate(zip(body, BLOB[first:stop], strict=True)) if a != b]
        assert wrong == [(stop - first) // 2]
    assert origin.ask(NAME).body == BLOB


def read_until_silence(client: socket.socket) -> int:
    """Bytes that came before the socket's timeout; an end of the stream is a failure."""
    seen = 0
    while True:
        try:
            chunk = client.recv(1 << 20)
        except TimeoutError:
            return seen
        assert chunk, f"closed after {seen} bytes"
        seen += len(chunk)


def test_fault_stall_gives_half_then_nothing_then_the_rest(origin: Running) -> None:
    origin.fault(kind="stall", stall_s=0.5)
    began_s = now_s()
    assert origin.ask(NAME).body == BLOB
    assert now_s() - began_s >= 0.5
    origin.fault(kind="stall", stall_s=1)
    with socket.create_connection(("127.0.0.1", origin.port), timeout=0.3) as client:
        client.sendall(f"GET /{NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        seen = read_until_silence(client)
    assert SIZE // 2 < seen < SIZE // 2 + 1000
    wait_until(lambda: origin.stats()["active"] == 0, "the stalled request is over", within_s=5)


def test_fault_drip_is_slow_and_whole(origin: Running) -> None:
    origin.fault(kind="drip", drip_bps=20_000)
    began_s = now_s()
    assert origin.ask(NAME, Range="bytes=0-9999").body == BLOB[:10_000]
    assert 0.4 < now_s() - began_s < 5


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (b"{", "truncated"),
        (b'{"kind":"explode"}', "kinds are 5xx, stall"),
        (b'{"kind":"5xx","count":0}', "count is 0"),
        (b'{"kind":"5xx","path":"x"}', "path"),
        (b'{"kind":"stall","stall_s":-1}', "stall_s is -1"),
        (b'{"kind":"drip","drip_bps":0}', "drip_bps is 0"),
    ],
)
def test_a_fault_that_is_none(origin: Running, rule: bytes, words: str) -> None:
    answer = origin.desk("POST", "/_fault", rule)
    assert answer.status == 400
    assert words in json.loads(answer.body)["error"]
    assert origin.stats()["faults"] == []


def test_faults_are_bounded(origin: Running) -> None:
    for _ in range(64):
        origin.fault(kind="5xx")
    assert b"64 faults are set" in origin.desk("POST", "/_fault", b'{"kind":"5xx"}').body
    assert origin.desk("POST", "/_fault", b" " * 100_000).status == 413


def test_a_client_that_leaves_midway_harms_nobody(origin: Running) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", origin.port)) as client:
            client.sendall(f"GET /{NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            client.recv(10)
    wait_until(lambda: origin.stats()["active"] == 0, "they are gone", within_s=5)
    assert 0 < origin.stats()["total_bytes"] < 5 * SIZE, "what was sent to them is counted, and no more"
    assert origin.ask(NAME).body == BLOB


@pytest.mark.parametrize("text", ["here:80", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:x", ":80", ""])
def test_a_listen_address_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        listen_address(text)


def test_all_bodies_share_one_link_of_the_rate_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "half").write_bytes(bytes(1 << 20))
    command = [sys.executable, "-m", "netlab.origin", "--root", str(tmp_path), "--listen", "127.0.0.1:0"]
    log = tmp_path / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen([*command, "--bytes-per-s", str(4 << 20)], stderr=errors, cwd=ROOT)
    try:
        wait_until(lambda: "serving" in log.read_text(), "it listens", within_s=20)
        (port,) = re.findall(r"\('127.0.0.1', (\d+)\)", log.read_text())
        origin = Running(int(port), 0, log, tmp_path)
        began_s = now_s()
        with ThreadPoolExecutor(2) as pool:
            assert all(len(got.body) == 1 << 20 for got in pool.map(origin.ask, ["half", "half"]))
        assert now_s() - began_s > 0.4, "2 MiB at 4 MiB/s, whoever asks for them"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("rate", ["0", "-1", "fast"])
def test_a_rate_that_is_none(rate: str) -> None:
    with pytest.raises(ValueError, match=re.escape(rate)):
        pace_of(rate)


def test_a_root_that_is_none_is_said_so(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "netlab.origin",
        "--root",
        str(tmp_path / "x"),
        "--listen",
        "127.0.0.1:0",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "not a directory" in ended.stderr
    assert "Traceback" not in ended.stderr
