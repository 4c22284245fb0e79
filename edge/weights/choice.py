"""The sources and the lanes of one node: what all its fetches share. For several threads at a time.

Rules are in `edge.weights.sources` (whom to ask) and `edge.policy.fetch_plan` (how many at a time);
here is the lock around what they look at, and the threads in which ranges run.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from edge import clock
from edge.policy import fetch_plan
from edge.policy.fetch_plan import Seat, Wait, Width
from edge.weights.sources import Kind, Moved, Site, Speeds, expected_ms

#: More than ever run at a time: a range that was given up keeps its thread until its source times out.
RANGE_THREADS: Final = 192


class Choice:
    """What was measured of each source, and what is under way at it."""

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.threads = ThreadPoolExecutor(RANGE_THREADS, "weights-range")
        self._lock = threading.Lock()
        self._busy: dict[Site, list[float]] = {}
        self._speeds = Speeds()

    def close(self, *, wait: bool = True) -> None:
        """No more ranges. Waits until every one that was given up has ended: as long as its source's read
        timeout.
        """
        self.threads.shutdown(wait=wait, cancel_futures=True)

    def take(self, sites: list[Site], wanted_bytes: int) -> tuple[Site, float]:
        """The one to ask now, and in how many ms it should be done; give it back with `left`."""
        with self._lock:
            now_ms = clock.now_ms()
            site = self._speeds.ranked(sites, wanted_bytes, self._busy, now_ms)[0]
            believed_ms = self._expected_ms(site, wanted_bytes)
            self._busy.setdefault(site, []).append(now_ms)
            return site, believed_ms

    def ranked(self, sites: list[Site], wanted_bytes: int) -> tuple[Site, ...]:
        """Whom to ask in which order."""
        with self._lock:
            return self._speeds.ranked(sites, wanted_bytes, self._busy, clock.now_ms())

    def expected_ms(self, site: Site, wanted_bytes: int) -> float:
        """How long this source would take for so many bytes now, beside what is under way at it."""
        with self._lock:
            return self._expected_ms(site, wanted_bytes)

    def _expected_ms(self, site: Site, wanted_bytes: int) -> float:
        return expected_ms(site, self._speeds.of(site), wanted_bytes)

    def rates(self, sites: Iterable[Site]) -> list[float]:
        """Bytes per ms of those that were measured."""
        with self._lock:
            return [speed for site in sites if (speed := self._speeds.of(site).bytes_per_ms)]

    def delivered(self, site: Site, moved_bytes: int, took_ms: float) -> None:
        """It gave all that was asked, and right."""
        with self._lock:
            self._speeds.delivered(site, moved_bytes, took_ms)

    def lost(self, site: Site, moved_bytes: int, took_ms: float) -> None:
        """It was overtaken by another."""
        with self._lock:
            self._speeds.lost(site, moved_bytes, took_ms)

    def failed(self, site: Site, *, wrong_bytes: bool = False) -> None:
        """It did not."""
        with self._lock:
            self._speeds.failed(site, clock.now_ms(), wrong_bytes=wrong_bytes)

    def left(self, site: Site) -> None:
        """The oldest of what was taken from it is at its end."""
        with self._lock:
            began = self._busy[site]
            began.pop(0)
            if not began:
                del self._busy[site]

    def fetched(self, moved: Moved, took_ms: float) -> None:
        """A whole fetch came to its end."""
        with self._lock:
            self._speeds.fetched(moved, took_ms, clock.now_ms())

    def rate(self, kind: Kind) -> float:
        """Bytes per ms to reckon with for a whole fetch from this class; 0 for unknown."""
        with self._lock:
            return self._speeds.rate(kind, clock.now_ms())


class Party:
    """Fetches that one caller waits for: at the lanes they count as one."""

    def __init__(self) -> None:
        #: What those of them lack that have not begun.
        self.rest_bytes = 0
        self.places: list[_Place] = []
        self.wait = Wait()

    @property
    def running(self) -> int:
        """Lanes that they hold."""
        return sum(place.running for place in self.places)

    @property
    def waiting(self) -> bool:
        """Would any of them take one more?"""
        return any(place.waiting for place in self.places)

    @property
    def left_bytes(self) -> int:
        """What they lack."""
        return self.rest_bytes + sum(place.left_bytes for place in self.places)

    def seat(self, now_ms: float) -> Seat:
        """As the rules see it."""
        return Seat(self.left_bytes, self.running, self.waiting, self.wait.ms(now_ms))


@dataclass(eq=False)
class _Place:
    """One fetch at the lanes. `most` is its own bound."""

    party: Party
    wake: Callable[[], None]
    most: int
    left_bytes: int
    running: int = 0
    waiting: bool = False


class Lanes:
    """Ranges that run at a time on this node, shared by its fetches."""

    def __init__(self, now_ms: Callable[[], float] = clock.now_ms) -> None:
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._places: dict[int, _Place] = {}
        self._next = 0
        self._width = Width()
        self._bytes = 0
        self._since_ms = now_ms()
        self._slack = True

    @property
    def width(self) -> int:
        """How many run at a time, as of now."""
        return self._width.lanes

    def join(self, wake: Callable[[], None], most: int, left_bytes: int, party: Party | None = None) -> int:
        """A fetch begins; `wake` is called from any thread when it may get a lane that it was refused."""
        with self._lock:
            self._next += 1
            place = _Place(party or Party(), wake, most, left_bytes)
            place.party.places.append(place)
            self._places[self._next] = place
            return self._next

    def leave(self, place: int) -> None:
        """It is at its end, with all of its lanes."""
        with self._lock:
            gone = self._places.pop(place)
            gone.party.places.remove(gone)
            if not gone.party.running:
                gone.party.wait.ended(self._now_ms(), waiting=gone.party.waiting)
            woken = self._waiting()
        _wake(woken)

    def take(self, place: int, left_bytes: int, *, beyond: bool = False) -> bool:
        """A lane, if it is this fetch's turn; `beyond` all turns and bounds in place of a late one."""
        with self._lock:
            me, now_ms = self._places[place], self._now_ms()
            me.left_bytes = left_bytes
            mine = me.party.seat(now_ms)
            others = [party.seat(now_ms) for party in self._parties() if party is not me.party]
            turn = me.running < me.most and fetch_plan.may_take(mine, others, self._width.lanes)
            if turn or beyond:
                if not mine.running:
                    me.party.wait.began(now_ms)
                me.running += 1
                return True
            waited, me.waiting = me.waiting, me.running < me.most
            if not mine.running:
                me.party.wait.refused(now_ms)
            # Whoever was refused before has woken them then: they would wake each other without end.
            woken = [] if waited else [place for place in self._waiting() if place is not me]
        _wake(woken)
        return False

    def release(self, place: int) -> None:
        """A lane is free."""
        with self._lock:
            if me := self._places.get(place):
                me.running -= 1
                if not me.party.running:
                    me.party.wait.ended(self._now_ms(), waiting=True)
            woken = self._waiting()
        _wake(woken)

    def settle(self, place: int, left_bytes: int, *, waiting: bool) -> None:
        """This fetch has taken what it can: does it wait for more?"""
        with self._lock:
            me = self._places[place]
            stopped, me.waiting, me.left_bytes = me.waiting and not waiting, waiting, left_bytes
            if not me.party.running and not me.party.waiting:
                me.party.wait.ended(self._now_ms(), waiting=False)
            if not any(other.waiting for other in self._places.values()):
                running = sum(other.running for other in self._places.values())
                self._slack = self._slack or running < self._width.lanes
            woken = self._waiting() if stopped else []
        _wake(woken)

    def arrived(self, count: int) -> None:
        """So many bytes came."""
        with self._lock:
            self._bytes += count
            now_ms = self._now_ms()
            if (elapsed_ms := now_ms - self._since_ms) < fetch_plan.WINDOW_MS:
                return
            before = self._width.lanes
            most = max((place.most for place in self._places.values()), default=fetch_plan.MOST)
            self._width = fetch_plan.after_window(
                self._width, self._bytes / elapsed_ms, full=not self._slack, most=most
            )
            self._bytes, self._since_ms, self._slack = 0, now_ms, False
            woken = self._waiting() if self._width.lanes > before else []
        _wake(woken)

    def _parties(self) -> Iterable[Party]:
        return dict.fromkeys(place.party for place in self._places.values())

    def _waiting(self) -> list[_Place]:
        """Whom a lane may serve; of those that have none, maybe many, only who lacks least and who waits
        longest.
        """
        now_ms = self._now_ms()
        waiting = {party: party.seat(now_ms) for party in self._parties() if party.waiting}
        without = [party for party in waiting if not waiting[party].running]
        first = min(without, key=lambda party: waiting[party].left_bytes, default=None)
        oldest = max(without, key=lambda party: waiting[party].waited_ms, default=None)
        return [
            place
            for party in waiting
            if waiting[party].running or party in (first, oldest)
            for place in party.places
            if place.waiting
        ]


def _wake(places: list[_Place]) -> None:
    for place in places:
        place.wake()
