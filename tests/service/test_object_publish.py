"""`popctl data`: a file in an origin under a name, whole, once, and the same for everybody who reads it."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from edge.errors import EdgeError, Reason
from edge.weights import entry as en
from edge.weights import manifest as mf
from edge.weights.publish_objects import ObjectPublisher, entry_of
from tests.support.s3 import running_s3


class Silent:
    def begins(self, what: str, total_bytes: int) -> None: ...

    def moved(self, count_bytes: int) -> None: ...


def publisher(url: str) -> ObjectPublisher:
    return ObjectPublisher(url, stop=threading.Event(), report=Silent())


@pytest.mark.parametrize("size_bytes", [1, mf.CHUNK_BYTES - 1, mf.CHUNK_BYTES, mf.CHUNK_BYTES + 1])
def test_an_entry_says_what_the_file_is(tmp_path: Path, size_bytes: int) -> None:
    content = os.urandom(size_bytes)
    (tmp_path / "file").write_bytes(content)
    entry = entry_of(tmp_path / "file", "a/b")
    assert en.decode(en.encode(entry), "a/b") == entry
    assert (entry.blake3, entry.sha256) == (blake3(content).hexdigest(), hashlib.sha256(content).hexdigest())
    assert list(entry.chunks) == [
        blake3(content[at : at + mf.CHUNK_BYTES]).hexdigest() for at in range(0, size_bytes, mf.CHUNK_BYTES)
    ]


def test_an_object_in_a_bucket_is_sent_once_and_replaced_by_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_s3() as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        one, two = tmp_path / "one", tmp_path / "two"
        one.write_bytes(b"one")
        two.write_bytes(b"two")
        first = publisher(bucket.url).push_object(one, "docs/it")
        assert (first.changed, first.uploaded_bytes) == (True, 3)
        again = publisher(bucket.url).push_object(one, "docs/it")
        assert (again.changed, again.uploaded_bytes) == (False, 0)
        elsewhere = publisher(bucket.url).push_object(one, "docs/copy")
        assert (elsewhere.changed, elsewhere.uploaded_bytes) == (True, 0), "the same bytes, another name"

        def overtaken() -> None:
            bucket.objects["data/docs/it.json"] = en.encode(entry_of(one, "docs/it")) + b"\n"

        bucket.meanwhile = overtaken
        second = publisher(bucket.url).push_object(two, "docs/it")
        assert second.changed
        assert publisher(bucket.url).show_object("docs/it") == second.entry
        assert bucket.objects[f"blobs/{first.entry.blake3}"] == b"one", "who reads the old entry finds it"
        del bucket.objects[f"blobs/{second.entry.blake3}"]
        with pytest.raises(EdgeError, match="not whole"):
            publisher(bucket.url).show_object("docs/it")
        with pytest.raises(EdgeError) as caught:
            publisher(bucket.url).show_object("docs/none")
        assert caught.value.reason is Reason.UNKNOWN_OBJECT


def test_an_object_that_is_damaged_in_the_origin_is_mended_by_a_push_that_reads_it(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    (tmp_path / "one").write_bytes(b"one")
    url = f"file://{tmp_path}/origin"
    entry = publisher(url).push_object(tmp_path / "one", "docs/it").entry
    blob = tmp_path / "origin/blobs" / entry.blake3
    blob.write_bytes(b"two")
    reads = ObjectPublisher(url, stop=threading.Event(), report=Silent(), verify=True)
    told = reads.push_object(tmp_path / "one", "docs/it")
    assert (told.changed, told.uploaded_bytes, blob.read_bytes()) == (False, 3, b"one")


def test_popctl_says_what_it_did_and_what_is_wrong(tmp_path: Path) -> None:
    def popctl(*arguments: object) -> subprocess.CompletedProcess[str]:
        program = str(Path(sys.executable).with_name("popctl"))
        return subprocess.run(
            [program, "data", *map(str, arguments), "--origin", f"file://{tmp_path}/origin"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    (tmp_path / "origin").mkdir()
    (tmp_path / "file").write_bytes(b"some bytes")
    (tmp_path / "empty").touch()
    pushed = popctl("push", tmp_path / "file", "a/b", "--json")
    assert pushed.returncode == 0, pushed.stderr
    told = json.loads(pushed.stdout)
    assert (told["object"], told["changed"], told["bytes"]) == ("a/b", True, 10)
    assert (tmp_path / "origin/data/a/b.json").exists()
    assert "bytes: 10" in popctl("show", "a/b").stdout
    for arguments, status, says in (
        (("show", "c"), 4, "no object c; publish it with `popctl data push FILE c`"),
        (("push", tmp_path / "empty", "c"), 1, "is empty"),
        (("push", tmp_path / "none", "c"), 1, "is no file"),
        (("push", tmp_path / "file", "../c"), 1, "names the object '../c'"),
    ):
        ran = popctl(*arguments)
        assert (ran.returncode, ran.stdout) == (status, "")
        assert says in ran.stderr
        assert "Traceback" not in ran.stderr
