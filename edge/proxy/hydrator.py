"""Bring models near in the background, where that pays: the hands of `edge.policy.hydration`.

At each look the policy is asked about every model that others serve from far and this node
could serve from near. What would leave for one is first told to the other nodes (`evicting`)
and judged again once they had time to say the same; then it is claimed as a request would
claim it, except that exactly the judged victims may leave. It has no opinion of its own.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

from edge import clock
from edge.config import Routing
from edge.errors import EdgeError
from edge.policy.facts import Beacon, State, Tier
from edge.policy.hydration import (
    INTENT_MS,
    Candidate,
    Holding,
    Leave,
    Load,
    Needs,
    Room,
    Wanted,
    Worth,
    demand_for,
    judge,
    worth_of,
)
from edge.proxy.device import LOADING, Stage
from edge.proxy.holds import FETCH_MS
from edge.proxy.worker import LocalWorker
from edge.wire import calls

log = logging.getLogger(__name__)

LOOK_S: Final = 0.25
#: After a look so many times its length passes before the next: a twentieth of a core at most.
PAUSE_RATIO: Final = 20.0
#: The models with the most to gain are judged at each look; the others have their turn when these are here.
MAX_JUDGED: Final = 16
#: A background load that failed is not tried again for so long.
AGAIN_MS: Final = 60_000.0
MAX_RECENT: Final = 64
MAX_REMEMBERED: Final = 1_024
_GIB: Final = float(1 << 30)


class World(NamedTuple):
    """What the judgement rests on: this node's beacon, the others' with when they came, the catalogue."""

    me: Beacon
    others: Mapping[str, tuple[Beacon, float]]
    needs: Mapping[str, Needs]


class Judged(NamedTuple):
    """One decision, for whoever asks why: `verdict` is "load", "intent" or why it was left."""

    at_ms: float
    digest: str
    worker: str
    verdict: str
    victims: tuple[str, ...] = ()
    per_s: float = 0.0
    gain: float = 0.0
    loss: float = 0.0


class Source(NamedTuple):
    """Where a model would come from: the tier and the nodes of other regions that have it."""

    tier: Tier
    far: tuple[calls.FarSource, ...] = ()


class _Intent(NamedTuple):
    digest: str
    victims: frozenset[str]
    since_ms: float


class Hydrator:
    """The background loads of one node; at most one per worker.

    `allowed` says whether a model may run here, `source` where it would come from, `name` what
    people call it, `fetch_ms` how long so many bytes of it take from there. `changed` runs when
    `evicting` did: the beacon should tell.
    """

    def __init__(
        self,
        config: Routing,
        workers: Mapping[str, LocalWorker],
        *,
        world: Callable[[], World],
        allowed: Callable[[str], bool],
        source: Callable[[str], Source],
        name: Callable[[str], str],
        fetch_ms: Callable[[str, Tier, int], float],
        changed: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
    ) -> None:
        self.started = 0
        self.loaded = 0
        #: How often a model came to be left alone, by why; a load that failed counts by its reason.
        self.left: Counter[str] = Counter()
        self.recent: deque[Judged] = deque(maxlen=MAX_RECENT)
        self._config = config
        self._workers = workers
        self._world = world
        self._allowed = allowed
        self._source = source
        self._name = name
        self._fetch_ms = fetch_ms
        self._changed = changed
        self._spawn = spawn
        self._weighing_s = 0.0
        self._loading: dict[str, _Intent] = {}
        self._intents: dict[str, _Intent] = {}
        self._verdicts: dict[str, str] = {}
        self._not_before_ms: dict[str, float] = {}

    @property
    def evicting(self) -> frozenset[str]:
        """Models that this node means to evict, for its beacon."""
        meant = [*self._intents.values(), *self._loading.values()]
        return frozenset().union(*[intent.victims for intent in meant])

    async def run(self) -> None:
        """Look until cancelled; returns at once where there is nothing to hydrate."""
        while self._config.hydrate and self._workers:
            await asyncio.sleep(max(LOOK_S, self._weighing_s * PAUSE_RATIO))
            now_ms = clock.now_ms()
            world = self._world()
            # Beside the loop: 53 ms with 50 nodes and 200 models.
            weighed = await asyncio.to_thread(_weigh, world, now_ms)
            self._weighing_s = (clock.now_ms() - now_ms) / 1000.0
            self._act(world, weighed, now_ms)

    def look(self, now_ms: float) -> None:
        """Judge once, and begin what is worth it."""
        world = self._world()
        self._act(world, _weigh(world, now_ms), now_ms)

    def _act(self, world: World, weighed: tuple[dict[str, Wanted], dict[str, Worth]], now_ms: float) -> None:
        before = self.evicting
        wanted, worth = weighed
        seen: set[str] = set()
        under_way = {intent.digest for intent in self._loading.values()}
        for digest in sorted(wanted.keys() - under_way, key=lambda one: -wanted[one].gain)[:MAX_JUDGED]:
            worker = self._judge_one(digest, wanted[digest], worth, world.needs[digest], now_ms)
            if worker:
                seen.add(worker)
        for name in [name for name in self._intents if name not in seen]:
            del self._intents[name]
        if self.evicting != before:
            self._changed()

    def _judge_one(
        self, digest: str, wanted: Wanted, worth: Mapping[str, Worth], needs: Needs, now_ms: float
    ) -> str:
        """Returns the worker that has an intent for it, empty for none."""
        if not self._allowed(digest):
            return self._leave(digest, "", "confined", wanted, now_ms)
        if self._not_before_ms.get(digest, 0.0) > now_ms:
            return self._leave(digest, "", "failed-before", wanted, now_ms)
        name, verdict = self._best(digest, wanted, worth, needs, now_ms)
        if isinstance(verdict, Leave):
            return self._leave(digest, name, verdict.why, wanted, now_ms)
        victims = frozenset(verdict.victims)
        intent = self._intents.get(name)
        if victims and (intent is None or intent.digest != digest or intent.victims != victims):
            if intent is not None and intent.digest != digest:
                # The other's intent stands first.
                return self._leave(digest, name, "loading", wanted, now_ms)
            self._intents[name] = _Intent(digest, victims, now_ms)
            self._note(digest, name, "intent", wanted, now_ms, verdict)
            return name
        if intent is not None and victims and now_ms - intent.since_ms < INTENT_MS:
            return name
        self._begin(digest, name, victims, now_ms)
        self._note(digest, name, "load", wanted, now_ms, verdict)
        return ""

    def _best(
        self, digest: str, wanted: Wanted, worth: Mapping[str, Worth], needs: Needs, now_ms: float
    ) -> tuple[str, Load | Leave]:
        """The worker that would lose the least; the one that has the intent stays with it."""
        source = self._source(digest)
        best: tuple[str, Load | Leave] = ("", Leave("no-worker"))
        for name, worker in self._workers.items():
            if worker.endpoint.state is not State.UP:
                continue
            candidate = self._candidate(digest, wanted, needs, worker, source)
            verdict = judge(
                candidate,
                self._room(name, worker, worth, now_ms),
                now_ms,
                horizon_s=self._config.horizon_s,
                min_resident_s=self._config.min_resident_s,
            )
            if isinstance(verdict, Load):
                intent = self._intents.get(name)
                if intent is not None and intent.digest == digest:
                    return name, verdict
                if isinstance(best[1], Leave) or verdict.loss < best[1].loss:
                    best = name, verdict
            elif isinstance(best[1], Leave):
                best = name, verdict
        return best

    def _candidate(
        self, digest: str, wanted: Wanted, needs: Needs, worker: LocalWorker, source: Source
    ) -> Candidate:
        load_ms = self._fetch_ms(digest, source.tier, needs.device_bytes)
        load_ms += worker.moves.times.expect_ms(digest, needs.device_bytes)
        price_ms = 0.0
        if source.tier in (Tier.FAR, Tier.ORIGIN):
            usd = needs.device_bytes / _GIB * self._config.usd_per_gib
            price_ms = self._config.ms_per_usd * usd
        return Candidate(digest, wanted.device_bytes, wanted, load_ms, price_ms)

    def _room(self, name: str, worker: LocalWorker, worth: Mapping[str, Worth], now_ms: float) -> Room:
        book = worker.book
        entries = book.entries()
        unknown = Worth(0.0, 0.0, 0)
        holdings: Sequence[Holding] = [
            Holding(
                entry.digest,
                entry.device_bytes,
                now_ms - entry.since_ms,
                worth.get(entry.digest, unknown),
                # What this node's own beacon does not show yet can't be judged.
                busy=entry.in_use > 0 or entry.stage is not Stage.RESIDENT or entry.digest not in worth,
                pinned=entry.digest in book.pinned,
            )
            for entry in entries
        ]
        loading = name in self._loading or any(entry.stage in LOADING for entry in entries)
        return Room(book.limit_bytes - book.other_bytes, tuple(holdings), loading)

    def _begin(self, digest: str, name: str, victims: frozenset[str], now_ms: float) -> None:
        self._intents.pop(name, None)
        self._loading[name] = _Intent(digest, victims, now_ms)
        self.started += 1
        self._spawn(self._bring(self._workers[name], digest, victims))

    async def _bring(self, worker: LocalWorker, digest: str, victims: frozenset[str]) -> None:
        try:
            entry = worker.claim(digest, self._name(digest), self._source(digest).far, victims=victims)
            try:
                await worker.ensure(entry, FETCH_MS)
            finally:
                worker.unclaim(entry)
        except EdgeError as error:
            self.left[str(error.reason)] += 1
            while len(self._not_before_ms) >= MAX_REMEMBERED:
                del self._not_before_ms[next(iter(self._not_before_ms))]
            self._not_before_ms[digest] = clock.now_ms() + AGAIN_MS
            log.info("not hydrated", extra={"digest": digest, "worker": worker.name, "error": error.message})
        else:
            self.loaded += 1
        finally:
            del self._loading[worker.name]
            if victims:
                self._changed()

    def _leave(self, digest: str, worker: str, why: str, wanted: Wanted, now_ms: float) -> str:
        self._note(digest, worker, why, wanted, now_ms, None)
        return ""

    def _note(
        self, digest: str, worker: str, verdict: str, wanted: Wanted, now_ms: float, load: Load | None
    ) -> None:
        """Remember a decision that is another than the last one of this model."""
        if self._verdicts.get(digest) == verdict:
            return
        if len(self._verdicts) >= MAX_REMEMBERED:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[digest] = verdict
        if load is None:
            self.left[verdict] += 1
        victims, loss = (load.victims, load.loss) if load is not None else ((), 0.0)
        self.recent.append(Judged(now_ms, digest, worker, verdict, victims, wanted.per_s, wanted.gain, loss))


def _weigh(world: World, now_ms: float) -> tuple[dict[str, Wanted], dict[str, Worth]]:
    """What is wanted here, and what is here worth; beacons are never changed in place."""
    wanted = demand_for(world.me, world.others, now_ms, world.needs)
    return wanted, worth_of(world.me, world.others, now_ms) if wanted else {}
