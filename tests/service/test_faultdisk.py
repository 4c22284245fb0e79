"""A store is copied and filled: only a full disk ends the filling, and what vanishes is skipped."""

import errno
import shutil
from pathlib import Path

import pytest

from netlab import faultdisk


def test_what_vanishes_during_the_copy_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for name in ("kept", "evicted"):
        (store / name).write_bytes(b"x")
    real = shutil.copy2

    def copy(file: str, to: str, *, follow_symlinks: bool) -> object:
        (store / "evicted").unlink(missing_ok=True)
        return real(file, to, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(faultdisk.shutil, "copy2", copy)
    monkeypatch.setattr(faultdisk.os, "chown", lambda *_, **__: None)
    faultdisk._copy(store, tmp_path / "twin")
    assert [path.name for path in (tmp_path / "twin").iterdir()] == ["kept"]


@pytest.mark.parametrize(("number", "filled"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_only_a_full_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, filled: bool
) -> None:
    (tmp_path / "full").mkdir()
    written = []

    class Disk:
        def __enter__(self) -> "Disk":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def write(self, page: bytes) -> int:
            if len(written) == 2:
                raise OSError(number, "no")
            written.append(page)
            return len(page)

    monkeypatch.setattr(Path, "open", lambda *_, **__: Disk())
    if filled:
        faultdisk.fill(tmp_path)
    else:
        with pytest.raises(OSError, match="no"):
            faultdisk.fill(tmp_path)
    assert len(written) == 2
