"""What fits, and who goes for it: tables for the order, hypothesis for the invariants."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge.policy.worth import NOTHING, Worth
from edge.weights.budget import (
    Entry,
    Fits,
    Ledger,
    Refused,
    Shelf,
    excess,
    host_missing_bytes,
    make_room,
    shelf_of,
)


def blob(key: str, size: int, held_ms: float = 0.0, *, movable: bool = True, worth: Worth = NOTHING) -> Entry:
    return Entry(f"blobs/{key}", Shelf.BLOBS, size, held_ms, movable, worth)


def other(shelf: Shelf, size: int, held_ms: float = 9.0) -> Entry:
    return Entry(f"{shelf.name.lower()}/x", shelf, size, held_ms, movable=True)


@pytest.mark.parametrize(
    ("sentence", "entries", "capacity", "wanted", "expected"),
    [
        ("an empty store has room", [], 10, 10, Fits(())),
        ("one byte too many is refused", [], 10, 11, Refused(1)),
        ("what fits evicts nobody", [blob("a", 5)], 10, 5, Fits(())),
        ("one byte over evicts", [blob("a", 5)], 10, 6, Fits(("blobs/a",))),
        (
            "least recently held goes first",
            [blob("new", 5, 2.0), blob("old", 5, 1.0)],
            10,
            1,
            Fits(("blobs/old",)),
        ),
        (
            "what is worth less per byte goes before what was held longer ago",
            [blob("dear", 5, 1.0, worth=Worth(2.0)), blob("cheap", 5, 2.0, worth=Worth(1.0))],
            10,
            1,
            Fits(("blobs/cheap",)),
        ),
        (
            "a large victim spares the worthier of those before it",
            [blob("s", 1, worth=Worth(1.0)), blob("m", 2, worth=Worth(2.0)), blob("l", 7, worth=Worth(3.0))],
            10,
            8,
            Fits(("blobs/s", "blobs/l")),
        ),
        (
            "of a large one the bytes that would lie idle count half",
            [blob("small", 2, worth=Worth(1.5)), blob("large", 8, worth=Worth(1.0))],
            10,
            2,
            Fits(("blobs/small",)),
        ),
        (
            "and all of them count when they are needed",
            [blob("small", 2, worth=Worth(1.5)), blob("large", 8, worth=Worth(1.0))],
            10,
            8,
            Fits(("blobs/large",)),
        ),
        (
            "what was published a moment ago stays while anything else can go",
            [blob("new", 5, 1.0, worth=Worth(0.0, spared=True)), blob("old", 5, 2.0, worth=Worth(9.0))],
            10,
            1,
            Fits(("blobs/old",)),
        ),
        (
            "and goes when nothing else is left",
            [blob("new", 5, worth=Worth(spared=True)), blob("held", 5, movable=False)],
            10,
            1,
            Fits(("blobs/new",)),
        ),
        ("what is held stays", [blob("a", 5, movable=False), blob("b", 5, 9.0)], 10, 5, Fits(("blobs/b",))),
        ("all held is a refusal with numbers", [blob("a", 6, movable=False)], 10, 7, Refused(3)),
        (
            "a large late victim spares the small ones before it",
            [blob("s", 1, 1.0), blob("m", 2, 2.0), blob("l", 7, 3.0)],
            10,
            7,
            Fits(("blobs/l",)),
        ),
        (
            "quarantine goes before anything that could serve",
            [blob("a", 5, 1.0), other(Shelf.QUARANTINE, 5)],
            10,
            5,
            Fits(("quarantine/x",)),
        ),
        (
            "an unfinished blob goes before a whole one",
            [blob("a", 5, 1.0), other(Shelf.INGEST, 5)],
            10,
            5,
            Fits(("ingest/x",)),
        ),
        (
            "manifests go last",
            [blob("a", 5, 9.0), other(Shelf.MANIFESTS, 5, 1.0)],
            10,
            5,
            Fits(("blobs/a",)),
        ),
        ("an empty file is no victim", [blob("a", 0), blob("b", 10, 5.0)], 10, 1, Fits(("blobs/b",))),
        ("a store over its budget shrinks", [blob("a", 8), blob("b", 8, 1.0)], 10, 0, Fits(("blobs/a",))),
    ],
)
def test_make_room(
    sentence: str, entries: list[Entry], capacity: int, wanted: int, expected: Fits | Refused
) -> None:
    assert make_room(entries, capacity, wanted) == expected, sentence


entries_strategy = st.lists(
    st.builds(
        Entry,
        key=st.integers(0, 10**9).map(lambda n: f"blobs/{n}"),
        shelf=st.sampled_from(Shelf),
        size_bytes=st.integers(0, 100),
        last_held_ms=st.floats(0, 100),
        movable=st.booleans(),
        worth=st.builds(Worth, per_byte=st.floats(0, 9), spared=st.booleans()),
    ),
    max_size=30,
    unique_by=lambda entry: entry.key,
)


@settings(max_examples=50)
@given(entries_strategy, st.integers(0, 1500), st.integers(0, 1500))
def test_victims_are_movable_enough_and_none_is_superfluous(
    entries: list[Entry], capacity: int, wanted: int
) -> None:
    by_key = {entry.key: entry for entry in entries}
    used = sum(entry.size_bytes for entry in entries)
    movable = sum(entry.size_bytes for entry in entries if entry.movable)
    match make_room(entries, capacity, wanted):
        case Fits(victims):
            freed = [by_key[key].size_bytes for key in victims]
            assert all(by_key[key].movable for key in victims)
            assert len(set(victims)) == len(victims)
            assert used - sum(freed) + wanted <= capacity
            assert all(used - sum(freed) + size + wanted > capacity for size in freed)
        case Refused(missing):
            assert missing > 0
            assert used - movable + wanted - missing == capacity


@settings(max_examples=50)
@given(entries_strategy, st.integers(0, 1500))
def test_excess_leaves_the_newest_within_the_quota(entries: list[Entry], quota: int) -> None:
    gone = set(excess(entries, quota))
    assert sum(entry.size_bytes for entry in entries if entry.key not in gone) <= quota or not entries


@pytest.mark.parametrize(
    ("sentence", "held", "wanted", "capacity", "missing"),
    [
        ("nothing held and it fits", {}, {"a": 5}, 5, 0),
        ("one byte too large", {}, {"a": 6}, 5, 1),
        ("beside what is held", {"b": 3}, {"a": 3}, 5, 1),
        ("a shared blob counts once", {"a": 5}, {"a": 5}, 5, 0),
    ],
)
def test_host_room(
    sentence: str, held: dict[str, int], wanted: dict[str, int], capacity: int, missing: int
) -> None:
    assert host_missing_bytes(held, wanted, capacity) == missing, sentence


def test_shelves_are_named_by_the_first_segment() -> None:
    keys = ["blobs/a", "ingest/a", "quarantine/a.3", "manifests/a.json", "catalog.json", "lingering/1"]
    assert [shelf_of(key) for key in keys] == [
        Shelf.BLOBS,
        Shelf.INGEST,
        Shelf.QUARANTINE,
        Shelf.MANIFESTS,
        Shelf.STRANGERS,
        Shelf.STRANGERS,
    ]


KEYS = [f"blobs/{n}" for n in range(6)]


class Books(RuleBasedStateMachine):
    """Any order of arrivals, holds and evictions, some of which fail or linger."""

    @initialize(capacity=st.integers(0, 120))
    def begin(self, capacity: int) -> None:
        self.ledger = Ledger(capacity)
        self.now = 0.0
        self.disk: dict[str, int] = {}
        self.pins: dict[str, int] = dict.fromkeys(KEYS, 0)
        self.lingering = 0

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    @rule(key=st.sampled_from(KEYS), size=st.integers(1, 60), fates=st.lists(st.sampled_from("fbl")))
    def arrive(self, key: str, size: int, fates: list[str]) -> None:
        """Make room the way `Disk` does; victims are freed, found busy, or linger."""
        if key in self.ledger:
            return
        busy: set[str] = set()
        while True:
            plan = make_room(self.ledger.entries(busy), self.ledger.capacity_bytes, size)
            if isinstance(plan, Refused):
                return
            if not plan.victims:
                break
            for victim in plan.victims:
                assert self.pins[victim] == 0
                self.ledger.leave(victim)
                assert victim not in self.ledger
                fate = fates.pop() if fates else "f"
                if fate == "b":
                    self.ledger.stay(victim)
                    busy.add(victim)
                    continue
                if fate == "l":
                    self.lingering += 1
                    name = f"lingering/{self.lingering}"
                    self.ledger.put(name, self.ledger.size_bytes(victim), self.tick())
                    self.disk[name] = self.disk[victim]
                self.ledger.drop(victim)
                del self.disk[victim]
        self.ledger.put(key, size, self.tick())
        self.disk[key] = size

    @rule(number=st.integers(1, 30))
    def unmapped(self, number: int) -> None:
        self.ledger.drop(f"lingering/{number}")
        self.disk.pop(f"lingering/{number}", None)

    @rule(key=st.sampled_from(KEYS))
    def hold(self, key: str) -> None:
        self.ledger.pin(key)
        self.pins[key] += 1

    @rule(key=st.sampled_from(KEYS))
    def release(self, key: str) -> None:
        if self.pins[key]:
            self.ledger.unpin(key, self.tick())
            self.pins[key] -= 1

    @invariant()
    def the_book_is_the_disk_and_within_the_budget(self) -> None:
        if hasattr(self, "ledger"):
            assert self.ledger.used_bytes == sum(self.disk.values()) <= self.ledger.capacity_bytes
            assert all(self.ledger.pinned(key) == (count > 0) for key, count in self.pins.items())


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=25, stateful_step_count=25)
