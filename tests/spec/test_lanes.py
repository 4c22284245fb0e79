"""Who gets lanes over time, in a world of one link and no threads: `edge.weights.choice.Lanes` and its rules."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.policy.fetch_plan import AGED_MS, MOST, SEATS
from edge.weights.choice import Lanes, Party

KIB: Final = 1 << 10
MIB: Final = 1 << 20
TICK_MS: Final = 10.0
#: As often a fetch looks whether it gets a lane by itself.
LOOK_MS: Final = 100.0
PATIENCE_MS: Final = 120_000.0


@dataclass(eq=False)
class Fetch:
    """A blob on its way over the link. `slow`: bytes per ms that its path gives, and no more."""

    size_bytes: int
    chunk_bytes: int = MIB
    begins_ms: float = 0.0
    slow: float = float("inf")
    party: Party | None = None
    todo: int = 0
    place: int = 0
    running: list[float] = field(default_factory=list)
    ended_ms: float = 0.0
    longest_wait_ms: float = 0.0
    since_ms: float = 0.0

    @property
    def left_bytes(self) -> int:
        """What it lacks, as it tells the lanes."""
        return self.todo * self.chunk_bytes + len(self.running) * self.chunk_bytes


class Link:
    """Lanes share `bytes_per_ms` evenly. Who ended a chunk asks first, then all others do, newest first."""

    def __init__(self, bytes_per_ms: float) -> None:
        self.now_ms = 0.0
        self.lanes = Lanes(lambda: self.now_ms)
        self.bytes_per_ms = bytes_per_ms
        self.most_running = 0

    def run(
        self, fetches: Iterable[Fetch], until: Fetch, *, users: int = 0, sizes: Sequence[int] = ()
    ) -> None:
        """Until that one is here. Each of so many users has one fetch at a time, of these sizes in turn."""
        coming, here = sorted(fetches, key=lambda one: one.begins_ms), list[Fetch]()
        theirs: list[Fetch] = []
        asked = 0
        while not until.ended_ms:
            assert self.now_ms < PATIENCE_MS, f"{until.left_bytes} bytes of {until.size_bytes} lack"
            while coming and coming[0].begins_ms <= self.now_ms:
                here.append(self._join(coming.pop(0)))
            theirs = [one for one in theirs if not one.ended_ms]
            while len(theirs) < users:
                theirs.append(self._join(Fetch(sizes[asked % len(sizes)], 64 * KIB)))
                here.append(theirs[-1])
                asked += 1
            self.now_ms += TICK_MS
            self._move(here)
            for one in reversed(here):
                self._ask(one)
            for one in here:
                if not one.todo and not one.running:
                    self.lanes.leave(one.place)
                    one.ended_ms = self.now_ms
            here = [one for one in here if not one.ended_ms]
            self.most_running = max(self.most_running, sum(len(one.running) for one in here))

    def _join(self, one: Fetch) -> Fetch:
        one.todo = -(-one.size_bytes // one.chunk_bytes)
        one.since_ms = self.now_ms
        one.place = self.lanes.join(lambda: None, MOST, one.left_bytes, one.party)
        return one

    def _move(self, here: list[Fetch]) -> None:
        running = sum(len(one.running) for one in here)
        for one in here:
            came = TICK_MS * min(one.slow, self.bytes_per_ms / max(1, running))
            before = len(one.running)
            one.running = [left for had in one.running if (left := had - came) > 0]
            self.lanes.arrived(int(came) * before)
            for _ in range(before - len(one.running)):
                self.lanes.release(one.place)
            if before > len(one.running):
                self._ask(one)

    def _ask(self, one: Fetch) -> None:
        while one.todo and self.lanes.take(one.place, one.left_bytes):
            one.todo -= 1
            one.running.append(float(one.chunk_bytes))
        self.lanes.settle(one.place, one.left_bytes, waiting=one.todo > 0)
        if one.running:
            one.since_ms = self.now_ms
        one.longest_wait_ms = max(one.longest_wait_ms, self.now_ms - one.since_ms)


def alone_ms(size_bytes: int, bytes_per_ms: float) -> float:
    one, link = Fetch(size_bytes), Link(bytes_per_ms)
    link.run([one], one)
    return one.ended_ms


SPEED: Final = 8 * MIB / 1000


@pytest.mark.parametrize(
    "sizes",
    [[256 * KIB], list(range(512 * KIB, 64 * KIB, -1024))],
    ids=["equals", "ever smaller ones"],
)
def test_a_large_one_gets_on_beside_small_ones_that_never_end(sizes: list[int]) -> None:
    large = Fetch(8 * MIB, begins_ms=100.0)
    Link(SPEED).run([large], large, users=12, sizes=sizes)
    # Others age beside it.
    assert large.longest_wait_ms <= 2 * AGED_MS
    assert large.ended_ms <= 13 * alone_ms(8 * MIB, SPEED), "its part of 13"


@settings(max_examples=6, deadline=None)
@given(sizes=st.lists(st.integers(1, 2 * MIB), min_size=1, max_size=12), users=st.integers(1, 20))
def test_nobody_waits_long_whoever_arrives(sizes: list[int], users: int) -> None:
    large = Fetch(3 * MIB, begins_ms=200.0)
    link = Link(SPEED)
    link.run([large], large, users=users, sizes=sizes)
    assert large.longest_wait_ms <= (1 + users / SEATS) * (2 * AGED_MS + LOOK_MS)
    assert link.most_running <= 2 * MOST + 2 * SEATS + 1


@settings(max_examples=15, deadline=None)
@given(
    small_mib=st.integers(2, 20),
    larger=st.integers(4, 20),
    at_ms=st.integers(500, 4_000),
    files=st.sampled_from([1, 8]),
)
def test_a_small_model_beside_a_large_one_takes_at_most_twice_as_long(
    small_mib: int, larger: int, at_ms: int, files: int
) -> None:
    speed = 50 * MIB / 1000
    party = Party()
    small = Fetch(small_mib * MIB, begins_ms=float(at_ms))
    each = max(small_mib * larger, 400) * MIB // files
    large = [Fetch(each, party=party) for _ in range(files)]
    Link(speed).run([small, *large], small)
    # A chunk that had begun before it can't be taken back.
    begun_ms = MOST * MIB / speed
    assert small.ended_ms - small.begins_ms <= 2 * alone_ms(small.size_bytes, speed) + begun_ms


def test_many_large_ones_take_turns() -> None:
    many = [Fetch(16 * MIB + at * MIB) for at in range(12)]
    last = many[-1]
    link = Link(SPEED)
    link.run([*many], many[0])
    assert all(one.todo < one.size_bytes // MIB for one in many), "each got some of it"
    assert last.longest_wait_ms <= 12 / SEATS * (AGED_MS + 2 * SEATS * MIB / SPEED + 2 * LOOK_MS)
    assert link.most_running <= 2 * MOST + 2 * SEATS + 1


def test_slow_paths_of_small_ones_hold_nobody_up() -> None:
    large = Fetch(8 * MIB, begins_ms=100.0)
    dripping = [Fetch(MIB, slow=20.0) for _ in range(6)]
    Link(100 * MIB / 1000).run([large, *dripping], large)
    assert large.longest_wait_ms <= AGED_MS + LOOK_MS
    assert large.ended_ms < 3_000.0


def test_a_model_that_has_not_begun_with_all_its_files_is_as_large_as_it_is() -> None:
    party = Party()
    party.rest_bytes = 56 * MIB
    files = [Fetch(MIB, 256 * KIB, party=party) for _ in range(8)]
    small = Fetch(2 * MIB, 256 * KIB, begins_ms=50.0)
    Link(SPEED).run([small, *files], small)
    assert small.ended_ms - 50.0 <= 2 * alone_ms(2 * MIB, SPEED)
