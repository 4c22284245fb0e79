"""The whole specification of edge/weights/garbage.py: what may go, and what nobody can tell yet."""

import pytest

from edge.weights.garbage import Garbage, garbage

KEYS = ["blobs/a", "blobs/b", "blobs/shared", "manifests/new.json", "manifests/old.json"]
MANIFESTS = {"new": ["a", "shared"], "old": ["b", "shared"]}
NOTHING = Garbage((), (), (), ())

CASES = [
    ("an empty disk has none", [], {}, {"new"}, NOTHING),
    ("what the catalogue names stays", KEYS, MANIFESTS, {"new", "old"}, NOTHING),
    (
        "a version that is not served any more goes, but for what another one shares",
        KEYS, MANIFESTS, {"new"},
        Garbage(("manifests/old.json",), ("blobs/b",), (), ()),
    ),
    (
        "nothing is needed: all of it goes",
        KEYS, MANIFESTS, set(),
        Garbage(
            ("manifests/new.json", "manifests/old.json"), ("blobs/a", "blobs/b", "blobs/shared"), (), ()
        ),
    ),
    (
        "an unfinished blob that nobody needs goes, a needed one stays",
        ["ingest/a", "ingest/z"], {"new": ["a"]}, {"new"},
        Garbage((), (), ("ingest/z",), ()),
    ),
    (
        "a blob that no manifest names goes once all of the catalogue's are here",
        ["blobs/z"], {"new": ["a"]}, {"new"},
        Garbage((), ("blobs/z",), (), ()),
    ),
    (
        "before that it might be needed, and stays",
        ["blobs/z"], {"new": ["a"]}, {"new", "not-here"},
        Garbage((), (), (), ("blobs/z",)),
    ),
    ("evidence and strangers stay", ["quarantine/q", "node.json", "uses.json"], {}, set(), NOTHING),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "keys", "manifests", "needed", "expected"), CASES, ids=[row[0] for row in CASES]
)
def test_what_may_go(sentence, keys, manifests, needed, expected):
    assert garbage(keys, manifests, needed, needed) == expected, sentence


def test_what_requests_name_is_needed_though_no_manifest_names_it():
    found = garbage(["blobs/y", "blobs/z", "ingest/z"], {"new": ["a"]}, {"new"}, {"new"}, {"z"})
    assert found == Garbage((), ("blobs/y",), (), ())


def test_a_pin_is_needed_and_tells_nothing_of_the_catalogue():
    found = garbage(["blobs/z", "manifests/old.json"], {"old": ["b"]}, {"old", "new"}, {"new"})
    assert found == Garbage((), (), (), ("blobs/z",))
