"""A command that is interrupted says what it leaves behind."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab import faultbook, state, told
from netlab.faults import Fault


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("sentence", "book", "said"),
    [
        ("nothing is left", (), "poplab: interrupted\n"),
        (
            "a deed that was cut, and one from before",
            (("fra-a", "node", "full"), ("iad-fra", "link", "cut")),
            "poplab: interrupted; what is broken now, and what takes it back: "
            "fra-a (full): `poplab heal fra-a`, iad-fra (cut): `poplab heal iad-fra`\n",
        ),
    ],
)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_who_is_interrupted_says_what_is_broken_and_what_undoes_it(
    sentence: str,
    book: tuple[tuple[str, str, str], ...],
    said: str,
    how: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(state, "ROOT", tmp_path)
    for at_s, (target, kind, way) in enumerate(book):
        faultbook.enter(Fault(target=target, kind=kind, how=way, at_s=at_s))  # type: ignore[arg-type]
    with pytest.raises(SystemExit) as ended, told.told_of_changes():
        signal.raise_signal(how)
    assert ended.value.code == told.INTERRUPTED
    assert capsys.readouterr().err == said, sentence
