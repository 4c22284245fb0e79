"""From whom should the next bytes come? Pure: no I/O, no clock, no threads.

A `Site` is somewhere that has a blob: another node of the region, a node of another region, the
origin. Whoever fetches tells what it got (`delivered`, `failed`) and asks for an order (`ranked`).
Bytes from outside the region cost money, so a holder of the region that delivers is always asked
first; among equals the one that is expected to be done soonest, by what was measured of it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from edge.errors import EdgeError, Reason, Source


class Kind(StrEnum):
    """Classes of sources, nearest first."""

    REGION = "region"
    FAR = "far"
    ORIGIN = "origin"


#: What is believed of a site that nobody measured, in bytes per ms: more than it will turn out to
#: do, so that each is tried once before a slower one that is known.
PRIOR: Final[Mapping[Kind, float]] = {Kind.REGION: 1_000_000.0, Kind.FAR: 200_000.0, Kind.ORIGIN: 100_000.0}
EWMA: Final = 0.3
#: A shorter piece tells of the round trip, not of the rate.
MEASURED_BYTES: Final = 64 * 1024
PENALTY_MS: Final = 1_000.0
MAX_PENALTY_MS: Final = 60_000.0
#: Wrong bytes weigh as much as so many failures to deliver.
WRONG_BYTES: Final = 4
#: Names come from other nodes: so many are remembered, the oldest is forgotten.
MAX_SITES: Final = 1_024
#: A whole fetch of less is mostly round trips and waiting for its turn.
TELLING_BYTES: Final = 4 * 1024 * 1024
#: For how long the last rate of a class is believed as it was measured.
BELIEVED_MS: Final = 10_000.0
#: The best of so many fetches is all that is hoped for; of fewer, what is believed of the unmeasured.
ESTABLISHED: Final = 3
#: After so long without a fetch nothing is known of a class.
FORGOTTEN_MS: Final = 600_000.0


class Site(NamedTuple):
    """Somewhere that has a blob. `rtt_ms` is used until the site has been measured."""

    kind: Kind
    name: str
    rtt_ms: float = 0.0


#: Nobody knows where it is: as far away as anything, until measured.
ORIGIN: Final = Site(Kind.ORIGIN, "origin", 300.0)


class NotYetError(EdgeError):
    """LINK_LOST: a source that still downloads has not come to this chunk. It has not failed.

    `here_bytes`, if it tells, is what it has of the blob by now: while that grows it is worth waiting for.
    """

    not_yet = True

    def __init__(self, message: str, *, here_bytes: int = 0) -> None:
        super().__init__(Reason.LINK_LOST, message, source=Source.UPSTREAM, retryable=True, retry_after_s=1)
        self.here_bytes = here_bytes


class Speed(NamedTuple):
    """What is known of one site. `failures` in a row; it is asked last until `shunned_until_ms`."""

    bytes_per_ms: float = 0.0
    failures: int = 0
    shunned_until_ms: float = 0.0


class Rate(NamedTuple):
    """What is known of whole fetches from one class: as last measured `at_ms`, and the best of `fetches`."""

    bytes_per_ms: float = 0.0
    best_bytes_per_ms: float = 0.0
    at_ms: float = 0.0
    fetches: int = 0

    def after(self, measured: Speed, now_ms: float) -> "Rate":
        """With one more measurement in it."""
        best = max(self.best_bytes_per_ms, measured.bytes_per_ms)
        return Rate(measured.bytes_per_ms, best, now_ms, self.fetches + 1)

    def believed(self, now_ms: float, prior: float) -> float:
        """Bytes per ms to reckon with; 0 for unknown.

        Whoever is expected to be slow is not asked, and would be slow for ever: so a rate below the best
        of its class, or below `prior` before it is ESTABLISHED, doubles with each BELIEVED_MS that
        nobody tried it.
        """
        age_ms = now_ms - self.at_ms
        if age_ms >= FORGOTTEN_MS:
            return 0.0
        doubled = math.ldexp(self.bytes_per_ms, int(max(0.0, age_ms) // BELIEVED_MS))
        best = self.best_bytes_per_ms
        return min(doubled, best if self.fetches >= ESTABLISHED else max(best, prior))


@dataclass
class Moved:
    """Bytes that came over the network by class, good or bad."""

    by: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))

    def plus(self, other: "Moved") -> "Moved":
        """The sum, as a new one."""
        return Moved({kind: self.by[kind] + other.by[kind] for kind in Kind})

    def since(self, before: "Moved") -> "Moved":
        """What came after `before`, as a new one."""
        return Moved({kind: self.by[kind] - before.by[kind] for kind in Kind})

    @property
    def total_bytes(self) -> int:
        """All of them."""
        return sum(self.by.values())

    @property
    def outside_bytes(self) -> int:
        """Those that came into the region."""
        return self.by[Kind.FAR] + self.by[Kind.ORIGIN]

    @property
    def farthest(self) -> Kind | None:
        """The farthest class that anything came from; None if nothing moved."""
        used = [kind for kind in Kind if self.by[kind]]
        return used[-1] if used else None


def after_delivery(speed: Speed, moved_bytes: int, took_ms: float) -> Speed:
    """What is known of a site after it delivered so much in so long: all is forgiven."""
    rate = speed.bytes_per_ms
    if moved_bytes >= MEASURED_BYTES:
        measured = moved_bytes / max(took_ms, 0.001)
        rate = measured if rate == 0.0 else rate + EWMA * (measured - rate)
    return Speed(rate)


def after_failure(speed: Speed, now_ms: float, *, weight: int = 1) -> Speed:
    """What is known of a site after it failed: it is asked last for a time that doubles."""
    failures = min(speed.failures + weight, 64)
    penalty_ms = min(PENALTY_MS * 2.0 ** min(failures - 1, 16), MAX_PENALTY_MS)
    return Speed(speed.bytes_per_ms, failures, now_ms + penalty_ms)


def expected_ms(site: Site, speed: Speed, wanted_bytes: int) -> float:
    """How long so many bytes are expected to take, alone."""
    if speed.bytes_per_ms > 0.0:
        return wanted_bytes / speed.bytes_per_ms
    return site.rtt_ms + wanted_bytes / PRIOR[site.kind]


class Speeds:
    """What was measured of all sites and classes. Not thread-safe: the fetch guards it."""

    def __init__(self) -> None:
        self._sites: dict[tuple[Kind, str], Speed] = {}
        self._kinds: dict[Kind, Rate] = {}

    def of(self, site: Site) -> Speed:
        """What is known of one site."""
        return self._sites.get((site.kind, site.name), Speed())

    def rate(self, kind: Kind, now_ms: float) -> float:
        """Bytes per ms to reckon with for a whole fetch from this class; 0 for unknown."""
        return self._kinds.get(kind, Rate()).believed(now_ms, PRIOR[kind])

    def delivered(self, site: Site, moved_bytes: int, took_ms: float) -> None:
        """A site delivered this much, right, in so long."""
        self._put(site, after_delivery(self.of(site), moved_bytes, took_ms))

    def failed(self, site: Site, now_ms: float, *, wrong_bytes: bool = False) -> None:
        """A site did not deliver, or delivered wrong bytes."""
        self._put(site, after_failure(self.of(site), now_ms, weight=WRONG_BYTES if wrong_bytes else 1))

    def fetched(self, moved: Moved, took_ms: float, now_ms: float) -> None:
        """A whole fetch ended; it tells the rate of a class if nearly all came from that one."""
        for kind, count in moved.by.items():
            if count >= max(TELLING_BYTES, 0.9 * moved.total_bytes):
                known = self._kinds.get(kind, Rate())
                measured = after_delivery(Speed(known.bytes_per_ms), count, took_ms)
                if measured.bytes_per_ms > 0.0:
                    self._kinds[kind] = known.after(measured, now_ms)

    def ranked(
        self,
        sites: Iterable[Site],
        wanted_bytes: int,
        busy: Mapping[Site, Sequence[float]],
        now_ms: float,
    ) -> tuple[Site, ...]:
        """Whom to ask first. `busy` has when what is under way at each site began, so that equals share.

        Who was never measured is tried with one range before others that were; and a range that takes
        longer than was expected is believed rather than what was.
        """

        def order(site: Site) -> tuple[bool, float, bool, bool, float, str]:
            speed, began = self.of(site), busy.get(site, ())
            shunned = speed.shunned_until_ms > now_ms
            until_ms = speed.shunned_until_ms if shunned else 0.0
            on_trial = bool(began) and not speed.bytes_per_ms
            oldest_ms = now_ms - min(began, default=now_ms)
            done_ms = max(expected_ms(site, speed, wanted_bytes), oldest_ms) * (1 + len(began))
            return shunned, until_ms, site.kind is not Kind.REGION, on_trial, done_ms, site.name

        return tuple(sorted(sites, key=order))

    def lost(self, site: Site, moved_bytes: int, took_ms: float) -> None:
        """Another was faster with the same chunk. What was measured counts; nothing is forgiven."""
        known = self.of(site)
        self._put(site, known._replace(bytes_per_ms=after_delivery(known, moved_bytes, took_ms).bytes_per_ms))

    def _put(self, site: Site, speed: Speed) -> None:
        key = site.kind, site.name
        self._sites.pop(key, None)
        self._sites[key] = speed
        if len(self._sites) > MAX_SITES:
            del self._sites[next(iter(self._sites))]
