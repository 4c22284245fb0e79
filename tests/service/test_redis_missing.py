"""What `poplab up` says of this machine's redis-server before it changes anything."""

from pathlib import Path

import pytest

from netlab import regions


@pytest.mark.parametrize(
    ("what", "script", "says"),
    [
        ("none", "", "Redis is not installed: apt-get install redis-server"),
        (
            "an old one",
            "echo Redis server v=6.0.16 sha=0",
            "the lab needs Redis 7.0 or newer, and redis-server s",
        ),
        ("something else", "exit 1", "the lab needs Redis 7.0 or newer, and redis-server says ''"),
        ("a good one", "echo Redis server v=7.0.15 sha=0", ""),
        ("one to come", "echo Redis server v=10.0.0 sha=0", ""),
    ],
)
def test_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, script: str, says: str
) -> None:
    if script:
        program = tmp_path / "redis-server"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    told = regions.missing()
    assert told.startswith(says) if says else not told, what
