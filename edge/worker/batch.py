"""Which requests run together? The grouping rule and what it learns. Pure.

Requests of one group (a model and everything of their shape but the batch axis) may share
one execution. `Waiting.take` is the whole rule: the group whose first request is
oldest comes next, so no model starves; of that group as many as `Cost.cap` allows and no
deadline forbids; nobody is ever waited for. Knows no threads, no arrays and no clock: time
is an argument, and tests/spec/test_batch.py is its whole specification.
"""

import math
from collections import deque
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

#: Runs of a bucket that are remembered; their median is what the bucket costs.
SAMPLES: Final = 9
#: A bucket is judged only after this many runs.
ENOUGH: Final = 3
#: A larger bucket must raise items/s by this factor to be worth it.
GAIN: Final = 1.03
#: A bucket not run for this many executions is forgotten, so that it is tried again.
FORGET_AFTER: Final = 256
#: Buckets are powers of two up to the largest `max_batch` a manifest may name (4096).
BUCKETS: Final = 13


class Request(Protocol):
    """What the rule needs to know of a request."""

    @property
    def items(self) -> int:
        """Its share of the batch axis, at least 1."""

    @property
    def arrived_ms(self) -> float:
        """When it came, on the caller's monotonic clock."""

    @property
    def due_ms(self) -> float:
        """From then on nobody wants the answer."""

    @property
    def abandoned(self) -> bool:
        """True once the caller has left."""


R = TypeVar("R", bound=Request)


class Cost:
    """What one execution of B items costs, learned while serving: `a + b * B` milliseconds.

    Durations are kept per bucket (B = 1, 2-3, 4-7, ...). The line through the buckets'
    medians predicts; the buckets themselves decide the cap, since for some models items/s
    falls again long before a line could show it. One thread may ask while another observes:
    buckets are copied before they are read.
    """

    __slots__ = ("_buckets", "_caps", "_line", "_runs", "_seen_at")

    def __init__(self) -> None:
        self._buckets: list[deque[tuple[int, float]]] = [deque(maxlen=SAMPLES) for _ in range(BUCKETS)]
        self._seen_at = [0] * BUCKETS
        self._runs = 0
        self._line: tuple[float, float] | None = None
        self._caps: dict[int, int] = {}

    @property
    def runs(self) -> int:
        """Executions observed."""
        return self._runs

    def observe(self, items: int, duration_ms: float) -> None:
        """One execution of `items` took `duration_ms`."""
        self._runs += 1
        index = min(items.bit_length() - 1, BUCKETS - 1)
        self._buckets[index].append((items, duration_ms))
        self._seen_at[index] = self._runs
        for other, samples in enumerate(self._buckets):
            if samples and self._runs - self._seen_at[other] > FORGET_AFTER:
                samples.clear()
        # Past the first runs this moves slowly; doing it each time would cost more than a tiny run.
        if self._runs <= 4 * SAMPLES or self._runs % SAMPLES == 0:
            self._line = _fit([_middle(samples) for samples in map(list, self._buckets) if samples])
            self._caps = {}

    def predict_ms(self, items: int) -> float | None:
        """Milliseconds that `items` would take; None before anything was observed."""
        if self._line is None:
            return None
        a, b = self._line
        return max(0.0, a + b * items)

    def cap(self, max_batch: int) -> int:
        """The most items worth running together: items/s rises up to here, and not beyond.

        An unmeasured bucket is allowed, so a new model starts small and doubles. Two buckets
        in a row that gain nothing end the search: one alone may be noise.
        """
        caps = self._caps
        if max_batch not in caps:
            caps[max_batch] = self._search(max_batch)
        return caps[max_batch]

    def _search(self, max_batch: int) -> int:
        best_rate, best, misses = 0.0, 1, 0
        for index, samples in enumerate(map(list, self._buckets)):
            if 1 << index > max_batch:
                break
            top = min(max_batch, (2 << index) - 1)
            if len(samples) < ENOUGH:
                return top
            items, duration_ms = _middle(samples)
            rate = items / max(duration_ms, 1e-6)
            if rate > best_rate * GAIN:
                best_rate, best, misses = rate, top, 0
            else:
                misses += 1
                if misses == 2:
                    break
        return best


def _middle(samples: list[tuple[int, float]]) -> tuple[float, float]:
    """Mean items and median duration of a bucket; durations are scaled to the mean first."""
    items = sum(count for count, _ in samples) / len(samples)
    scaled = sorted(duration * items / count for count, duration in samples)
    return items, scaled[len(scaled) // 2]


def _fit(points: list[tuple[float, float]]) -> tuple[float, float]:
    """The line (a, b) nearest to the points in relative terms; with one point, a is 0."""
    if len(points) == 1:
        items, duration = points[0]
        return 0.0, duration / items
    weights = [1.0 / max(duration, 1e-6) ** 2 for _, duration in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True)) / spread
    slope = max(0.0, slope)
    return mean_y - slope * mean_x, slope


class Group:
    """Requests that may share an execution: one model and one shape but for the batch axis."""

    __slots__ = ("cost", "inline_from_run", "max_batch")

    def __init__(self, max_batch: int) -> None:
        self.cost = Cost()
        #: A run took far longer than predicted: until this many, none is trusted to be short.
        self.inline_from_run = 0
        self.max_batch = max_batch


class Taken(NamedTuple, Generic[R]):
    """What to do next: run `batch`, all of `group`, as one execution, refuse `late`, forget `gone`."""

    batch: list[R]
    late: list[R]
    gone: list[R]
    group: Group | None = None


class Waiting(Generic[R]):
    """Requests that wait for a device, by group."""

    __slots__ = ("_groups", "count")

    def __init__(self) -> None:
        self._groups: dict[Group, deque[R]] = {}
        self.count = 0

    def put(self, group: Group, request: R) -> None:
        """One more request."""
        queue = self._groups.get(group)
        if queue is None:
            queue = self._groups[group] = deque()
        queue.append(request)
        self.count += 1

    def take(self, now_ms: float) -> Taken[R]:
        """The next execution; an empty batch when nobody waits whose answer is still wanted."""
        late: list[R] = []
        gone: list[R] = []
        while self._groups:
            one = len(self._groups) == 1
            group = next(iter(self._groups)) if one else min(self._groups, key=self._seniority)
            queue = self._groups[group]
            batch = _front(group, queue, now_ms, late, gone)
            if not queue:
                del self._groups[group]
            if batch:
                self.count -= len(batch) + len(late) + len(gone)
                return Taken(batch, late, gone, group)
        self.count -= len(late) + len(gone)
        return Taken([], late, gone)

    def _seniority(self, group: Group) -> float:
        return self._groups[group][0].arrived_ms


def _front(group: Group, queue: deque[R], now_ms: float, late: list[R], gone: list[R]) -> list[R]:
    """Take from the front what one execution may hold; a request above the cap runs alone."""
    cost = group.cost
    cap = cost.cap(group.max_batch)
    alone_ms = cost.predict_ms(1) or 0.0
    batch: list[R] = []
    items, earliest_ms = 0, math.inf
    while queue:
        request = queue[0]
        if request.abandoned:
            gone.append(queue.popleft())
            continue
        due_ms = request.due_ms
        if due_ms <= now_ms:
            late.append(queue.popleft())
            continue
        grown = items + request.items
        # A deadline that even a run of its own would miss must not make everyone else run alone.
        tightest_ms = due_ms if now_ms + alone_ms < due_ms < earliest_ms else earliest_ms
        if batch and (grown > cap or now_ms + (cost.predict_ms(grown) or 0.0) > tightest_ms):
            break
        batch.append(queue.popleft())
        items, earliest_ms = grown, tightest_ms
    return batch
