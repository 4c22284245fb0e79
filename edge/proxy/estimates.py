"""What this node expects of transfers, and how right it was: the memory of `edge.policy.estimate`.

Learns from each hydration that moved bytes, by the source that they came from. Others that are under
way share the path, so they are counted in both when it expects and when it learns.
"""

from collections.abc import Callable, Mapping
from typing import Final

from edge.errors import EdgeError
from edge.policy.estimate import (
    LEAST_BYTES,
    NETWORK,
    Seen,
    after,
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


class Estimates:
    """One per node. `rates` are the weight store's, `fetching` what it has under way, by digest."""

    def __init__(
        self,
        rates: Callable[[], Rates],
        fetching: Callable[[], Mapping[str, calls.Fetching]],
        *,
        on_scored: Callable[[str, float], None] = lambda source, ratio: None,
        on_failed: Callable[[EdgeError], None] = lambda error: None,
    ) -> None:
        """`on_scored` hears (source, error as a ratio) of each hydration, `on_failed` why one failed."""
        self.failed = on_failed
        self._rates = rates
        self._fetching = fetching
        self._on_scored = on_scored
        self._seen: dict[Tier, Seen] = {}

    def fetch_ms(self, digest: str, source: Tier, missing_bytes: int) -> float:
        """How long until so many bytes are here, from this source or from where they come already."""
        if source not in NETWORK:
            return 0.0
        under_way = self._fetching().get(digest)
        if under_way is not None and under_way.done_bytes >= TELLING_BYTES and under_way.bytes_per_s > 0.0:
            left = under_way.total_bytes - under_way.done_bytes
            return left / under_way.bytes_per_s * 1000.0
        if under_way is not None:
            missing_bytes = under_way.total_bytes - under_way.done_bytes
        seen = self._seen.get(source, Seen())
        return expect_ms(seen, self.shared_bytes(digest, missing_bytes), guess_of(source, self._rates()))

    def shared_bytes(self, digest: str, own_bytes: int) -> int:
        """What the path has to move until these bytes are here, with what else is under way now."""
        others = (
            one.total_bytes - one.done_bytes for one in self._fetching().values() if one.digest != digest
        )
        return shared_bytes(own_bytes, others)

    def fetched(self, digest: str, ensured: calls.Ensured) -> None:
        """One fetch came to its end; what waited for another's, or came from several places, says little."""
        try:
            source = Tier(ensured.residency)
        except ValueError:
            return
        if source in NETWORK and ensured.moved_bytes >= LEAST_BYTES:
            work_bytes = self.shared_bytes(digest, ensured.moved_bytes)
            self._seen[source] = after(self._seen.get(source, Seen()), work_bytes, ensured.hydrate_ms)

    def per_source(self, size_bytes: int, *, wait_ms: float, load_ms: float) -> dict[str, float]:
        """Seconds to a device, by source."""
        found = estimate(size_bytes, self._seen, self._rates(), wait_ms=wait_ms, load_ms=load_ms)
        return {str(source): round(seconds, 3) for source, seconds in found.items()}

    def scored(self, source: str, expected_ms: float, took_ms: float) -> None:
        """A hydration took so long, and this was expected when it began."""
        if expected_ms > 0.0:
            self._on_scored(source, error_ratio(expected_ms, took_ms))
