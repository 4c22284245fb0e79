"""The book of what is broken: one who breaks or heals at a time, and readers who need not wait."""

from pathlib import Path

import pytest

from netlab import faultbook, state
from netlab.faults import Fault

FAULT = Fault(target="iad-fra", kind="link", how="cut", at_s=1.0)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "ROOT", tmp_path / "lab")
    return tmp_path / "lab"


def test_who_comes_second_waits_or_is_told(root: Path) -> None:
    root.mkdir()
    with faultbook.held():
        faultbook.enter(FAULT)
        assert faultbook.entries() == [FAULT], "readers need no lock"
        with pytest.raises(state.BusyError, match="another poplab has been breaking or healing"):
            faultbook.held(within_s=0.1).__enter__()
    with faultbook.held(within_s=0.1):
        faultbook.strike(FAULT)
    assert faultbook.entries() == []


def test_without_a_lab_there_is_nothing_to_hold(root: Path) -> None:
    with pytest.raises(KeyError, match="no lab to break"), faultbook.held():
        pytest.fail("it was held")
    assert not root.exists()
