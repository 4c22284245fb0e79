"""JSON as text: whatever a node may say, somebody can read it."""

import pytest

from edge.cli.show import text

CASES = [
    ("a map is one line each", {"node": "a", "waiting": 0}, "node: a\nwaiting: 0\n"),
    ("a map in a map is indented", {"tree": {"announcement": "never"}}, "tree:\n  announcement: never\n"),
    (
        "a list of maps is a table, its columns in order of appearance",
        [{"role": "proxy", "pid": 12}, {"role": "w", "pid": 3, "ready": True}],
        "role   pid  ready\nproxy  12   -\nw      3    yes\n",
    ),
    ("a table in a map", {"rows": [{"a": 1}]}, "rows:\n  a\n  1\n"),
    ("nothing is a dash", {"a": None, "b": "", "c": []}, "a: -\nb: -\nc: -\n"),
    ("a list of words", {"warm": ["x", "y"]}, "warm: x, y\n"),
    ("a map in a cell", [{"a": {"b": False, "c": 1.5}}], "a\nb=no c=1.5\n"),
    ("a bare value", "announced", "announced\n"),
]


@pytest.mark.parametrize(("sentence", "value", "shown"), CASES, ids=[row[0] for row in CASES])
def test_text(sentence, value, shown):
    assert text(value) == shown, sentence
