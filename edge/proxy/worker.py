"""A worker of this node as the proxy sees it: is it up, what is on its device, load this.

The device budget is decided here and enforced again by the worker. A model that is
resident holds its blobs in the weight store; unloading gives the hold back.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from edge import clock
from edge.config import Worker as WorkerConfig
from edge.config import size_bytes
from edge.errors import EdgeError, Reason, Source
from edge.fleet.snapshot import EndpointState
from edge.policy.eviction import Resident, plan
from edge.policy.facts import State
from edge.proxy.models import Models
from edge.wire import calls
from edge.wire.dial import Dialer
from edge.wire.exchange import Reply
from edge.wire.link import Link

log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 60.0
LOAD_TIMEOUT_S: Final = 60.0
#: A store that died is waited for this long by a cold request.
STORE_BACK_S: Final = 10.0
#: A worker that was lost is worth waiting for this long; then it is down.
STARTING_S: Final = 30.0


class OnDevice:
    """One model on the device, or on its way there."""

    __slots__ = ("device_bytes", "in_use", "loading", "moved_bytes", "used_at_ms")

    def __init__(self) -> None:
        self.device_bytes = 0
        self.in_use = 0
        self.used_at_ms = clock.now_ms()
        self.loading: asyncio.Task[str] | None = None
        self.moved_bytes = 0


class LocalWorker:
    """One worker process of this node."""

    def __init__(
        self,
        name: str,
        config: WorkerConfig,
        socket_path: str,
        *,
        endpoint: EndpointState,
        store: Dialer,
        models: Models,
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        on_hydrated: Callable[[str, str, int, float], None],
        max_body_bytes: int,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.residents: dict[str, OnDevice] = {}
        self._budget_bytes = size_bytes(config.device_bytes)
        self._store = store
        self._models = models
        self._spawn = spawn
        self._on_hydrated = on_hydrated
        self._load_order = asyncio.Lock()
        self._lost_timer: asyncio.TimerHandle | None = None
        self.was_up = asyncio.Event()
        endpoint.set_state(State.STARTING)
        self.dialer = Dialer(
            name,
            unix_path=socket_path,
            greet=self._greet,
            on_lost=self._lost,
            connect_timeout_s=5.0,
            max_body_bytes=max_body_bytes,
        )

    async def _greet(self, link: Link) -> None:
        """The worker answers only once it can work; what it still holds from before is kept."""
        reply = await link.request(calls.Status(), timeout_s=START_TIMEOUT_S)
        state = reply.head
        if not isinstance(state, calls.WorkerState):
            raise EdgeError(Reason.PROTOCOL, f"{self.name} is no worker", source=Source.UPSTREAM)
        self.residents.clear()
        for model in state.models:
            kept = OnDevice()
            kept.device_bytes = model.device_bytes
            self.residents[model.digest] = kept
            self.endpoint.warm.add(model.digest)
            self._spawn(self._hold_again(model.digest))
        if self._lost_timer is not None:
            self._lost_timer.cancel()
            self._lost_timer = None
        self.was_up.set()
        self.endpoint.set_state(State.UP)
        log.info("worker up", extra={"worker": self.name, "provider": state.provider})

    async def _hold_again(self, digest: str) -> None:
        """After a restart of this proxy: the model is still loaded, its hold is not."""
        try:
            await self._store.shared().request(calls.Ensure(digest=digest), timeout_s=LOAD_TIMEOUT_S)
        except EdgeError as error:
            log.warning("hold not renewed", extra={"digest": digest, "error": str(error)})

    def hold_all_again(self) -> None:
        """The weight store was restarted: what is on the device must be held there again."""
        for digest, model in self.residents.items():
            if model.loading is None:
                self._spawn(self._hold_again(digest))

    @property
    def used_bytes(self) -> int:
        """Device bytes of what is resident or on its way."""
        return sum(model.device_bytes for model in self.residents.values())

    def _lost(self) -> None:
        held, self.residents = self.residents, {}
        self.endpoint.set_state(State.STARTING)
        for digest, model in held.items():
            if model.loading is None:
                self._spawn(self._release(digest))
        if self._lost_timer is None:
            loop = asyncio.get_running_loop()
            self._lost_timer = loop.call_later(STARTING_S, self._give_up)
        log.warning("worker lost", extra={"worker": self.name})

    def _give_up(self) -> None:
        self._lost_timer = None
        if self.endpoint.state is State.STARTING:
            self.endpoint.set_state(State.DOWN)

    def forget(self, digest: str, entry: OnDevice) -> None:
        """The worker says that it does not have this model; one that is being loaded again stays."""
        if self.residents.get(digest) is entry and entry.loading is None:
            del self.residents[digest]
            self.endpoint.warm.discard(digest)
            self._spawn(self._release(digest))

    def claim(self, digest: str, model: str) -> OnDevice:
        """The model, on the device or on its way there; it is not evicted until `unclaim`."""
        found = self.residents.get(digest)
        if found is None:
            found = self.residents[digest] = OnDevice()
            found.loading = self._spawn(self._load(digest, model, found))
        found.in_use += 1
        return found

    @staticmethod
    def unclaim(entry: OnDevice) -> None:
        """The request that claimed it is done with it."""
        entry.in_use -= 1
        entry.used_at_ms = clock.now_ms()

    @staticmethod
    async def ensure(entry: OnDevice, deadline_ms: float) -> tuple[str, float]:
        """Wait until a claimed model is resident. One load under many callers; none of them stops it.

        Returns where the weights were ("device" when nothing had to be done) and the
        milliseconds waited. Raises EdgeError: NO_MEMORY, ORIGIN_DOWN, BLOB_CORRUPT, LOAD_FAILED,
        DEADLINE.
        """
        if entry.loading is None:
            return "device", 0.0
        started_ms = clock.now_ms()
        try:
            async with asyncio.timeout(deadline_ms / 1000.0):
                residency = await asyncio.shield(entry.loading)
        except TimeoutError:
            text = "the deadline passed while the model was being loaded"
            raise EdgeError(Reason.DEADLINE, text) from None
        return residency, clock.now_ms() - started_ms

    async def _load(self, digest: str, model: str, entry: OnDevice) -> str:
        started_ms = clock.now_ms()
        try:
            residency = await self._fetch_and_load(digest, entry)
        except BaseException:
            if self.residents.get(digest) is entry:
                del self.residents[digest]
            raise
        entry.loading = None
        entry.used_at_ms = clock.now_ms()
        self.endpoint.warm.add(digest)
        self._on_hydrated(model, residency, entry.moved_bytes, (entry.used_at_ms - started_ms) / 1000.0)
        return residency

    async def _fetch_and_load(self, digest: str, entry: OnDevice) -> str:
        reply = await self._ensure_on_disk(digest)
        ensured, raw = reply.head, await reply.whole()
        if not isinstance(ensured, calls.Ensured):
            raise EdgeError(Reason.PROTOCOL, "the weight store answered something else")
        try:
            entry.moved_bytes = ensured.moved_bytes
            manifest = self._models.remember(digest, raw)
            # One load at a time per device: two that plan for the same free bytes would both fail.
            async with self._load_order:
                await self._make_room(digest, max(manifest.device_bytes, manifest.size_bytes))
                entry.device_bytes = manifest.device_bytes
                link = self.dialer.shared()
                loaded = await link.request(calls.Load(digest=digest), raw, timeout_s=LOAD_TIMEOUT_S)
                if isinstance(loaded.head, calls.Loaded):
                    entry.device_bytes = loaded.head.device_bytes
        except BaseException:
            self._spawn(self._release(digest))
            raise
        return ensured.residency

    async def _ensure_on_disk(self, digest: str) -> Reply:
        """Ask the store; once more when it died meanwhile, since what it verified is on its disk."""
        link = await self._store.wait_shared(STORE_BACK_S)
        try:
            return await link.request(calls.Ensure(digest=digest), timeout_s=LOAD_TIMEOUT_S)
        except EdgeError as error:
            if error.reason is not Reason.LINK_LOST:
                raise
        link = await self._store.wait_shared(STORE_BACK_S)
        return await link.request(calls.Ensure(digest=digest), timeout_s=LOAD_TIMEOUT_S)

    async def _make_room(self, digest: str, need_bytes: int) -> None:
        residents = [
            Resident(key, model.device_bytes, model.used_at_ms, model.in_use > 0 or model.loading is not None)
            for key, model in self.residents.items()
            if key != digest
        ]
        victims = plan(residents, need_bytes=need_bytes, budget_bytes=self._budget_bytes)
        if victims is None:
            used = sum(resident.device_bytes for resident in residents)
            raise EdgeError(
                Reason.NO_MEMORY,
                f"the model needs {need_bytes} bytes on {self.name}, whose budget is {self._budget_bytes}; "
                f"{used} are taken and in use or not enough to free",
                retry_after_s=2,
            )
        for victim in victims:
            self.residents.pop(victim, None)
            self.endpoint.warm.discard(victim)
            await self.dialer.shared().request(calls.Unload(digest=victim), timeout_s=10.0)
            await self._release(victim)
            log.info("evicted", extra={"worker": self.name, "digest": victim, "for": digest})

    async def _release(self, digest: str) -> None:
        try:
            await self._store.shared().request(calls.Release(digest=digest), timeout_s=5.0)
        except EdgeError as error:
            # The store gives holds back by itself when our link to it closes.
            log.debug("not released: %s", error)
