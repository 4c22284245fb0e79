"""The book of one device: what is on it, on its way there or leaving, and what would make room.

A table of entries with a table of stages, and averages of how long a load takes. The worker's
own Status is the truth, and `adopt` takes it over. No I/O and no clock: times are arguments.
It knows neither links nor tasks; `edge.proxy.worker` hangs both on its entries.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.errors import EdgeError, Reason, Source
from edge.fleet.own import Rate
from edge.policy.estimate import Guess, Seen, after, expect_ms
from edge.policy.eviction import Resident, plan
from edge.policy.facts import Rates
from edge.policy.score import LOAD_FIXED_MS

if TYPE_CHECKING:
    import asyncio

    from edge.wire.link import Link

#: Weight of a new sample in a learned load time.
EWMA: Final = 0.3
#: How often a model is claimed is forgotten with this time constant.
USES_TAU_MS: Final = 60_000.0
#: Models whose load times are remembered, per device.
MAX_LEARNED: Final = 256
#: What a smaller model takes says nothing of the rate.
RATE_BYTES: Final = 4 << 20


class Stage(StrEnum):
    """Where a model is on its way to the device and off it again."""

    #: Its blobs come to this node's disk.
    FETCHING = "fetching"
    #: They are there; loads before it are under way.
    QUEUED = "queued"
    #: Room is made for it, and the worker opens it.
    OPENING = "opening"
    RESIDENT = "resident"
    #: The worker was told to unload it and has not said yet that its memory is free.
    LEAVING = "leaving"
    GONE = "gone"


NEXT: Final[Mapping[Stage, frozenset[Stage]]] = {
    Stage.FETCHING: frozenset({Stage.QUEUED, Stage.GONE}),
    Stage.QUEUED: frozenset({Stage.OPENING, Stage.GONE}),
    Stage.OPENING: frozenset({Stage.RESIDENT, Stage.GONE}),
    Stage.RESIDENT: frozenset({Stage.LEAVING, Stage.GONE}),
    Stage.LEAVING: frozenset({Stage.GONE}),
    Stage.GONE: frozenset(),
}
LOADING: Final = frozenset({Stage.FETCHING, Stage.QUEUED, Stage.OPENING})


class Entry:
    """One stay of one model on the device, from the claim that begins its load until it is gone.

    `loading` ends in the residency its weights had; None once it is on the device. `leaving`
    ends when the worker has let go of it. `held_on` is the store link on which its hold lives,
    `taking` while one is being asked for. `victims`: the only models that may be evicted for
    it, None for any.
    """

    __slots__ = (
        "device_bytes",
        "digest",
        "expected_ms",
        "far_bytes",
        "held_on",
        "hold_again_at_ms",
        "hold_error",
        "hold_tries",
        "in_use",
        "leaving",
        "load_ms",
        "loading",
        "model",
        "moved_bytes",
        "on_idle",
        "since_ms",
        "stage",
        "taking",
        "used_at_ms",
        "uses",
        "victims",
    )

    def __init__(self, digest: str, model: str, stage: Stage, now_ms: float) -> None:
        self.digest = digest
        self.model = model
        self.stage = stage
        self.since_ms = now_ms
        self.used_at_ms = now_ms
        self.uses = Rate(USES_TAU_MS)
        self.device_bytes = 0
        self.in_use = 0
        self.load_ms = 0.0
        #: How long all of it was expected to take when it set out.
        self.expected_ms = 0.0
        self.loading: asyncio.Task[str] | None = None
        self.leaving: asyncio.Task[None] | None = None
        self.on_idle: asyncio.Future[None] | None = None
        self.victims: frozenset[str] | None = None
        self.moved_bytes = 0
        #: Bytes from outside the region that no request has been told of yet.
        self.far_bytes = 0
        self.held_on: Link | None = None
        self.taking = False
        self.hold_again_at_ms = 0.0
        self.hold_tries = 0
        self.hold_error = ""


class OnDevice(NamedTuple):
    """One model as the worker tells it."""

    digest: str
    model: str
    device_bytes: int


class Adopted(NamedTuple):
    """What the worker's truth changed: models the book lacked, and entries the worker lacks."""

    ghosts: tuple[Entry, ...]
    phantoms: tuple[Entry, ...]


class Book:
    """The entries of one device. `pinned` models are never victims."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.pinned: frozenset[str] = frozenset()
        #: Bytes that the worker counts and no entry explains: another proxy's load, for one.
        self.other_bytes = 0
        self._here: dict[str, Entry] = {}
        self._leaving: list[Entry] = []
        #: digest -> its entry, loading or resident; None otherwise.
        self.find = self._here.get

    def entries(self) -> list[Entry]:
        """All of them: loading, resident, leaving."""
        return [*self._here.values(), *self._leaving]

    def leaving(self) -> list[Entry]:
        """Those whose memory is not free yet."""
        return list(self._leaving)

    @property
    def used_bytes(self) -> int:
        """Device bytes that can't be given to another model now."""
        return self.other_bytes + sum([entry.device_bytes for entry in self.entries()])

    def begin(self, digest: str, model: str, now_ms: float) -> Entry:
        """A model sets out for the device. A second one of the same digest is a fault of the caller."""
        if digest in self._here:
            raise ValueError(f"{digest} has an entry")
        entry = self._here[digest] = Entry(digest, model, Stage.FETCHING, now_ms)
        return entry

    def move(self, entry: Entry, stage: Stage, now_ms: float) -> None:
        """To its next stage. Raises ValueError for a step that NEXT does not have."""
        if stage not in NEXT[entry.stage]:
            raise ValueError(f"{entry.digest} can't go from {entry.stage} to {stage}")
        if entry.stage is Stage.LEAVING:
            self._leaving.remove(entry)
        elif stage in (Stage.LEAVING, Stage.GONE):
            del self._here[entry.digest]
        if stage is Stage.LEAVING:
            self._leaving.append(entry)
        entry.stage = stage
        entry.since_ms = now_ms

    def adopt(
        self, models: Iterable[OnDevice], *, used_bytes: int, limit_bytes: int, now_ms: float
    ) -> Adopted:
        """Take over the worker's own view: sizes, and what it has or lacks.

        A phantom is resident in the book and not at the worker; it is left for the caller to
        move to GONE. Entries that load or leave are judged by how that ends.
        """
        self.limit_bytes = limit_bytes
        ghosts: list[Entry] = []
        told = {model.digest: model for model in models}
        leaving = {entry.digest for entry in self._leaving}
        explained = sum([entry.device_bytes for entry in self._leaving])
        for digest, model in told.items():
            entry = self._here.get(digest)
            if digest in leaving and (entry is None or entry.stage in LOADING):
                # Still the earlier stay.
                continue
            explained += model.device_bytes
            if entry is not None:
                entry.device_bytes = model.device_bytes
            else:
                entry = self._here[digest] = Entry(digest, model.model, Stage.RESIDENT, now_ms)
                entry.device_bytes = model.device_bytes
                ghosts.append(entry)
        phantoms = [e for e in self._here.values() if e.stage is Stage.RESIDENT and e.digest not in told]
        explained += sum(
            [e.device_bytes for e in self._here.values() if e.stage in LOADING and e.digest not in told]
        )
        self.other_bytes = max(0, used_bytes - explained)
        return Adopted(tuple(ghosts), tuple(phantoms))

    def victims(self, entry: Entry, need_bytes: int, now_ms: float) -> tuple[Entry, ...] | None:
        """Who leaves so that `need_bytes` fit for `entry`: () when they fit now, None when they can't."""
        residents = [
            Resident(
                other.digest,
                other.device_bytes,
                other.used_at_ms,
                self._stays(other, entry),
                demand_per_s=other.uses.per_s(now_ms),
                reload_ms=other.load_ms,
                pinned=other.digest in self.pinned,
                resident_since_ms=other.since_ms,
            )
            for other in self.entries()
            if other is not entry
        ]
        budget_bytes = self.limit_bytes - self.other_bytes
        chosen = plan(residents, need_bytes=need_bytes, budget_bytes=budget_bytes, now_ms=now_ms)
        return None if chosen is None else tuple([self._here[digest] for digest in chosen])

    @staticmethod
    def _stays(other: Entry, entry: Entry) -> bool:
        judged = entry.victims is None or other.digest in entry.victims
        return other.in_use > 0 or other.stage is not Stage.RESIDENT or not judged

    def loader_wait_ms(self, now_ms: float) -> float:
        """Until the loads whose bytes are here are done, by what they are expected to take."""
        wait_ms = 0.0
        for entry in self._here.values():
            if entry.stage is Stage.QUEUED:
                wait_ms += entry.load_ms
            elif entry.stage is Stage.OPENING:
                wait_ms += max(0.0, entry.load_ms - (now_ms - entry.since_ms))
        return wait_ms


def lost(entries: Collection[Entry]) -> list[Entry]:
    """The worker died: which entries went with it. What still fetches or waits will be loaded anew."""
    return [entry for entry in entries if entry.stage in (Stage.RESIDENT, Stage.LEAVING)]


class LoadTimes:
    """How long the device takes to load a model, learned from the loads so far."""

    def __init__(self) -> None:
        #: Bytes per ms over all models; a guess until the first load.
        self.bytes_per_ms = Rates().load
        self._known: dict[str, float] = {}
        self._seen = Seen()
        self._learned = False

    def observe(self, digest: str, size_bytes: int, load_ms: float) -> None:
        """One load took so long."""
        if load_ms <= 0.0 or size_bytes <= 0:
            return
        known_ms = self._known.pop(digest, None)
        self._known[digest] = load_ms if known_ms is None else known_ms + (load_ms - known_ms) * EWMA
        if len(self._known) > MAX_LEARNED:
            del self._known[next(iter(self._known))]
        self._seen = after(self._seen, size_bytes, load_ms)
        if size_bytes < RATE_BYTES:
            return
        rate = size_bytes / load_ms
        self.bytes_per_ms += (rate - self.bytes_per_ms) * (EWMA if self._learned else 1.0)
        self._learned = True

    def expect_ms(self, digest: str, size_bytes: int) -> float:
        """What loading it will take, from its own loads or else from its size."""
        guess = Guess(LOAD_FIXED_MS, self.bytes_per_ms)
        return self._known.get(digest) or expect_ms(self._seen, size_bytes, guess)


class Uploads:
    """Large bodies on their way to one worker, which have their slot before their bytes are there.

    A context manager around each: entering raises EdgeError(SATURATED, retryable) above `cap`.
    """

    def __init__(self, name: str, hard_limit: int) -> None:
        self.cap = max(1, hard_limit // 4)
        self.running = 0
        self._name = name

    def __enter__(self) -> None:
        if self.running >= self.cap:
            raise EdgeError(
                Reason.SATURATED,
                f"{self._name} takes {self.cap} large bodies at once, and as many are under way",
                source=Source.UPSTREAM,
                retryable=True,
                retry_after_s=1,
            )
        self.running += 1

    def __exit__(self, *_: object) -> None:
        self.running -= 1
