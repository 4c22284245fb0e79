"""What this node has learned of each model from its own requests: times, sizes, demand.

Everything is an average that forgets, kept by manifest digest and bounded in number. No I/O.
"""

from typing import Final

from edge.fleet.own import EWMA, Rate
from edge.policy.facts import SERVICE_MS

#: Demand of a model at this front door is forgotten by half in a minute.
DEMAND_TAU_MS: Final = 60_000.0 / 0.693
#: Requests per second below which a model is not in demand any more, and not told.
DEMAND_LEAST_PER_S: Final = 0.001
MAX_MODELS: Final = 1_024


class Learned:
    """Averages per model; the newest MAX_MODELS count."""

    def __init__(self) -> None:
        self._demand: dict[str, Rate] = {}
        self._service_ms: dict[str, float] = {}
        self._reply_bytes: dict[str, float] = {}
        self._factors: dict[tuple[str, int], float] = {}
        self._away: set[str] = set()

    def answered(self, digest: str, body_bytes: int, reply_bytes: int, infer_ms: float) -> None:
        """One answer: how long a device took, for a body of this size."""
        mean_ms = self._service_ms.get(digest)
        if mean_ms is None:
            if len(self._service_ms) >= MAX_MODELS:
                self._service_ms.clear()
                self._reply_bytes.clear()
                self._factors.clear()
            self._service_ms[digest] = max(infer_ms, 0.01)
            self._reply_bytes[digest] = float(reply_bytes)
            return
        mean_ms = max(mean_ms + (infer_ms - mean_ms) * EWMA, 0.01)
        self._service_ms[digest] = mean_ms
        self._reply_bytes[digest] += (reply_bytes - self._reply_bytes[digest]) * EWMA
        key = (digest, size_class(body_bytes))
        ratio = infer_ms / mean_ms
        known = self._factors.get(key, 1.0)
        self._factors[key] = known + (ratio - known) * EWMA

    def service_ms(self, digest: str) -> float:
        """One request's time on a device, guessed if unknown."""
        return self._service_ms.get(digest, SERVICE_MS)

    def factor(self, digest: str, body_bytes: int) -> float:
        """What a body of this size takes, as a ratio to the model's mean."""
        return self._factors.get((digest, size_class(body_bytes)), 1.0)

    def reply_bytes(self, digest: str) -> int:
        """Bytes of an answer, 0 if unknown."""
        return int(self._reply_bytes.get(digest, 0.0))

    def demanded(self, digest: str, now_ms: float) -> None:
        """A request for this model came to this node's own front door."""
        rate = self._demand.get(digest)
        if rate is None:
            if len(self._demand) >= MAX_MODELS:
                return
            rate = self._demand[digest] = Rate(DEMAND_TAU_MS)
        rate.add(now_ms)

    def demand(self, now_ms: float) -> dict[str, float]:
        """Requests per second by model digest; those that nobody asks for any more are dropped."""
        told = {digest: rate.per_s(now_ms) for digest, rate in self._demand.items()}
        for digest, per_s in told.items():
            if per_s < DEMAND_LEAST_PER_S:
                del self._demand[digest]
        return {digest: per_s for digest, per_s in told.items() if per_s >= DEMAND_LEAST_PER_S}

    def is_away(self, digest: str) -> bool:
        """Did the last decision of this model leave the POP?"""
        return digest in self._away

    def went(self, digest: str, *, away: bool) -> None:
        """Where the last decision of this model sent it."""
        if not away:
            self._away.discard(digest)
        elif len(self._away) < MAX_MODELS:
            self._away.add(digest)


def size_class(body_bytes: int) -> int:
    """Bodies of one class are within a factor of four: 0 up to 1 KiB, 1 up to 4 KiB, and so on."""
    return max(0, (max(body_bytes, 1) - 1).bit_length() - 9) // 2
