"""The whole specification of edge/proxy/whereabouts.py: what is where, why it is held, when it was used."""

from edge.policy.facts import Tier
from edge.proxy.device import Book, Stage
from edge.proxy.models import Resolved
from edge.proxy.whereabouts import whereabouts
from edge.wire.calls import Fetching, StoredModel, WeightsState

NAMED = {"a": Resolved("2", "a", 100, frozenset(), "alpha")}


def on_device(digest: str, stage: Stage, *, in_use: int = 0, used_at_ms: float = 0.0) -> Book:
    book = Book(1_000)
    entry = book.begin(digest, "alpha", 0.0)
    for step in (Stage.QUEUED, Stage.OPENING, Stage.RESIDENT, Stage.LEAVING):
        if entry.stage is stage:
            break
        book.move(entry, step, 0.0)
    entry.in_use, entry.used_at_ms, entry.device_bytes = in_use, used_at_ms, 7
    return book


def look(*books, held=None, stored=(), fetching=(), named=NAMED, now_ms=10_000.0):
    state = WeightsState(0, 0, 0, 0, models=list(stored), fetching=list(fetching))
    return whereabouts(
        {f"n/{index}": book for index, book in enumerate(books)}, held or {}, state, named, now_ms
    )


def stored(digest: str = "a", **more) -> StoredModel:
    return StoredModel(**{"digest": digest, "model": "alpha", "version": "2", "total_bytes": 100, "disk_bytes": 100, "holds": 0, **more})  # fmt: skip


def brief(rows):
    return [(row["digest"], row["tier"], row["why"], row["used_s_ago"]) for row in rows]


CASES = [
    ("nothing", look(), []),
    ("a cached one", look(held={"a": (Tier.DISK, 100)}), [("a", "disk", ["cache"], None)]),
    (
        "one that no catalogue names",
        look(stored=[stored("z", held_ms_ago=5_000.0)]),
        [("z", "disk", ["in no catalogue: gc lets it go"], 5.0)],
    ),
    (
        "one in use, pinned and kept",
        look(
            on_device("a", Stage.RESIDENT, in_use=3),
            held={"a": (Tier.HOST, 100)},
            stored=[stored(pinned=True, kept=True)],
        ),
        [("a", "device", ["used by 3 on n/0", "pinned", "kept by the catalogue"], 0.0)],
    ),
    (
        "one that rests on two devices",
        look(on_device("a", Stage.RESIDENT, used_at_ms=4_000.0), on_device("a", Stage.RESIDENT, used_at_ms=8_000.0)),
        [("a", "device", ["on n/0", "on n/1"], 2.0)],
    ),
    ("one that leaves", look(on_device("a", Stage.LEAVING)), [("a", "device", ["leaving on n/0"], 10.0)]),
    (
        "one that is opened from the disk",
        look(on_device("a", Stage.OPENING), held={"a": (Tier.HOST, 100)}),
        [("a", "host", ["opening on n/0"], 10.0)],
    ),
    (
        "one that somebody else holds",
        look(stored=[stored(holds=2)]),
        [("a", "host", ["held by 2 others"], None)],
    ),
    (
        "one that is brought to the disk",
        look(stored=[stored(disk_bytes=0)], fetching=[Fetching("a", 10, 100)]),
        [("a", "fetching", ["being fetched"], None)],
    ),
    ("one of which some is left", look(stored=[stored(disk_bytes=40)]), [("a", "partial", ["cache"], None)]),
    ("one of which nothing is here", look(stored=[stored(disk_bytes=0)]), []),
]  # fmt: skip


def test_each_model_is_told_with_why_it_is_here():
    for sentence, rows, expected in CASES:
        assert brief(rows) == expected, sentence


def test_a_row_has_bytes_devices_and_how_far_a_fetch_is():
    coming = Fetching("a", 25, 100, 50.0, {"origin": 25})
    (row,) = look(on_device("a", Stage.FETCHING), stored=[stored(disk_bytes=25)], fetching=[coming])
    assert (row["model"], row["version"], row["bytes"], row["disk_bytes"]) == ("alpha", "2", 100, 25)
    assert row["devices"] == [{"worker": "n/0", "stage": "fetching", "bytes": 7, "in_use": 0}]
    assert row["fetch"] == {
        "bytes": 25, "of_bytes": 100, "bytes_per_s": 50, "eta_s": 1.5, "sources": {"origin": 25},
    }  # fmt: skip
    (row,) = look(fetching=[Fetching("a", 0, 100)])
    assert row["fetch"]["eta_s"] is None, "nothing has come yet"


def test_what_was_used_last_comes_first():
    rows = look(
        on_device("a", Stage.RESIDENT, used_at_ms=9_000.0),
        held={"z": (Tier.DISK, 1)},
        stored=[stored("y", held_ms_ago=500.0)],
    )
    assert [row["digest"] for row in rows] == ["y", "a", "z"]
