"""A file read slowly: every byte of it, from the medium, in nobody's way, also where a disk can't do all that."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.weights.manifest import digest
from edge.weights.pagecache import resident_bytes
from edge.weights.slowread import PIECE_BYTES, LetGoError, SlowReader
from edge.weights.unlinked import is_open_elsewhere

CHUNK = 3 << 18
#: Neither whole pieces nor whole chunks.
CONTENT = os.urandom(2 * PIECE_BYTES + 12_345)
CHUNKS = [digest(CONTENT[at : at + CHUNK]) for at in range(0, len(CONTENT), CHUNK)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    with path.open("wb") as file:
        file.write(CONTENT)
        os.fsync(file.fileno())
    return path


def read(path: Path, *span: int) -> list[str]:
    reader, counts = SlowReader(), []
    reader.begin(path, *span)
    while count := reader.piece():
        counts.append(count)
    assert sum(counts) == path.stat().st_size
    return reader.end()


def test_all_of_it_has_one_digest_or_one_for_each_span(path: Path, tmp_path: Path) -> None:
    assert read(path) == [digest(CONTENT)]
    assert read(path, CHUNK) == CHUNKS
    whole = tmp_path / "whole"
    whole.write_bytes(bytes(2 * PIECE_BYTES))
    assert read(whole, PIECE_BYTES) == 2 * [digest(bytes(PIECE_BYTES))]
    (tmp_path / "empty").touch()
    assert read(tmp_path / "empty") == [digest(b"")]


def test_it_leaves_the_page_cache_as_it_was(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident_bytes(path):
        pytest.skip("this file system keeps its files in memory")
    assert read(path) == [digest(CONTENT)]
    assert resident_bytes(path) == 0
    path.read_bytes()
    assert read(path) == [digest(CONTENT)]
    assert resident_bytes(path) == len(CONTENT)


def never_direct(really: Callable[..., int]) -> Callable[..., int]:
    def opens(path: Any, flags: int, *rest: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        return really(path, flags, *rest)

    return opens


def never_read_direct(really: Callable[..., int]) -> Callable[..., int]:
    def reads(fd: int, *rest: Any) -> int:
        flags = next(
            line for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines() if "flags" in line
        )
        if int(flags.split()[1], 8) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return really(fd, *rest)

    return reads


@pytest.mark.parametrize(
    ("call", "refusing"), [("open", never_direct), ("preadv", never_read_direct)], ids=["to open", "to read"]
)
def test_a_file_system_that_refuses_to_go_around_is_read_as_any(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, refusing: Callable[..., Any]
) -> None:
    monkeypatch.setattr(os, call, refusing(getattr(os, call)))
    assert read(path, CHUNK) == CHUNKS


def test_who_wants_it_away_has_it_away(path: Path, tmp_path: Path) -> None:
    reader = SlowReader()
    reader.begin(path)
    assert reader.piece() == PIECE_BYTES
    other = tmp_path / "other"
    with path.open("rb") as file:
        with reader.kept_off(other):
            assert is_open_elsewhere(file.fileno())
        with reader.kept_off(path):
            assert not is_open_elsewhere(file.fileno())
    with pytest.raises(LetGoError):
        reader.piece()
    reader.begin(path)
    while reader.piece():
        pass
    assert reader.end() == [digest(CONTENT)]
