"""A program of the lab that is preferred runs beside busy ones of others, whatever groups the kernel makes."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab import supervise
from netlab.supervise import Process

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/proc/self/autogroup").exists(), reason="takes root, and autogroups"
)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    process = supervise.start("sleeper", "", command, tmp_path / "log", supervise.environment(""))
    yield process
    supervise.end({process.pid}, grace_s=0)


def test_its_session_weighs_more_than_others(sleeper: Process) -> None:
    ours = Path("/proc/self/autogroup").read_text()
    supervise.prefer(sleeper, -10)
    assert Path(f"/proc/{sleeper.pid}/autogroup").read_text().split()[-2:] == ["nice", "-10"]
    assert Path("/proc/self/autogroup").read_text() == ours, "ours is left alone"
