"""JSON as text: whatever a node may say, somebody can read it."""

import pytest

from edge.cli import tables
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


CANDIDATE = {
    "endpoint": "fra-a/0", "pop": "fra", "score_ms": 98.1, "net_ms": 90.0, "queue_ms": 0.0, "cold_ms": 0.0,
    "exec_ms": 8.1, "price_ms": 0.0, "in_flight": 2, "hard_limit": 128, "standing": "good", "age_ms": 140.0,
    "why_not": "",
}  # fmt: skip
SPILL = {
    "route": "spill", "target": "fra-a/0", "reason": "cold-here", "score_ms": 98.1, "next": "nrt-a/0",
    "next_ms": 251.0,
}  # fmt: skip
STEPS = [
    ("chosen, and what was next", {"decision": SPILL}, "spill at fra-a/0: cold-here, 98.1 ms; next best nrt-a/0, 251.0 ms"),
    ("waiting", {"decision": {"route": "queue", "reason": "saturated", "budget_ms": 900.0}}, "queue: saturated; may wait 900.0 ms"),
    ("refused", {"decision": {"route": "shed", "reason": "confined", "retry_after_s": 2}}, "shed: confined; again after 2 s"),
    ("tried in vain", {"after_ms": 1.5, "decision": SPILL, "failed": "link-lost: gone"}, "after 1.5 ms spill at fra-a/0: cold-here, 98.1 ms; next best nrt-a/0, 251.0 ms; failed: link-lost: gone"),
    ("of a node of another version", {}, "None: None"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "step", "line"), STEPS, ids=[row[0] for row in STEPS])
def test_a_decision_is_one_line(sentence, step, line):
    document = {"request_id": "r", "model": "m", "decisions": [step]}
    assert tables.explained(document).splitlines()[1:] == [line, "  no candidates"], sentence


def test_candidates_are_a_table():
    shown = tables.explained({"model": "m", "version": "1", "decision": SPILL, "candidates": [CANDIDATE]})
    head, _, columns, row = shown.splitlines()
    assert head == "m version 1, now"
    assert columns.split() == [
        "endpoint", "score", "net", "queue", "cold", "exec", "price", "in", "flight", "age", "standing", "why", "not",
    ]  # fmt: skip
    assert row.split() == ["fra-a/0", "98.1", "90.0", "0.0", "0.0", "8.1", "0.0", "2", "140.0", "good", "-"]


def test_a_peer_whose_beacons_were_refused_is_named():
    told = {"node": "fra-a", "standing": "good", "beacons": {"quarantined": {"too-large": 3}}}
    assert tables.peers({"peers": [told]}).splitlines()[-1] == "fra-a: beacons refused: too-large: 3"
    assert tables.peers({"peers": []}) == "this node has no peers\n"


def test_a_state_without_anything_is_still_shown():
    assert tables.status({"node": "a"}).startswith("node: a\npop: -\n")


def test_models_without_any():
    assert "has published none" in tables.models({"models": []})


HOST = [
    ("held, and not measured yet", {}, "10.0 MB of 20.0 MB"),
    ("all of it is there", {"host_resident_bytes": 10_000_000}, "10.0 MB of 20.0 MB, 10.0 MB in memory"),
    (
        "a host that has less than that",
        {"host_resident_bytes": 0, "host_undersized": True},
        "10.0 MB of 20.0 MB, 0.0 MB in memory, what is read in goes out again: lower weights.host_bytes, or "
        "add memory",
    ),
]


@pytest.mark.parametrize(("sentence", "told", "line"), HOST, ids=[row[0] for row in HOST])
def test_what_of_the_host_tier_is_in_memory_is_told(sentence, told, line):
    weights = {"host_bytes": 20_000_000, "host_used_bytes": 10_000_000, **told}
    assert f"\nhost: {line}\n" in tables.status({"weights": weights}), sentence
