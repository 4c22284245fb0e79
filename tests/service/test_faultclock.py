"""What a killed program leaves in shared memory goes, if the lab gave it its clock; a stranger's stays."""

import subprocess
from pathlib import Path

import pytest

from netlab import faultclock, state


def left_by(memory: Path, pid: int) -> set[Path]:
    files = {memory / f"faketime_shm_{pid}", memory / f"sem.faketime_sem_{pid}"}
    for file in files:
        file.touch()
    return files


def test_only_what_programs_of_the_lab_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "shm"
    memory.mkdir()
    monkeypatch.setattr(state, "ROOT", tmp_path / "lab")
    monkeypatch.setattr(faultclock, "_MEMORY", memory)
    faultclock.sweep()
    skewed, plain = (
        subprocess.Popen(["sleep", "60"], env=env)
        for env in ({"FAKETIME": "+1", "PATH": "/usr/bin:/bin"}, None)
    )
    with skewed, plain:
        try:
            ours, others = left_by(memory, skewed.pid), left_by(memory, plain.pid)
            faultclock.remember([skewed.pid, plain.pid])
            faultclock.sweep()
            assert set(memory.iterdir()) == ours | others, "it lives"
        finally:
            skewed.kill()
            plain.kill()
    faultclock.sweep()
    assert set(memory.iterdir()) == others
