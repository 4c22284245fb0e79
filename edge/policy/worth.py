"""What is a file worth on a disk? The seconds of cold starts that keeping it spares, per byte. Pure.

`worth` is GreedyDual-Size-Frequency (Cherkasova 1998) with the cost of fetching again in place of a
constant: F * refetch_seconds / size. F ages with the uses of all models, so a disk that nobody uses
forgets nothing, and it is kept for models that are gone: one that comes back is no stranger. It ages
more slowly where more models find room: who is next to go there was last used longer ago. Cold
seconds on seeds 100-119 of tests/bench/traces.py, of LRU's at 5 / 20 / 50 % of all bytes:

    0.816 0.751 0.716   as it is
    0.820 0.752 0.708   idle bytes count whole
    0.821 0.755 0.756   ... and memory as long on every disk, 1.25 uses per model remembered
    0.791 0.674 0.588   as it is, and F the true popularity, which nobody knows

Tried, and no better at 5 % or worse at 20 and 50: the original's inflation term, a second and faster
F, less for those used only once, a size to the power of 0.9, the cheapest set of victims instead of
the worst one by one.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

#: A use counts half after so many uses, and so many more per model that finds room.
HALF_LIFE_USES: Final = 200.0
HALF_LIFE_PER_MODEL: Final = 3.0
#: Bytes of a victim beyond those needed lie idle for a while: they are half a gain. (At 5 % of all bytes
#: 11 % of the disk was empty without this, 10 % with it.)
IDLE_GAIN: Final = 0.5
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


def loss_per_byte_gained(per_byte: float, size_bytes: int, lacking_bytes: float) -> float:
    """What letting it go costs, when so many bytes are lacking. Lower goes first."""
    idle_bytes = max(0.0, size_bytes - lacking_bytes)
    gained_bytes = size_bytes - (1.0 - IDLE_GAIN) * idle_bytes
    return per_byte * size_bytes / max(1.0, gained_bytes)


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
        self._here: int | None = None
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

    def find_room(self, models: int) -> None:
        """So many models are on the disk. Before anything had to go, all that are remembered are."""
        self._here = models

    def frequency(self, model: str) -> float:
        """Its uses up to now, each worth less the longer it is ago; 0 for a stranger."""
        if (use := self._uses.get(model)) is None:
            return 0.0
        here = len(self._uses) if self._here is None else self._here
        half_life = HALF_LIFE_USES + HALF_LIFE_PER_MODEL * here
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
