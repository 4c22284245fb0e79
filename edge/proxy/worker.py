"""A worker of this node as the proxy sees it: is it up, claim a model on its device.

`edge.proxy.device` keeps the book, `moves` tells its changes, `holds` keeps the weight store in
step and `loader` brings models. The device's budget is decided here and enforced again by the
worker, whose word is the truth. This file owns the link, and does not know why a model is wanted.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

from edge import clock
from edge.config import Worker as WorkerConfig
from edge.config import size_bytes
from edge.errors import EdgeError, Reason
from edge.fleet.own import OwnWorker
from edge.policy.facts import State, Tier
from edge.proxy.device import Book, Entry, Stage, Uploads
from edge.proxy.estimates import Estimates
from edge.proxy.holds import Holds
from edge.proxy.loader import Loader
from edge.proxy.models import Models
from edge.proxy.moves import Moves
from edge.wire import calls, states
from edge.wire.dial import Dialer
from edge.wire.link import Link

log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 60.0
STATUS_S: Final = 5.0
#: How often the worker is asked what it has: models grow when they are prepacked.
LOOK_S: Final = 2.0
#: A worker that was lost is worth waiting for this long; then it is down.
STARTING_S: Final = 30.0

_HELD: Final = contextlib.nullcontext()


class Ready(NamedTuple):
    """A claimed model is on the device: where its weights were, and what this caller caused.

    `residency` is "device" when nothing had to be done; `outside_bytes` of weights came from
    another region or the origin, told to one of the callers that waited.
    """

    residency: str
    waited_ms: float
    outside_bytes: int


class LocalWorker:
    """One worker process of this node.

    `nearest` tells where a model's weights lie nearest to this node and how many bytes they
    are (0 if unknown), `estimates` how long they take from there.
    """

    def __init__(
        self,
        name: str,
        config: WorkerConfig,
        socket_path: str,
        *,
        endpoint: OwnWorker,
        store: Dialer,
        models: Models,
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        on_hydrated: Callable[[str, str, int, float], None],
        nearest: Callable[[str], tuple[Tier, int]],
        estimates: Estimates,
        max_body_bytes: int,
        starting_s: float = STARTING_S,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.book = Book(size_bytes(config.device_bytes))
        self.uploads = Uploads(name, config.hard_limit)
        self.was_up = asyncio.Event()
        self._spawn = spawn
        self._on_hydrated = on_hydrated
        self._estimates = estimates
        self._starting_s = starting_s
        self._lost_timer: asyncio.TimerHandle | None = None
        self.dialer = Dialer(
            name,
            unix_path=socket_path,
            greet=self._greet,
            on_lost=self._lost,
            # Its successor starts with an empty device; what runs is still answered.
            on_retired=self._lost,
            connect_timeout_s=5.0,
            max_body_bytes=max_body_bytes,
        )
        self.holds = Holds(store, self.book, spawn)
        self.moves = Moves(self.book, self.holds, endpoint, nearest=nearest, estimates=estimates)
        self.loader = Loader(
            name,
            dialer=self.dialer,
            moves=self.moves,
            holds=self.holds,
            models=models,
            estimates=estimates,
            refresh=self.refresh,
            spawn=spawn,
        )
        endpoint.set_state(State.STARTING)

    # --- its process

    async def run(self) -> None:
        """Keep the link and the holds, until cancelled."""
        self._begin_waiting()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.dialer.run())
                group.create_task(self.holds.run())
                group.create_task(self._watch())
        finally:
            if self._lost_timer is not None:
                self._lost_timer.cancel()

    async def _greet(self, link: Link) -> None:
        """The worker answers only once it can work; what it still has from before is kept."""
        state = await self._status(link, START_TIMEOUT_S)
        if self._lost_timer is not None:
            self._lost_timer.cancel()
            self._lost_timer = None
        self.endpoint.set_state(State.UP)
        self.moves.adopt(state)
        self.moves.expect_all()
        self.was_up.set()
        log.info("worker up", extra={"worker": self.name, "provider": state.provider})

    def _lost(self) -> None:
        """The link is gone, or its greeting failed."""
        self.moves.worker_lost()
        # Once it was given up it is down until it has been up again: it may never start.
        if self.endpoint.state is State.UP:
            self.endpoint.set_state(State.STARTING)
            self.moves.expect_all()
            self._begin_waiting()
            log.warning("worker lost", extra={"worker": self.name})

    def _begin_waiting(self) -> None:
        if self._lost_timer is None and self.endpoint.state is State.STARTING:
            self._lost_timer = asyncio.get_running_loop().call_later(self._starting_s, self._give_up)

    def _give_up(self) -> None:
        self._lost_timer = None
        if self.endpoint.state is State.STARTING:
            self.endpoint.set_state(State.DOWN)
            log.error("worker down", extra={"worker": self.name, "error": self.last_error})

    @property
    def last_error(self) -> str:
        """Why it is not up, as far as its link tells; empty while it is."""
        return "" if self.endpoint.state is State.UP else self.dialer.last_error

    async def _watch(self) -> None:
        """Ask now and then what it has: nobody tells when a session was swapped for a larger one."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self.endpoint.state is State.UP:
                try:
                    await self.refresh()
                except EdgeError as error:
                    log.debug("no status of %s: %s", self.name, error)

    async def refresh(self) -> None:
        """Take over what the worker says it has. Raises EdgeError when it does not answer."""
        link = self.dialer.shared()
        state = await self._status(link, STATUS_S)
        if self.dialer.link is link:
            self.moves.adopt(state)

    async def _status(self, link: Link, timeout_s: float) -> calls.WorkerState:
        reply = await link.request(calls.Status(), timeout_s=timeout_s)
        return states.worker_state(reply.head, await reply.whole())

    # --- claims

    def claim(
        self,
        digest: str,
        model: str,
        far: tuple[calls.FarSource, ...] = (),
        *,
        victims: frozenset[str] | None = None,
    ) -> Entry:
        """The model, on the device or on its way there; it is not evicted until `unclaim`.

        `far` are nodes of other regions that have it. `victims` are the only models that may be
        evicted for it, as long as nobody claims it without this bound; None for any.
        """
        entry = self.book.find(digest)
        if entry is None:
            entry = self.moves.begin(digest, model, victims)
            entry.loading = self._spawn(self._load(entry, far))
        elif victims is None:
            entry.victims = None
        entry.in_use += 1
        entry.uses.add(clock.now_ms())
        return entry

    async def _load(self, entry: Entry, far: tuple[calls.FarSource, ...]) -> str:
        started_ms = clock.now_ms()
        try:
            residency = await self.loader.load(entry, far)
        except EdgeError as error:
            self._estimates.failed(error)
            raise
        seconds = (clock.now_ms() - started_ms) / 1000.0
        self._estimates.scored(entry.model, residency, entry.expected_ms, seconds * 1000.0)
        self._on_hydrated(entry.model, residency, entry.moved_bytes, seconds)
        return residency

    @staticmethod
    def unclaim(entry: Entry) -> None:
        """The request that claimed it is done with it."""
        entry.in_use -= 1
        entry.used_at_ms = clock.now_ms()
        if entry.in_use == 0 and entry.on_idle is not None and not entry.on_idle.done():
            entry.on_idle.set_result(None)

    @staticmethod
    async def ensure(entry: Entry, deadline_ms: float) -> Ready:
        """Wait until a claimed model is resident. One load under many callers; none of them stops it.

        Raises EdgeError: NO_MEMORY, ORIGIN_DOWN, BLOB_CORRUPT, LOAD_FAILED, WORKER_LOST, DEADLINE.
        """
        if entry.loading is None:
            return Ready("device", 0.0, 0)
        started_ms = clock.now_ms()
        try:
            async with asyncio.timeout(deadline_ms / 1000.0):
                residency = await asyncio.shield(entry.loading)
        except TimeoutError:
            text = "the deadline passed while the model was being loaded"
            raise EdgeError(Reason.DEADLINE, text) from None
        outside_bytes, entry.far_bytes = entry.far_bytes, 0
        return Ready(residency, clock.now_ms() - started_ms, outside_bytes)

    def forget(self, digest: str, entry: Entry) -> None:
        """The worker says that it does not have this model; one that is being loaded again stays."""
        if self.book.find(digest) is entry and entry.stage is Stage.RESIDENT:
            self.moves.gone(entry)

    def hold_all_again(self) -> None:
        """The weight store was restarted: what is on the device must be held there again."""
        self.holds.wake()

    def upload(self, held: bool) -> "contextlib.AbstractContextManager[Any]":
        """Around sending a body: one that is not `held` in memory counts against the cap of uploads,
        and so does one that names large objects, which the worker reads whole.

        Entering raises EdgeError(SATURATED, retryable) above it.
        """
        return _HELD if held else self.uploads

    @property
    def used_bytes(self) -> int:
        """Device bytes of what is resident, being opened or leaving."""
        return self.book.used_bytes
