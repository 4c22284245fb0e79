"""Objects as a worker reads them from its store: what it is told, what lies there, and how much."""

from pathlib import Path

import pytest

from edge.errors import EdgeError, Reason, Source
from edge.wire.calls import ObjectHere
from edge.worker.objects import reader

DIGEST = "a" * 64


def refused(folder: Path, here: ObjectHere, name: str = "o", max_bytes: int = 100) -> EdgeError:
    with pytest.raises(EdgeError) as caught:
        reader((here,), folder, max_bytes)(name)
    return caught.value


def test_an_object_is_read_once_and_counted_by_each_use(tmp_path: Path) -> None:
    (tmp_path / DIGEST).write_bytes(b"x" * 40)
    read = reader((ObjectHere("o", DIGEST, 40),), tmp_path, 100)
    first = read("o")
    (tmp_path / DIGEST).unlink()
    assert read("o") is first
    with pytest.raises(EdgeError, match="amount to more than 100 bytes") as caught:
        read("o")
    assert (caught.value.reason, caught.value.status) == (Reason.TOO_LARGE, 413)


def test_what_the_store_could_not_bring_is_told_to_who_needs_it(tmp_path: Path) -> None:
    error = refused(tmp_path, ObjectHere("o", reason="unknown-object", message="no such object"))
    assert (error.reason, error.status, error.source) == (Reason.UNKNOWN_OBJECT, 404, Source.DOWNSTREAM)
    away = ObjectHere("o", reason="origin-down", message="away", retryable=True, retry_after_s=2)
    error = refused(tmp_path, away)
    assert (error.reason, error.retryable, error.retry_after_s) == (Reason.ORIGIN_DOWN, True, 2)
    assert error.source is Source.UPSTREAM
    assert refused(tmp_path, ObjectHere("o", reason="of-a-later-version")).reason is Reason.INTERNAL
    assert refused(tmp_path, ObjectHere("o", DIGEST, 1), name="p").reason is Reason.BAD_INPUT


@pytest.mark.parametrize("what", ["gone", "short", "long", "a link", "a folder"])
def test_a_blob_that_is_not_what_it_was_is_an_error(tmp_path: Path, what: str) -> None:
    blob = tmp_path / DIGEST
    match what:
        case "short" | "long":
            blob.write_bytes(b"x" * (39 if what == "short" else 41))
        case "a link":
            (tmp_path / "elsewhere").write_bytes(b"x" * 40)
            blob.symlink_to(tmp_path / "elsewhere")
        case "a folder":
            blob.mkdir()
    error = refused(tmp_path, ObjectHere("o", DIGEST, 40))
    assert (error.reason, error.retryable) == (Reason.BLOB_CORRUPT, True)
    assert DIGEST in error.message
