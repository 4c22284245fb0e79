"""How many ranges run at a time, which fetch gets the next, and which chunk is asked for twice?

Pure: no I/O, no clock, no threads. tests/spec/test_fetch_plan.py is the whole specification. The node has
so many *lanes*, ranges that run at a time; all fetches of the node share them. Rates are bytes per ms.
Knows neither names of sources nor what a chunk is made of.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, NamedTuple

START: Final = 4
MOST: Final = 16
#: While lanes are scarce so many fetches have some at a time, the smallest; a smaller one than all of them
#: besides; and so many more by age.
SEATS: Final = 4
#: Who waited so long without a lane has aged, and keeps its turn for as long.
AGED_MS: Final = 1_000.0
#: Goodput is measured over so long; the window after a change is not believed.
WINDOW_MS: Final = 500.0
#: More lanes must bring at least this share of what they would bring if each were as good as the old ones.
GAIN: Final = 0.5
#: So many windows pass after lanes that gained nothing were given back.
REST: Final = 8
#: Goodput below this share of what it was: the lanes that were added for it are given back.
COLLAPSE: Final = 0.5

#: A source that sends nothing for so long, or less than SLOW of the median source for so long, is late ...
STALL_MS: Final = 2_000.0
DRIP_MS: Final = 3_000.0
SLOW: Final = 0.25
#: ... or after so many times what a chunk takes, if another of its class or nearer can be asked instead.
PATIENCE: Final = 4.0
LEAST_PATIENCE_MS: Final = 300.0
#: Later than expected by this factor, and by more than a hiccup of the machine: now what was seen counts.
ON_TIME: Final = 1.5
HICCUP_MS: Final = 50.0
#: Second copies that run at a time in one fetch; each is held in memory until it is whole.
HEDGES: Final = 4

#: A source that had not come to a chunk is asked again for it after so long; for any after MISSES in a row.
AGAIN_MS: Final = 30.0
MISSES: Final = 4
#: A source of the region that downloads keeps others from going outside while it came this far in this time.
PROGRESS_MS: Final = 2_000.0
#: ... and no longer than this without a right chunk of it, whatever it tells.
TALK_MS: Final = 60_000.0


# --- how many lanes


class Width(NamedTuple):
    """`lanes` run at a time; `base` of them brought `base_rate`. `steep` until more gained nothing once."""

    lanes: int = START
    base: int = START
    base_rate: float = 0.0
    steep: bool = True
    settling: bool = False
    rest: int = 0


def after_window(width: Width, rate: float, *, full: bool, most: int = MOST) -> Width:
    """The width after a window in which bytes came at `rate`; `full`: no lane was free in it.

    More by half while that gains, later by one; what gained nothing is given back.
    """
    if not full:
        return width._replace(settling=True)
    if width.settling:
        return width._replace(settling=False)
    if width.rest:
        if rate < COLLAPSE * width.base_rate and width.lanes > START:
            return Width(max(START, width.lanes // 2), steep=False, settling=True, rest=REST)
        return width._replace(rest=width.rest - 1)
    if width.lanes > width.base:
        needed = width.base_rate * (1.0 + GAIN * (width.lanes / width.base - 1.0))
        if rate < needed:
            return Width(width.base, width.base, width.base_rate, steep=False, settling=True, rest=REST)
    more = max(1, width.lanes // 2) if width.steep else 1
    lanes = min(width.lanes + more, most)
    if lanes <= width.lanes:
        return Width(width.lanes, width.lanes, rate, steep=False, rest=REST)
    return Width(lanes, width.lanes, rate, steep=width.steep, settling=True)


# --- which fetch


class Seat(NamedTuple):
    """All fetches that one caller waits for: bytes they still lack, lanes they hold, and whether they would
    take one more now.

    `waited_ms` is for how long they had none, and stays while they have the turn that it brought them.
    """

    left_bytes: int
    running: int
    waiting: bool = False
    waited_ms: float = 0.0

    @property
    def aged(self) -> bool:
        """Has it waited too long, or its turn for that?"""
        return self.waited_ms >= AGED_MS


def may_take(me: Seat, others: Iterable[Seat], width: int) -> bool:
    """Does the next lane go to `me`? A lane that is free and that nobody smaller wants is anybody's; what
    is scarce goes to whoever lacks least, but for a first lane to each of SEATS and to who has aged.

    Lanes that a larger one holds can't be taken back in mid-chunk: until they end, a smaller one may hold
    a whole width beside them. (With START instead, 50 MB behind 800 MB took 2.02 times of alone, not 1.42.)
    """
    others = list(others)
    lanes = me.running + sum(other.running for other in others)
    before = sum(1 for other in others if _is_before(other, me))
    smaller_waits = any(other.waiting and other.left_bytes < me.left_bytes for other in others)
    if lanes + before < width and not smaller_waits:
        return True
    if not me.running:
        return _may_begin(me, others, before)
    held = sum(max(0, other.running - 1) for other in others if other.left_bytes > me.left_bytes)
    return held > 0 and me.running < width and not smaller_waits


def _is_before(other: Seat, me: Seat) -> bool:
    """Has it aged without a lane, and longer than `me` if that has none either?"""
    waits = other.waiting and not other.running and other.aged
    return waits and (me.running > 0 or other.waited_ms > me.waited_ms)


def _may_begin(me: Seat, others: Sequence[Seat], before: int) -> bool:
    """Without a lane, while lanes are scarce: beyond the width, at most 2 * SEATS + 1 have one."""
    in_turn = sum(1 for other in others if other.running and other.aged)
    seated = sum(1 for other in others if other.running and not other.aged)
    if all(me.left_bytes < other.left_bytes for other in others if other.running or other.waiting):
        return seated <= SEATS and seated + in_turn <= 2 * SEATS
    if me.aged:
        return in_turn + before < SEATS
    smaller = sum(
        1 for other in others if other.waiting and not other.running and other.left_bytes < me.left_bytes
    )
    return seated + smaller < SEATS


@dataclass
class Wait:
    """For how long a fetch has had no lane while it wanted one, over the turn that this brings it."""

    _since_ms: float | None = None
    _until_ms: float = 0.0

    def ms(self, now_ms: float) -> float:
        """As `Seat.waited_ms`."""
        return 0.0 if self._since_ms is None else now_ms - self._since_ms

    def refused(self, now_ms: float) -> None:
        """It has no lane, and got none."""
        if self._since_ms is None:
            self._since_ms = now_ms

    def began(self, now_ms: float) -> None:
        """It got its first lane."""
        if self.ms(now_ms) < AGED_MS:
            self._since_ms = None
        elif now_ms >= self._until_ms:
            self._until_ms = now_ms + AGED_MS

    def ended(self, now_ms: float, *, waiting: bool) -> None:
        """It has no lane any more, or no more use for one."""
        if now_ms >= self._until_ms or not waiting:
            self._since_ms = now_ms if waiting else None


# --- which chunk twice


class Copy(NamedTuple):
    """A chunk under way from one source.

    `window_bytes` came in the last `window_ms` (at most DRIP_MS); `expected_ms` is what its source was
    believed to need for all of it.
    """

    wanted_bytes: int
    got_bytes: int
    age_ms: float
    silent_ms: float
    window_bytes: int
    window_ms: float
    expected_ms: float


def is_late(copy: Copy, rates: Sequence[float], least: float, *, nearer: bool) -> bool:
    """Has this source stalled or does it drip, by the median of the measured `rates`, or below `least`?

    `nearer`: another source of its class, or of a nearer one, can be asked instead, which costs little; then
    patience is a matter of what chunks take here, and never longer than STALL_MS and DRIP_MS.
    """
    typical = median(rates) if rates else 0.0
    quick_ms = max(LEAST_PATIENCE_MS, PATIENCE * copy.wanted_bytes / typical) if typical else DRIP_MS
    stall_ms, drip_ms = STALL_MS, DRIP_MS
    if nearer:
        stall_ms, drip_ms = min(stall_ms, quick_ms), min(drip_ms, quick_ms)
    if copy.silent_ms >= stall_ms:
        return True
    return copy.window_ms >= drip_ms and copy.window_bytes < max(SLOW * typical, least) * copy.window_ms


def left_ms(copy: Copy) -> float:
    """How long the rest will take: as believed while on time, then as seen; infinite if nothing came."""
    if copy.age_ms <= ON_TIME * copy.expected_ms + HICCUP_MS:
        return max(0.0, copy.expected_ms - copy.age_ms)
    if not copy.got_bytes:
        return float("inf")
    return (copy.wanted_bytes - copy.got_bytes) * copy.age_ms / copy.got_bytes


def worth_twice(copy: Copy, elsewhere_ms: float) -> bool:
    """At the end, with lanes to spare: would another source bring the whole before this one the rest?"""
    return elsewhere_ms < left_ms(copy)


# --- whom to wait for


@dataclass
class Growing:
    """A source that still downloads what is asked of it, since its first refusal."""

    progress_ms: float
    proved_ms: float = field(init=False)
    paused_until_ms: float = 0.0
    misses: int = 0
    refused_ms: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.proved_ms = self.progress_ms

    def ask_at_ms(self, index: int) -> float:
        """From when on it may be asked for this chunk."""
        again_ms = self.refused_ms[index] + AGAIN_MS if index in self.refused_ms else 0.0
        return max(self.paused_until_ms, again_ms)

    def refused(self, index: int, now_ms: float) -> None:
        """It had not come to this chunk."""
        self.refused_ms[index] = now_ms
        self.misses += 1
        if self.misses >= MISSES:
            self.misses, self.paused_until_ms = 0, now_ms + AGAIN_MS

    def gave(self, index: int, now_ms: float) -> None:
        """It sent this chunk, and right."""
        self.refused_ms.pop(index, None)
        self.misses, self.progress_ms, self.proved_ms = 0, now_ms, now_ms

    def grew(self, now_ms: float) -> None:
        """It told of bytes that it did not have before."""
        self.progress_ms = now_ms

    def reserves(self, now_ms: float) -> bool:
        """Is it right to wait for it, rather than to fetch from outside what it fetches too?"""
        return now_ms - self.progress_ms < PROGRESS_MS and now_ms - self.proved_ms < TALK_MS
