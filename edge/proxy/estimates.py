"""What this node expects of transfers, and how right it was: the memory of `edge.policy.estimate`.

Learns from each hydration that moved bytes, by the source that they came from. Others that are under
way share the path, so they are counted in both when it expects and when it learns.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from edge import clock
from edge.errors import EdgeError
from edge.policy.estimate import (
    LEAST_BYTES,
    NETWORK,
    Seen,
    after,
    doubted_ms,
    error_ratio,
    estimate,
    expect_ms,
    guess_of,
    shared_bytes,
)
from edge.policy.facts import Rates, Tier
from edge.wire import calls

#: A fetch that is so far has a rate of its own, which is better than what was learned of others.
TELLING_BYTES: Final = 1 << 20
#: Hydrations that are remembered for whoever asks.
MAX_SCORED: Final = 64


class Scored(NamedTuple):
    """One hydration: from where its weights came, what was expected when it began, and what it took."""

    model: str
    source: str
    expected_ms: float
    took_ms: float


class Estimates:
    """One per node. `rates` are the weight store's, `fetching` what it has under way, by digest."""

    def __init__(
        self,
        rates: Callable[[], Rates],
        fetching: Callable[[], Mapping[str, calls.Fetching]],
        *,
        on_scored: Callable[[str, float], None] = lambda source, ratio: None,
        on_failed: Callable[[EdgeError], None] = lambda error: None,
        now_ms: Callable[[], float] = clock.now_ms,
    ) -> None:
        """`on_scored` hears (source, error as a ratio) of each hydration, `on_failed` why one failed."""
        self.failed = on_failed
        self.recent: deque[Scored] = deque(maxlen=MAX_SCORED)
        self._rates = rates
        self._fetching = fetching
        self._on_scored = on_scored
        self._now_ms = now_ms
        self._seen: dict[Tier, Seen] = {}
        self._seen_ms: dict[Tier, float] = {}
        #: Fetches that this proxy began, which the store's last word may not know of yet: digest -> bytes.
        self._begun: dict[str, int] = {}
        #: And those that ended since that word.
        self._ended: set[str] = set()
        self._last_word: Mapping[str, calls.Fetching] = {}

    def fetch_ms(self, digest: str, source: Tier, missing_bytes: int) -> float:
        """How long until so many bytes are here, from this source or from where they come already."""
        if source not in NETWORK:
            return 0.0
        under_way = self._under_way().get(digest)
        if under_way is not None and under_way.done_bytes >= TELLING_BYTES and under_way.bytes_per_s > 0.0:
            left = under_way.total_bytes - under_way.done_bytes
            return left / under_way.bytes_per_s * 1000.0
        if under_way is not None:
            missing_bytes = under_way.total_bytes - under_way.done_bytes
        shared, guess = self.shared_bytes(digest, missing_bytes), guess_of(source, self._rates())
        expected_ms = expect_ms(self._seen.get(source, Seen()), shared, guess)
        age_ms = self._now_ms() - self._seen_ms.get(source, 0.0)
        return doubted_ms(expected_ms, expect_ms(Seen(), shared, guess), age_ms)

    def shared_bytes(self, digest: str, own_bytes: int) -> int:
        """What the path has to move until these bytes are here, with what else is under way now."""
        others = dict(self._begun)
        for one in self._under_way().values():
            others[one.digest] = one.total_bytes - one.done_bytes
        others.pop(digest, None)
        return shared_bytes(own_bytes, others.values())

    def _under_way(self) -> dict[str, calls.Fetching]:
        """What the store said last, without what ended since."""
        told = self._fetching()
        if told is not self._last_word:
            self._last_word = told
            self._ended.clear()
        return {digest: one for digest, one in told.items() if digest not in self._ended}

    def begins(self, digest: str, missing_bytes: int) -> None:
        """So many bytes set out for this node."""
        self._begun[digest] = missing_bytes
        self._ended.discard(digest)

    def ends(self, digest: str) -> None:
        """They are here, or do not come."""
        self._under_way()
        self._begun.pop(digest, None)
        self._ended.add(digest)

    def fetched(self, digest: str, ensured: calls.Ensured) -> None:
        """One fetch came to its end; what waited for another's, or came from several places, says little."""
        try:
            source = Tier(ensured.residency)
        except ValueError:
            return
        if source in NETWORK and ensured.moved_bytes >= LEAST_BYTES:
            work_bytes = self.shared_bytes(digest, ensured.moved_bytes)
            self._seen[source] = after(self._seen.get(source, Seen()), work_bytes, ensured.hydrate_ms)
            self._seen_ms[source] = self._now_ms()

    def per_source(self, digest: str, size_bytes: int, *, wait_ms: float, load_ms: float) -> dict[str, float]:
        """Seconds to a device, by source: of the very transfers that `fetch_ms` expects."""
        fetches_ms = {source: self.fetch_ms(digest, source, size_bytes) for source in (Tier.DISK, *NETWORK)}
        found = estimate(fetches_ms, wait_ms=wait_ms, load_ms=load_ms)
        return {str(source): round(seconds, 3) for source, seconds in found.items()}

    def scored(self, model: str, source: str, expected_ms: float, took_ms: float) -> None:
        """A hydration took so long, and this was expected when it began."""
        if expected_ms > 0.0:
            self.recent.append(Scored(model, source, round(expected_ms, 3), round(took_ms, 3)))
            self._on_scored(source, error_ratio(expected_ms, took_ms))
