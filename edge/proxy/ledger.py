"""What was asked of each model at this ingress: the counts behind `/v2/models/{m}/stats`."""

from edge.oip.metadata import ModelTallies
from edge.oip.metadata import Tally as Count
from edge.wire.calls import Inferred


class Tally:
    """Counts and summed milliseconds of one model version."""

    __slots__ = (
        "executions",
        "failed",
        "failed_ms",
        "infer_ms",
        "items",
        "last_wall_ms",
        "queue_ms",
        "succeeded",
        "succeeded_ms",
    )

    def __init__(self) -> None:
        self.succeeded = 0
        self.succeeded_ms = 0.0
        self.failed = 0
        self.failed_ms = 0.0
        self.queue_ms = 0.0
        self.infer_ms = 0.0
        self.executions = 0
        self.items = 0
        self.last_wall_ms = 0

    def add(self, took_ms: float, wall_ms: int, inferred: Inferred | None) -> None:
        """One request that took `took_ms` and ended now; None says that it failed."""
        self.last_wall_ms = wall_ms
        if inferred is None:
            self.failed += 1
            self.failed_ms += took_ms
            return
        self.succeeded += 1
        self.succeeded_ms += took_ms
        self.queue_ms += inferred.queue_ms
        self.infer_ms += inferred.infer_ms
        self.items += inferred.items
        self.executions += inferred.lead


class Ledger:
    """Tallies by (model, version); their number is bounded by the catalogue's."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], Tally] = {}

    def of(self, model: str, version: str) -> Tally:
        """The tally of a model that the catalogue knows."""
        found = self._tallies.get((model, version))
        if found is None:
            found = self._tallies[model, version] = Tally()
        return found

    def report(self, model: str, version: str) -> ModelTallies:
        """The tally as the protocol tells it."""
        tally = self.of(model, version)
        return ModelTallies(
            name=model,
            version=version,
            last_ms=tally.last_wall_ms,
            inferences=tally.items,
            executions=tally.executions,
            success=_count(tally.succeeded, tally.succeeded_ms),
            fail=_count(tally.failed, tally.failed_ms),
            queue=_count(tally.succeeded, tally.queue_ms),
            infer=_count(tally.succeeded, tally.infer_ms),
        )


def _count(count: int, total_ms: float) -> Count:
    return Count(count, int(total_ms * 1e6))
