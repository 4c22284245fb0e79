"""The book of one device: stages, whose word counts, who leaves, how long a load takes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.errors import EdgeError, Reason
from edge.policy.facts import Rates
from edge.policy.score import LOAD_FIXED_MS
from edge.proxy.device import (
    LOADING,
    MAX_LEARNED,
    NEXT,
    RATE_BYTES,
    Book,
    LoadTimes,
    OnDevice,
    Stage,
    Uploads,
    lost,
)

MIB = 1 << 20
PATH = [Stage.FETCHING, Stage.QUEUED, Stage.OPENING, Stage.RESIDENT, Stage.LEAVING, Stage.GONE]


def at(book, digest, stage, size=0, now_ms=0.0, in_use=0):
    """An entry taken step by step to a stage."""
    entry = book.begin(digest, digest.upper(), now_ms)
    for step in PATH[1 : PATH.index(stage) + 1]:
        book.move(entry, step, now_ms)
    entry.device_bytes, entry.in_use, entry.used_at_ms = size, in_use, now_ms
    return entry


@pytest.mark.parametrize("start", PATH)
@pytest.mark.parametrize("end", PATH)
def test_only_the_steps_of_the_table_can_be_taken(start, end):
    book = Book(100)
    entry = at(book, "a", start)
    if end in NEXT[start]:
        book.move(entry, end, 7.0)
        assert (entry.stage, entry.since_ms) == (end, 7.0)
    else:
        with pytest.raises(ValueError, match=f"can't go from {start} to {end}"):
            book.move(entry, end, 7.0)
        assert entry.stage is start


def test_a_model_that_leaves_is_not_found_and_still_takes_its_bytes():
    book = Book(100)
    old = at(book, "a", Stage.LEAVING, 60)
    assert book.find("a") is None
    assert book.used_bytes == 60
    new = book.begin("a", "A", 1.0)
    assert book.find("a") is new
    assert book.entries() == [new, old]
    book.move(old, Stage.GONE, 2.0)
    assert (book.find("a"), book.used_bytes, book.leaving()) == (new, 0, [])


def test_one_digest_has_one_entry_that_is_loading_or_resident():
    book = Book(100)
    book.begin("a", "A", 0.0)
    with pytest.raises(ValueError, match="a has an entry"):
        book.begin("a", "A", 1.0)


ADOPT = [
    # sentence, stage and size in the book (None: not there), told by the worker, used, ghosts, phantoms, bytes of a, others
    ("a prepacked model has grown", Stage.RESIDENT, 40, {"a": 80}, 80, [], [], 80, 0),
    ("a model that the book lacks is taken over", None, 0, {"a": 40}, 40, ["a"], [], 40, 0),
    ("a model that the worker lacks is told", Stage.RESIDENT, 40, {}, 0, [], ["a"], 40, 0),
    ("one that is opened need not be told yet", Stage.OPENING, 40, {}, 40, [], [], 40, 0),
    ("one that fetches takes nothing yet", Stage.FETCHING, 0, {}, 0, [], [], 0, 0),
    ("one that the worker loaded alone is no ghost while it loads", Stage.QUEUED, 0, {"a": 40}, 40, [], [], 40, 0),
    ("one that leaves is counted until it is gone", Stage.LEAVING, 40, {}, 40, [], [], None, 0),
    ("one that leaves is no ghost", Stage.LEAVING, 40, {"a": 40}, 40, [], [], None, 0),
    ("bytes that nobody names are somebody's", Stage.RESIDENT, 40, {"a": 40}, 70, [], [], 40, 30),
    ("less than the book has is nothing of others", Stage.OPENING, 40, {}, 0, [], [], 40, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "stage", "size", "told", "used", "ghosts", "phantoms", "bytes_of_a", "others"), ADOPT
)
def test_the_word_of_the_worker_counts(
    sentence, stage, size, told, used, ghosts, phantoms, bytes_of_a, others
):
    book = Book(1)
    if stage is not None:
        at(book, "a", stage, size)
    models = [OnDevice(digest, digest.upper(), taken) for digest, taken in told.items()]
    adopted = book.adopt(models, used_bytes=used, limit_bytes=100, now_ms=5.0)
    assert [entry.digest for entry in adopted.ghosts] == ghosts
    assert [entry.digest for entry in adopted.phantoms] == phantoms
    found = book.find("a")
    assert (found.device_bytes if found else None) == bytes_of_a
    assert (book.other_bytes, book.limit_bytes) == (others, 100)
    assert book.used_bytes == max(used, size if phantoms or stage in LOADING else 0)
    for ghost in adopted.ghosts:
        assert (ghost.stage, ghost.model, ghost.loading) == (Stage.RESIDENT, "A", None)


VICTIMS = [
    ("it fits", {"a": 40}, {}, 60, None, ()),
    ("the one not used for the longest leaves", {"a": 40, "b": 40}, {}, 60, None, ("a",)),
    ("one in use stays", {"a": 40, "b": 40}, {"in_use": "a"}, 60, None, ("b",)),
    ("a pinned one stays", {"a": 40, "b": 40}, {"pinned": "a"}, 60, None, ("b",)),
    ("only the judged ones leave", {"a": 40, "b": 40}, {}, 60, {"b"}, ("b",)),
    ("none is judged and it does not fit", {"a": 40, "b": 40}, {}, 60, set(), None),
    ("what others hold can't be had", {"a": 40, "b": 20}, {"others": 30}, 60, None, ("a", "b")),
    ("nor by leaving", {"a": 40}, {"others": 50}, 60, None, None),
    ("more than the device", {}, {}, 101, None, None),
]


@pytest.mark.parametrize(("sentence", "residents", "facts", "need", "judged", "expected"), VICTIMS)
def test_who_leaves(sentence, residents, facts, need, judged, expected):
    book = Book(100)
    book.other_bytes = facts.get("others", 0)
    for used_at_ms, (digest, size) in enumerate(residents.items()):
        at(book, digest, Stage.RESIDENT, size, float(used_at_ms))
    if "in_use" in facts:
        book.find(facts["in_use"]).in_use = 1
    if "pinned" in facts:
        book.pinned = frozenset(facts["pinned"])
    entry = book.begin("new", "NEW", 9.0)
    entry.victims = None if judged is None else frozenset(judged)
    victims = book.victims(entry, need, 10.0)
    assert (None if victims is None else tuple(victim.digest for victim in victims)) == expected


def test_the_one_in_demand_stays_though_it_was_used_before_the_other():
    book = Book(100)
    asked_for, other = at(book, "a", Stage.RESIDENT, 50, 1.0), at(book, "b", Stage.RESIDENT, 50, 2.0)
    asked_for.load_ms = other.load_ms = 100.0
    for _ in range(3):
        asked_for.uses.add(3.0)
    other.uses.add(3.0)
    assert book.victims(book.begin("new", "NEW", 4.0), 40, 4.0) == (other,)


def test_what_loads_or_leaves_is_nobodys_victim():
    book = Book(100)
    at(book, "a", Stage.OPENING, 50)
    at(book, "b", Stage.LEAVING, 50)
    assert book.victims(book.begin("new", "NEW", 1.0), 1, 1.0) is None


def test_an_earlier_stay_that_leaves_is_not_taken_for_the_next():
    book = Book(100)
    at(book, "a", Stage.LEAVING, 40)
    again = book.begin("a", "A", 1.0)
    adopted = book.adopt([OnDevice("a", "A", 40)], used_bytes=40, limit_bytes=100, now_ms=2.0)
    assert (adopted.ghosts, adopted.phantoms) == ((), ())
    assert (again.device_bytes, book.used_bytes, book.other_bytes) == (0, 40, 0)


def test_with_its_worker_goes_what_was_on_it_and_no_fetch():
    book = Book(100)
    entries = [at(book, stage.value, stage) for stage in PATH[:-1]]
    assert [entry.digest for entry in lost(entries)] == ["resident", "leaving"]


@pytest.mark.parametrize(
    ("sentence", "stages", "expected_ms"),
    [
        ("no loads", [], 0.0),
        ("a fetch keeps no loader", [(Stage.FETCHING, 100.0)], 0.0),
        ("the rest of the one that is opened", [(Stage.OPENING, 100.0)], 70.0),
        ("one that takes longer than was thought", [(Stage.OPENING, 20.0)], 0.0),
        ("and all of those that wait", [(Stage.OPENING, 100.0), (Stage.QUEUED, 50.0)], 120.0),
        ("a resident one is done", [(Stage.RESIDENT, 100.0)], 0.0),
    ],
)
def test_until_the_loader_is_free(sentence, stages, expected_ms):
    book = Book(100)
    for number, (stage, load_ms) in enumerate(stages):
        at(book, str(number), stage, now_ms=1_000.0).load_ms = load_ms
    assert book.loader_wait_ms(1_030.0) == expected_ms


def test_load_times_are_learned():
    times = LoadTimes()
    guess = LOAD_FIXED_MS + 1_000 * MIB / Rates().load
    assert times.expect_ms("a", 1_000 * MIB) == guess
    times.observe("a", 100 * MIB, 100.0)
    assert times.expect_ms("a", 100 * MIB) == 100.0
    assert 10.0 < times.expect_ms("b", 10 * MIB) < LOAD_FIXED_MS + 10.0, "by its size"
    times.observe("a", 100 * MIB, 200.0)
    assert times.expect_ms("a", 100 * MIB) == pytest.approx(130.0)


def test_a_small_model_tells_nothing_of_the_rate():
    times = LoadTimes()
    times.observe("small", RATE_BYTES - 1, 40.0)
    assert times.bytes_per_ms == Rates().load
    assert times.expect_ms("small", RATE_BYTES - 1) == 40.0


@pytest.mark.parametrize("load_ms", [0.0, -1.0])
def test_times_that_can_not_be_are_not_learned(load_ms):
    times = LoadTimes()
    times.observe("a", 100 * MIB, load_ms)
    assert times.expect_ms("a", 0) == LOAD_FIXED_MS


def test_what_is_learned_is_bounded():
    times = LoadTimes()
    for number in range(MAX_LEARNED + 1):
        times.observe(str(number), MIB, 5.0)
    assert times.expect_ms("0", 0) != 5.0
    assert times.expect_ms("1", 0) == 5.0


@pytest.mark.parametrize(("hard_limit", "cap"), [(1, 1), (7, 1), (8, 2), (128, 32)])
def test_large_bodies_get_a_quarter_of_the_slots(hard_limit, cap):
    uploads = Uploads("n/0", hard_limit)
    assert uploads.cap == cap
    for _ in range(cap):
        uploads.__enter__()
    with pytest.raises(EdgeError, match=f"n/0 takes {cap} large bodies") as caught, uploads:
        pass
    assert (caught.value.reason, caught.value.retryable) == (Reason.SATURATED, True)
    uploads.__exit__()
    with uploads:
        assert uploads.running == cap
    assert uploads.running == cap - 1


class Device(RuleBasedStateMachine):
    """Any order of loads, evictions and Status answers: the book never promises more than there is."""

    def __init__(self):
        super().__init__()
        self.book = Book(100)
        self.now_ms = 0.0

    @rule(digest=st.sampled_from("abcd"), need=st.integers(1, 70), in_use=st.booleans())
    def load(self, digest, need, in_use):
        self.now_ms += 1.0
        if self.book.find(digest) is not None:
            return
        entry = self.book.begin(digest, digest, self.now_ms)
        self.book.move(entry, Stage.QUEUED, self.now_ms)
        self.book.move(entry, Stage.OPENING, self.now_ms)
        victims = self.book.victims(entry, need, self.now_ms)
        if victims is None:
            self.book.move(entry, Stage.GONE, self.now_ms)
            return
        for victim in victims:
            assert victim.in_use == 0
            self.book.move(victim, Stage.LEAVING, self.now_ms)
            self.book.move(victim, Stage.GONE, self.now_ms)
        entry.device_bytes, entry.in_use = need, int(in_use)
        self.book.move(entry, Stage.RESIDENT, self.now_ms)

    @precondition(lambda self: self.book.entries())
    @rule(data=st.data())
    def leave(self, data):
        entry = data.draw(st.sampled_from(self.book.entries()))
        if entry.stage is Stage.RESIDENT:
            self.book.move(entry, Stage.LEAVING, self.now_ms)

    @rule(keep=st.sets(st.sampled_from("abcdef")), others=st.integers(0, 20))
    def status(self, keep, others):
        kept = [entry for entry in self.book.entries() if entry.digest in keep]
        told = [
            OnDevice(one.digest, one.digest, one.device_bytes) for one in kept if one.stage is Stage.RESIDENT
        ]
        leaving = sum(one.device_bytes for one in self.book.leaving())
        free = max(0, 100 - sum(one.device_bytes for one in told) - leaving)
        used = sum(one.device_bytes for one in told) + leaving + min(others, free)
        adopted = self.book.adopt(told, used_bytes=used, limit_bytes=100, now_ms=self.now_ms)
        assert not adopted.ghosts
        for phantom in adopted.phantoms:
            self.book.move(phantom, Stage.GONE, self.now_ms)
        assert self.book.used_bytes == used

    @invariant()
    def never_more_than_there_is(self):
        assert 0 <= self.book.used_bytes <= 100
        digests = [entry.digest for entry in self.book.entries() if entry.stage is not Stage.LEAVING]
        assert len(digests) == len(set(digests))


TestDevice = Device.TestCase
TestDevice.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@given(st.lists(st.tuples(st.integers(1, 1 << 40), st.floats(0.001, 1e6)), max_size=30))
def test_expectations_stay_finite_and_positive(loads):
    times = LoadTimes()
    for number, (size_bytes, load_ms) in enumerate(loads):
        times.observe(str(number % 3), size_bytes, load_ms)
    assert 0.0 < times.expect_ms("0", 1) < 1e12
