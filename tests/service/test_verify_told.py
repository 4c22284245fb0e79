"""`popctl models verify` against a node that is played: what was found is told, whatever ends it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner

from edge.cli import care

BLOBS = {"a": 3, "b": 2}


class Played:
    """Two models, blob 1 of "a" is bad; `after` so many blobs `end` is called."""

    after = 1_000
    end: Callable[[], NoReturn]

    def __init__(self, config_path: Path | None, socket_path: Path | None) -> None:
        self.asked: list[Any] = []

    def get(self, path: str) -> Any:
        return {"models": [{"model": m, "version": "1", "digest": m, "disk_bytes": 9} for m in BLOBS]}

    def post(self, path: str, body: Any, *, timeout_s: float) -> Any:
        if len(self.asked) == self.after:
            type(self).end()
        self.asked.append(body)
        bad = body == {"digest": "a", "blob": 1}
        return {
            "digest": body["digest"],
            "blobs": 1,
            "read_bytes": 3,
            "bad": ["f" * 64] if bad else [],
            "removed": [],
            "moved_bytes": 3 if bad else 0,
            "problem": "",
            "left_devices": ["n/0"] if bad else [],
            "still_mapped": [],
            "rest": BLOBS[body["digest"]] - body["blob"] - 1,
        }


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def refuse() -> NoReturn:
    sys.exit(6)


@pytest.mark.parametrize(
    ("sentence", "after", "end", "status", "blobs"),
    [
        ("all of it", 9, interrupt, 5, [3, 2]),
        ("Ctrl-C in the first", 2, interrupt, 130, [2]),
        ("Ctrl-C in the second", 4, interrupt, 130, [3, 1]),
        ("a node that goes away", 4, refuse, 6, [3, 1]),
    ],
)
def test_what_was_found_until_it_ended_is_told(
    monkeypatch: pytest.MonkeyPatch,
    sentence: str,
    after: int,
    end: Callable[[], NoReturn],
    status: int,
    blobs: list[int],
) -> None:
    monkeypatch.setattr(Played, "after", after)
    monkeypatch.setattr(Played, "end", staticmethod(end), raising=False)
    monkeypatch.setattr(care, "Node", Played)
    ran = CliRunner().invoke(care.verify, ["--all", "--json", "--socket", "s"])
    assert ran.exit_code == status, (sentence, ran.output)
    models = json.loads(ran.stdout.splitlines()[-1])["models"]
    assert [one["blobs"] for one in models] == blobs, sentence
    assert (models[0]["bad"], models[0]["left_devices"]) == (["f" * 64], ["n/0"])
    assert models[0]["read_bytes"] == 3 * blobs[0]


def test_nothing_is_told_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Played, "after", 0)
    monkeypatch.setattr(Played, "end", staticmethod(interrupt), raising=False)
    monkeypatch.setattr(care, "Node", Played)
    ran = CliRunner().invoke(care.verify, ["--all", "--socket", "s"])
    assert (ran.exit_code, ran.stdout) == (130, "")
    assert "interrupted in model 1 of 2, 0 blobs were read" in ran.stderr
