"""The history of a chaos run: append-only, bounded, read again as it was written."""

from pathlib import Path

import pytest

from netlab.chaoshistory import Event, History, logged, read


def event(number: int) -> Event:
    return Event(t=float(number), at="ber", what="asked", id=f"c1-{number}")


def test_what_is_noted_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    for run in range(2):  # a second run adds to the file
        history = History(file)
        history.note(event(run))
        history.close()
    assert read(file) == [event(0), event(1)]


def test_it_is_bounded(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl", max_bytes=500)
    for number in range(100):
        history.note(event(number))
    history.close()
    assert history.full
    assert (tmp_path / "history.jsonl").stat().st_size <= 500
    assert read(tmp_path / "history.jsonl") == history.events


@pytest.mark.parametrize(
    ("sentence", "line", "found"),
    [
        (
            "the door",
            b'{"ts":5.0,"who":"fra-a/proxy","event":"request","id":"c1-7","model":"mlp","served_by":"fra-a/0",'
            b'"route":"serve","code":200,"ms":3.5}',
            Event(t=5.0, at="fra-a/proxy", what="answered", id="c1-7", model="mlp", served_by="fra-a/0", outcome="200"),
        ),
        (
            "the mesh",
            b'{"ts":5.0,"who":"iad-b/proxy","event":"request forwarded here","id":"c1-7"}',
            Event(t=5.0, at="iad-b/proxy", what="forwarded", id="c1-7"),
        ),
        (
            "the worker",
            b'{"ts":5.0,"who":"fra-a/worker-0","event":"request taken","id":"c1-7"}',
            Event(t=5.0, at="fra-a/worker-0", what="taken", id="c1-7"),
        ),
        ("another run", b'{"ts":5.0,"who":"fra-a/worker-0","event":"request taken","id":"c2-7"}', None),
        ("another event", b'{"ts":5.0,"who":"fra-a/proxy","event":"loaded","id":"c1-7"}', None),
        ("cut off by a death", b'{"ts":5.0,"who":"fra-a/proxy","event":"request","id":"c1-7","mo', None),
        ("not JSON", b"Traceback (most recent call last):", None),
    ],
)  # fmt: skip
def test_what_a_node_logs_is_understood(sentence: str, line: bytes, found: Event | None) -> None:
    assert list(logged([line], "c1-")) == ([found] if found else []), sentence
