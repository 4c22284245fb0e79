"""Into an origin and back: blobs first, the catalogue last, nobody's work overwritten."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from edge.errors import EdgeError, Reason
from edge.weights import manifest as mf
from edge.weights.origin import Origin, OriginError, part_bytes
from edge.weights.publish import SINGLE_PUT_BYTES, Publisher
from netlab.clock import wait_until
from tests.support import tiny
from tests.support.node import open_directory, running_node
from tests.support.s3 import running_s3
from tests.support.stores import a_store, doubler

SIXTEEN = [float(number) for number in range(16)]


class Silent:
    """A report that remembers what was begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.bytes = 0

    def begins(self, what: str, total_bytes: int) -> None:
        self.begun.append(what)

    def moved(self, count_bytes: int) -> None:
        self.bytes += count_bytes


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, Path]:
    """`one` has identity 1; `two` has identity 1 and 2, which is current; `other` another model."""
    made = {name: tmp_path / name for name in ("one", "two", "other", "origin")}
    for root in made.values():
        (root / "blobs").mkdir(parents=True)
    a_store(made["one"], tiny.identity(made["one"] / "blobs"))
    a_store(made["two"], tiny.identity(made["two"] / "blobs"), doubler(made["two"] / "blobs"))
    a_store(made["other"], tiny.picker(made["other"] / "blobs"))
    return made


def publisher(url: str, report: Silent | None = None) -> Publisher:
    return Publisher(url, stop=threading.Event(), report=report or Silent())


@pytest.fixture(params=["file", "s3"])
def origin(request, stores, monkeypatch):
    """(url, read an object) of an empty origin."""
    if request.param == "file":
        root = stores["origin"]
        yield f"file://{root}", lambda path: (root / path).read_bytes()
        return
    with running_s3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        yield s3.url, lambda path: s3.objects[path]


def current(read, name: str) -> tuple[int, str]:
    catalogue = mf.decode_catalogue(read("catalog.json"))
    return catalogue.epoch, catalogue.models[name].current


def test_push_rollout_rollback(origin, stores):
    url, read = origin
    first = publisher(url).push(stores["one"], [], None)
    assert (first.epoch, first.changed, first.uploaded) == (1, True, 1)
    for blob in (stores["one"] / "blobs").iterdir():
        assert read(f"blobs/{blob.name}") == blob.read_bytes()
    report = Silent()
    second = publisher(url, report).push(stores["two"], [], None)
    assert (second.epoch, second.uploaded, len(report.begun)) == (2, 1, 1), "only the new blob travels"
    assert report.bytes == second.uploaded_bytes
    assert current(read, "identity") == (2, "2")
    assert publisher(url).rollback("identity").epoch == 3
    assert current(read, "identity") == (3, "1")
    assert publisher(url).rollout("identity", "2").epoch == 4
    again = publisher(url).push(stores["two"], [], None)
    assert (again.epoch, again.changed, again.uploaded) == (4, False, 0)
    assert publisher(url).restore(1).epoch == 5
    assert (
        mf.decode_catalogue(read("catalog.json")).models
        == mf.decode_catalogue(read("catalogs/1.json")).models
    )
    assert publisher(url).restore(None).epoch == 6
    assert current(read, "identity") == (6, "2")


def test_a_version_can_be_brought_without_being_served(origin, stores):
    url, read = origin
    publisher(url).push(stores["two"], ["identity"], "1")
    assert current(read, "identity") == (1, "1")
    publisher(url).rollout("identity", "2")
    assert current(read, "identity") == (2, "2")


def test_models_of_another_store_stay(origin, stores):
    url, read = origin
    publisher(url).push(stores["one"], [], None)
    publisher(url).push(stores["other"], [], None)
    assert set(mf.decode_catalogue(read("catalog.json")).models) == {"identity", "picker"}


def test_two_publishers_at_once_both_get_through(stores, monkeypatch):
    with running_s3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        publisher(s3.url).push(stores["one"], [], None)
        s3.meanwhile = lambda: publisher(s3.url).push(stores["other"], [], None)
        last = publisher(s3.url).push(stores["two"], [], None)
        assert s3.meanwhile is None, "the other one published between read and write"
        assert last.epoch == 3
        found = mf.decode_catalogue(s3.objects["catalog.json"])
        assert (set(found.models), found.models["identity"].current) == ({"identity", "picker"}, "2")


def test_two_first_publishers_at_once_both_get_through(stores, monkeypatch):
    with running_s3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        s3.meanwhile = lambda: publisher(s3.url).push(stores["other"], [], None)
        assert publisher(s3.url).push(stores["one"], [], None).epoch == 2
        assert set(mf.decode_catalogue(s3.objects["catalog.json"]).models) == {"identity", "picker"}


def test_a_folder_that_somebody_else_publishes_into_is_left_alone(stores):
    import fcntl

    with (stores["origin"] / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EdgeError, match="somebody else publishes"):
            publisher(f"file://{stores['origin']}").push(stores["one"], [], None)
    assert not (stores["origin"] / "catalog.json").exists()


def test_a_large_blob_travels_in_parts_and_is_counted(stores, monkeypatch, tmp_path):
    big = tmp_path / "big"
    (big / "blobs").mkdir(parents=True)
    a_store(big, tiny.heavy(big / "blobs", side=1280))
    assert max(blob.stat().st_size for blob in (big / "blobs").iterdir()) > SINGLE_PUT_BYTES
    with running_s3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        report = Silent()
        done = publisher(s3.url, report).push(big, [], None)
        assert report.bytes == done.uploaded_bytes == sum(b.stat().st_size for b in (big / "blobs").iterdir())
        for blob in (big / "blobs").iterdir():
            assert s3.objects[f"blobs/{blob.name}"] == blob.read_bytes()
        assert s3.writes[-1] == "catalog.json", "the catalogue comes last"


@pytest.mark.parametrize("size_bytes", [1, 48 << 30, 100 << 30, mf.BLOB_MAX_BYTES])
def test_no_blob_has_more_parts_than_a_bucket_takes(size_bytes):
    part = part_bytes(size_bytes)
    assert 5 * mf.MIB <= part <= 5 << 30
    assert part * 10_000 >= size_bytes


def test_what_has_too_many_parts_goes_in_larger_ones(monkeypatch):
    monkeypatch.setattr("edge.weights.origin.MAX_PARTS", 2)
    with running_s3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        bucket = Origin(s3.url, request_timeout_ms=20_000, stop=threading.Event())
        bucket.put("blobs/a", iter([bytes(mf.MIB)] * 15), 15 * mf.MIB)
        assert s3.uploads == [[7.5 * mf.MIB] * 2]


@pytest.mark.parametrize("side", [16, 1280])
def test_a_damaged_blob_is_not_published(stores, monkeypatch, tmp_path, side):
    bad = tmp_path / "bad"
    (bad / "blobs").mkdir(parents=True)
    a_store(bad, tiny.heavy(bad / "blobs", side=side))
    victim = max((bad / "blobs").iterdir(), key=lambda blob: blob.stat().st_size)
    victim.chmod(0o644)
    victim.write_bytes(bytes(victim.stat().st_size))
    with running_s3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(EdgeError, match="damaged"):
            publisher(s3.url).push(bad, [], None)
        assert f"blobs/{victim.name}" not in s3.objects
        assert "catalog.json" not in s3.objects
        assert not s3.parts, "nothing of it stays behind"


REFUSED = [
    ("a model that the store lacks", lambda p, s: p.push(s["one"], ["nobody"], None), "no model 'nobody'"),
    ("a version that the store lacks", lambda p, s: p.push(s["one"], ["identity"], "7"), "no version '7'"),
    ("a version for two models", lambda p, s: p.push(s["one"], [], "1"), "name that model"),
    ("no store at all", lambda p, s: p.push(s["origin"] / "nowhere", [], None), "python -m models make"),
    ("a model that nobody published", lambda p, s: p.rollout("nobody", "1"), "no model 'nobody'"),
    ("a version that nobody published", lambda p, s: p.rollout("identity", "7"), "no version '7'"),
    ("nothing to go back to", lambda p, s: p.rollback("identity"), "no kept catalogue"),
    ("nothing at all before", lambda p, s: p.restore(None), "nothing to go back to"),
    ("an epoch that is not kept", lambda p, s: p.restore(9), "no catalogue of epoch 9"),
]


@pytest.mark.parametrize(("sentence", "act", "problem"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused_with_a_sentence(stores, sentence, act, problem):
    url = f"file://{stores['origin']}"
    publisher(url).push(stores["one"], [], None)
    before = (stores["origin"] / "catalog.json").read_bytes()
    with pytest.raises(EdgeError, match=problem):
        act(publisher(url), stores)
    assert (stores["origin"] / "catalog.json").read_bytes() == before, sentence


def test_one_version_has_one_content(stores, tmp_path):
    """Nodes that hold version 1 would never ask for it again."""
    url = f"file://{stores['origin']}"
    publisher(url).push(stores["one"], [], None)
    other = tmp_path / "rebuilt"
    (other / "blobs").mkdir(parents=True)
    a_store(other, msgspec.structs.replace(doubler(other / "blobs"), version="1"))
    with pytest.raises(EdgeError, match="higher version"):
        publisher(url).push(other, [], None)
    assert len(list((stores["origin"] / "blobs").iterdir())) == 1, "refused before anything is sent"


def test_a_version_whose_blobs_are_gone_is_not_rolled_out(stores):
    url = f"file://{stores['origin']}"
    publisher(url).push(stores["two"], ["identity"], "1")
    for blob in (stores["two"] / "blobs").iterdir():
        if not (stores["one"] / "blobs" / blob.name).exists():
            (stores["origin"] / "blobs" / blob.name).unlink()
    with pytest.raises(EdgeError, match="not whole in the origin"):
        publisher(url).rollout("identity", "2")


def test_what_is_damaged_in_the_origin_is_mended_by_a_push_that_reads_it(origin, stores, monkeypatch):
    url, read = origin
    monkeypatch.setattr("edge.weights.publish._VERIFIED_BYTES", 100)
    publisher(url).push(stores["two"], [], None)
    bucket = Origin(url, request_timeout_ms=20_000, stop=threading.Event())
    for kind in ("blobs", "manifests"):
        victim = next((stores["one"] / kind).iterdir())
        raw = bytearray(victim.read_bytes())
        raw[5] ^= 1
        bucket.put(f"{kind}/{victim.name}", bytes(raw))
    blob, whole = next((stores["one"] / "blobs").iterdir()), victim.read_bytes()
    report = Silent()
    told = Publisher(url, stop=threading.Event(), report=report, verify=True).push(stores["two"], [], None)
    assert (told.changed, told.uploaded, told.uploaded_bytes) == (False, 1, blob.stat().st_size)
    assert read(f"blobs/{blob.name}") == blob.read_bytes()
    assert read(f"manifests/{victim.name}") == whole
    assert [what.split()[0] for what in report.begun] == ["verify", "graph", "verify"]
    again = Publisher(url, stop=threading.Event(), report=report, verify=True).push(stores["two"], [], None)
    assert again.uploaded == 0, "what is good is read and not sent"


@pytest.mark.parametrize("status", [403, 405])
def test_an_origin_that_takes_nothing(stores, monkeypatch, status):
    with running_s3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        s3.refuse = status
        with pytest.raises(EdgeError, match=r"refuses to take|could not be written") as refused:
            publisher(s3.url).push(stores["one"], [], None)
        assert refused.value.reason is Reason.ORIGIN_DOWN
        s3.refuse = None
        http = f"{s3.environment['AWS_ENDPOINT']}/models"
        s3.refuse = status
        with pytest.raises(EdgeError, match=r"refuses to take|give the URL of the store behind it"):
            publisher(http).push(stores["one"], [], None)


@pytest.mark.parametrize(
    ("status", "word", "text", "lasting"),
    [
        (403, "RequestTimeTooSkewed", "set the clock of this machine", True),
        (403, "AccessDenied", "who may not list a bucket|check the rights of who publishes", True),
        (400, "ExpiredToken", "renew them", True),
        (503, "SlowDown", "SlowDown: no$", False),
    ],
)
def test_the_word_of_a_store_is_told(monkeypatch, status, word, text, lasting):
    with running_s3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        s3.says = status, word
        bucket = Origin(s3.url, request_timeout_ms=20_000, stop=threading.Event())
        for ask in (
            lambda: bucket.small("a", 9),
            lambda: list(bucket.range("a", 0, 5, object_bytes=9)),
            lambda: bucket.put("a", b"x"),
        ):
            with pytest.raises(OriginError, match=text) as caught:
                ask()
            assert caught.value.lasting is lasting


def popctl(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("popctl"))
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_node_serves_what_is_pushed_and_what_is_rolled_back(stores):
    with open_directory() as root:
        (root / "origin").mkdir(mode=0o755)
        url = f"file://{root}/origin"
        ran = popctl("models", "push", stores["one"], "--origin", url, "--json")
        assert (ran.returncode, json.loads(ran.stdout)["epoch"]) == (0, 1), ran.stderr
        with running_node(origin=url) as node:

            def served() -> tuple[str, list[float]]:
                told = node.request("/run/identity", json.dumps({"input": [SIXTEEN]}))
                assert told.status == 200, told
                return told.json["version"], told.json["outputs"]["y"][0]

            assert served() == ("1", SIXTEEN)
            config = node.directory / "node.yaml"
            doubled = ("2", [2 * number for number in SIXTEEN])
            ran = popctl("models", "push", stores["two"], "identity", "-c", config)
            assert (ran.returncode, "epoch: 2" in ran.stdout) == (0, True), ran.stderr
            wait_until(lambda: served() == doubled, "the new version is served", within_s=8)
            ran = popctl("models", "rollback", "identity", "--origin", url, "--json")
            assert json.loads(ran.stdout)["models"] == [{"model": "identity", "version": "1"}]
            wait_until(lambda: served() == ("1", SIXTEEN), "the old version is served again", within_s=8)
            ran = popctl("models", "rollout", "identity", "2", "--origin", url)
            wait_until(lambda: served() == doubled, "and the new one", within_s=8)


def test_without_an_origin_it_is_wrong_usage(stores):
    ran = popctl("models", "push", stores["one"])
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "--origin" in ran.stderr


def test_an_unknown_model_is_not_found(stores):
    popctl("models", "push", stores["one"], "--origin", f"file://{stores['origin']}")
    ran = popctl("models", "rollout", "nobody", "1", "--origin", f"file://{stores['origin']}")
    assert (ran.returncode, ran.stdout) == (4, "")
    assert "there are: identity" in ran.stderr


def test_what_is_retired_is_served_no_more_and_can_be_brought_back(stores):
    origin = f"file://{stores['origin']}"

    def versions(*arguments: object) -> set[str]:
        ran = popctl("models", *arguments, "--origin", origin, "--json")
        assert ran.returncode == 0, ran.stderr
        found = mf.decode_catalogue((stores["origin"] / "catalog.json").read_bytes())
        assert found.epoch == json.loads(ran.stdout)["epoch"]
        return set(found.models["identity"].versions) if "identity" in found.models else set()

    assert versions("push", stores["two"]) == {"1", "2"}
    assert versions("retire", "identity", "1") == {"2"}
    assert versions("retire", "identity", "--all") == set()
    assert versions("rollback", "--to-epoch", "1") == {"1", "2"}
    ran = popctl("models", "retire", "identity", "--origin", origin)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "VERSIONS, --keep-last or --all" in ran.stderr


def test_too_many_versions_are_refused_before_anything_is_sent(stores):
    url = f"file://{stores['origin']}"
    publisher(url).push(stores["one"], [], None)
    catalogue = mf.decode_catalogue((stores["origin"] / "catalog.json").read_bytes())
    held = catalogue.models["identity"]
    full = msgspec.structs.replace(held, versions={str(n): held.versions["1"] for n in (1, *range(3, 1002))})
    raw = mf.encode_catalogue(mf.Catalogue(1, {"identity": full}))
    (stores["origin"] / "catalog.json").write_bytes(raw)
    with pytest.raises(EdgeError, match="retire identity --keep-last N"):
        publisher(url).push(stores["two"], [], None)
    assert len(list((stores["origin"] / "blobs").iterdir())) == 1


def test_ctrl_c_leaves_the_origin_as_it_was(stores, tmp_path):
    """SIGINT while the store keeps a request waiting."""
    import signal
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        environment = {
            **os.environ,
            "AWS_ENDPOINT": f"http://127.0.0.1:{listener.getsockname()[1]}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
        }
        program = str(Path(sys.executable).with_name("popctl"))
        process = subprocess.Popen(
            [program, "models", "push", str(stores["one"]), "--origin", "s3://models"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            listener.settimeout(20)
            with listener.accept()[0]:
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 130
    assert said.strip().endswith("interrupted: nothing is served that was not served before")
