"""What is a file worth on a disk? The seconds of cold starts that keeping it spares, per byte. Pure.

`worth` is GreedyDual-Size-Frequency (Cherkasova 1998) with the cost of fetching again in place of a
constant: F * refetch_seconds / size. F ages with the uses of all models, so a disk that nobody uses
forgets nothing, and it is kept for models that are gone: one that comes back is no stranger. The
inflation term L of the original is left out: with it, cold seconds were 0.83 of LRU's at 5 % of all
bytes and 0.81 at 20 %, without it 0.80 and 0.73 (10 seeds of tests/bench/traces.py).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

#: A use counts half after so many uses per model that is remembered.
HALF_LIFE_PER_MODEL: Final = 1.25
MIN_HALF_LIFE_USES: Final = 64.0
#: So many models are remembered, gone or here; the one not used for the longest is forgotten.
MAX_MODELS: Final = 4_096
#: What was published a moment ago has no past: it stays while anything else can go.
SPARED_MS: Final = 3_600_000.0


class Worth(NamedTuple):
    """`per_byte` orders, the rest explains. What is `spared` goes when nothing else is left."""

    per_byte: float = 0.0
    frequency: float = 0.0
    refetch_s: float = 0.0
    spared: bool = False


NOTHING: Final = Worth()


def worth(size_bytes: int, frequency: float, refetch_s: float, *, spared: bool = False) -> Worth:
    """Seconds that keeping it spares, per byte."""
    return Worth(frequency * refetch_s / max(1, size_bytes), frequency, refetch_s, spared)


def refetch_s(size_bytes: int, bytes_per_ms: float, wait_ms: float) -> float:
    """How long it takes to have it again: a wait, then bytes at a rate."""
    return (wait_ms + size_bytes / bytes_per_ms) / 1000.0


class _Use(NamedTuple):
    times: float
    at: float


class Uses:
    """How often each model was used, aged; of models that are gone too, up to a bound."""

    def __init__(self, max_models: int = MAX_MODELS) -> None:
        self._max_models = max_models
        self._now = 0.0
        #: Least recently used first.
        self._uses: dict[str, _Use] = {}

    def used(self, model: str) -> None:
        """One use more."""
        self._now += 1.0
        count = self.frequency(model) + 1.0
        self._uses.pop(model, None)
        self._uses[model] = _Use(count, self._now)
        if len(self._uses) > self._max_models:
            del self._uses[next(iter(self._uses))]

    def frequency(self, model: str) -> float:
        """Its uses up to now, each worth less the longer it is ago; 0 for a stranger."""
        if (use := self._uses.get(model)) is None:
            return 0.0
        half_life = max(MIN_HALF_LIFE_USES, HALF_LIFE_PER_MODEL * len(self._uses))
        return float(use.times * 0.5 ** ((self._now - use.at) / half_life))

    def dump(self) -> list[tuple[str, float]]:
        """What a later life needs to go on, least recently used first."""
        return [(model, self.frequency(model)) for model in self._uses]

    def load(self, dumped: Iterable[tuple[str, float]]) -> None:
        """Go on from there."""
        for model, count in dumped:
            self._uses.pop(model, None)
            self._uses[model] = _Use(count, self._now)
        while len(self._uses) > self._max_models:
            del self._uses[next(iter(self._uses))]


class Fresh:
    """Which models were published less than SPARED_MS ago, as far as this process saw it."""

    def __init__(self) -> None:
        self._known: frozenset[str] | None = None
        self._since_ms: dict[str, float] = {}

    def published(self, models: Iterable[str], now_ms: float) -> None:
        """All models that are published now. What the first call names may be old, and counts as old."""
        now = frozenset(models)
        if self._known is not None:
            self._since_ms |= dict.fromkeys(now - self._known, now_ms)
        self._since_ms = {model: at_ms for model, at_ms in self._since_ms.items() if model in now}
        self._known = now

    def __call__(self, now_ms: float) -> frozenset[str]:
        """Those that are spared at this time."""
        return frozenset(model for model, at_ms in self._since_ms.items() if now_ms - at_ms < SPARED_MS)
