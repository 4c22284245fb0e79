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
from edge.policy.fetch_plan import Seat, Width
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


@dataclass
class _Place:
    """One fetch at the lanes. `most` is its own bound."""

    wake: Callable[[], None]
    most: int
    left_bytes: int
    running: int = 0
    waiting: bool = False

    def seat(self) -> Seat:
        return Seat(self.left_bytes, self.running, self.waiting)


class Lanes:
    """Ranges that run at a time on this node, shared by its fetches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[int, _Place] = {}
        self._next = 0
        self._width = Width()
        self._bytes = 0
        self._since_ms = clock.now_ms()
        self._slack = True

    @property
    def width(self) -> int:
        """How many run at a time, as of now."""
        return self._width.lanes

    def join(self, wake: Callable[[], None], most: int, left_bytes: int) -> int:
        """A fetch begins; `wake` is called from any thread when it may get a lane that it was refused."""
        with self._lock:
            self._next += 1
            self._places[self._next] = _Place(wake, most, left_bytes)
            return self._next

    def leave(self, place: int) -> None:
        """It is at its end, with all of its lanes."""
        with self._lock:
            del self._places[place]
            woken = self._waiting()
        _wake(woken)

    def take(self, place: int, left_bytes: int, *, beyond: bool = False) -> bool:
        """A lane, if it is this fetch's turn; `beyond` all turns and bounds in place of a late one."""
        with self._lock:
            me = self._places[place]
            me.left_bytes = left_bytes
            others = [other.seat() for other in self._places.values() if other is not me]
            turn = me.running < me.most and fetch_plan.may_take(me.seat(), others, self._width.lanes)
            if turn or beyond:
                me.running += 1
                return True
            waited, me.waiting = me.waiting, me.running < me.most
            # Whoever was refused before has woken them then: they would wake each other without end.
            woken = [] if waited else [place for place in self._waiting() if place is not me]
        _wake(woken)
        return False

    def release(self, place: int) -> None:
        """A lane is free."""
        with self._lock:
            if place in self._places:
                self._places[place].running -= 1
            woken = self._waiting()
        _wake(woken)

    def settle(self, place: int, left_bytes: int, *, waiting: bool) -> None:
        """This fetch has taken what it can: does it wait for more?"""
        with self._lock:
            me = self._places[place]
            stopped, me.waiting, me.left_bytes = me.waiting and not waiting, waiting, left_bytes
            if not any(other.waiting for other in self._places.values()):
                running = sum(other.running for other in self._places.values())
                self._slack = self._slack or running < self._width.lanes
            woken = self._waiting() if stopped else []
        _wake(woken)

    def arrived(self, count: int) -> None:
        """So many bytes came."""
        with self._lock:
            self._bytes += count
            now_ms = clock.now_ms()
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

    def _waiting(self) -> list[_Place]:
        """Whom a lane may serve; of those that have none, maybe many, only the one that lacks least."""
        waiting = [place for place in self._places.values() if place.waiting]
        first = min((place for place in waiting if not place.running), key=_lacks, default=None)
        return [place for place in waiting if place.running or place is first]


def _lacks(place: _Place) -> int:
    return place.left_bytes


def _wake(places: list[_Place]) -> None:
    for place in places:
        place.wake()
