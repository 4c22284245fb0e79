"""One child of the node: a process of its role runs, whatever becomes of the one before.

A crash is answered with backoff, a planned renewal at once. Where the role allows it, the
new process is ready before the old one is told to finish, and both live meanwhile. What the
child does is its own affair; whether the node attracts traffic is not decided here.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from typing import Final, Protocol

from edge import clock
from edge.parent.boot import Role
from edge.parent.child import EXIT_UNFIT
from edge.parent.life import Life
from edge.policy.others import Others
from edge.wire import treecalls
from edge.wire.exchange import Incoming

log = logging.getLogger(__name__)

BACKOFF_FIRST_MS: Final = 50.0
BACKOFF_MAX_MS: Final = 5_000.0
#: A child that lived this long is well again: its next exit is answered at once.
HEALTHY_MS: Final = 10_000.0
#: A new process that is not ready by then is given up.
READY_WITHIN_S: Final = 30.0


class UnfitError(Exception):
    """A child can't run at all here: it said why, on stderr."""


class RenewalError(Exception):
    """A planned renewal did not come about; the text says what is there now."""


class Observer(Protocol):
    """Who wants to know what becomes of a child. Planned exits are not told."""

    def on_born(self, child: "Child") -> None:
        """It was started."""

    def on_beat(self, child: "Child") -> None:
        """It spoke; `child.ready` says what."""

    def on_replaced(self, child: "Child", born_ms: float) -> None:
        """Another process, started at `born_ms` and ready, has taken over."""

    def on_exit(self, child: "Child") -> None:
        """It is gone."""


def next_backoff_ms(previous_ms: float, lived_ms: float) -> float:
    """How long to wait before the next start; `previous_ms` is 0 before the first exit."""
    if lived_ms >= HEALTHY_MS or previous_ms <= 0:
        return BACKOFF_FIRST_MS
    return min(previous_ms * 2, BACKOFF_MAX_MS)


class Child:
    """One role of one node; `keep` runs until `stop` was called and its processes are gone.

    `exits` counts the exits that nobody asked for.
    """

    def __init__(
        self,
        role: Role,
        *,
        node: str,
        log_level: str,
        observer: Observer,
        on_call: Callable[[Incoming], None] | None = None,
    ) -> None:
        self.role = role
        self.exits = 0
        self._node = node
        self._log_level = log_level
        self._said: signal.Signals | None = None
        self._observer = observer
        self._on_call = on_call
        self._stopping = asyncio.Event()
        self._was_ready = False
        #: Wakes `keep` when a process is gone, its pause when that is to end, and `renew` at any change.
        self._turn = asyncio.Event()
        self._hurry = asyncio.Event()
        self._news = asyncio.Event()
        self._lives: dict[Life, asyncio.Task[None]] = {}
        self._life: Life | None = None
        #: Not ready yet; takes over as soon as it is, or when the current one dies.
        self._successor: Life | None = None
        #: Its exit is planned.
        self._leaving: Life | None = None
        self._group = asyncio.TaskGroup()

    @property
    def pid(self) -> int:
        """Of the current process, or of the last one."""
        return self._life.pid if self._life is not None else 0

    @property
    def up(self) -> bool:
        """True while the current process runs."""
        return self._life is not None and self._life.up

    @property
    def ready(self) -> bool:
        """What its last heartbeat said."""
        return self._life is not None and self._life.ready

    @property
    def others(self) -> Others:
        """What its last heartbeat said of other nodes that announce."""
        return self._life.others if self._life is not None else Others.UNKNOWN

    async def keep(self) -> None:
        """Start it again and again, with backoff. Raises UnfitError when that can't help."""
        backoff_ms = 0.0
        unfit = False
        async with self._group:
            self._life = self._begin(self.role)
            while True:
                await self._turn.wait()
                self._turn.clear()
                if self._stopping.is_set():
                    break
                if not self._life.over.is_set():
                    continue
                if self._life is not self._leaving:
                    if self._life.status == EXIT_UNFIT and not self._was_ready:
                        unfit = True
                        break
                    backoff_ms = await self._pause(self._life, backoff_ms)
                    if self._stopping.is_set():
                        break
                self._life = self._promote() or self._begin(self.role)
        if unfit:
            raise UnfitError(f"{self.role.name} can't run here; its line above says why")

    async def renew(self, role: Role) -> None:
        """Replace the process by a new one of `role`, at once; return when the old one is gone.

        Raises RenewalError when the new one was not ready within 30 s. A role with `overlap`
        then still has its old process.
        """
        if self._life is None or self._stopping.is_set():
            raise RenewalError("the node stops")
        if role.overlap and self.ready:
            await self._renew_beside(self._life, role)
        else:
            await self._renew_after(self._life, role)

    def stop(self) -> None:
        """Ask it to end; it is not started again."""
        self._stopping.set()
        for life in self._lives:
            life.stop()
        self._turn.set()
        self._hurry.set()

    def kill(self, why: str) -> None:
        """End it now."""
        for life in self._lives:
            life.kill(why)

    def watch(self, now_ms: float) -> None:
        """Kill a process that has been silent for too long, or speaks far too much. Call it regularly.

        One that finishes is left alone: its time is bounded anyway.
        """
        for life in (self._life, self._successor):
            if life is not None:
                life.watch(now_ms)

    def state(self) -> treecalls.ChildState:
        """As the operator sees it."""
        return treecalls.ChildState(
            role=self.role.name, pid=self.pid, up=self.up, exits=self.exits, ready=self.ready
        )

    # --- what a Life tells

    def born(self, life: Life) -> None:
        """A process was started."""
        if self._stopping.is_set():
            life.stop()
        if life is self._life:
            self._observer.on_born(self)

    def spoke(self, life: Life) -> None:
        """A process said that it lives, and whether it is ready."""
        if life is self._life:
            self._was_ready = self._was_ready or life.ready
            self._observer.on_beat(self)
            self._news.set()
        elif life is self._successor and life.ready and not self._stopping.is_set():
            self._life, self._successor = life, None
            self.role = life.role
            log.info("child replaced", extra={"child": self.role.name, "pid": self.pid})
            self._observer.on_replaced(self, life.born_ms)
            self._news.set()

    def gone(self, life: Life) -> None:
        """A process is gone."""
        if life is self._life and life is not self._leaving:
            self.exits += 1
            self._observer.on_exit(self)

    # --- inside

    async def _renew_beside(self, old: Life, role: Role) -> None:
        new = self._successor = self._begin(role)
        await self._until(lambda: new.over.is_set() or (new is self._life and new.ready))
        if new is self._life and new.ready:
            await old.end(role.grace_s)
            return
        why = (
            f"ended with status {new.status}"
            if new.over.is_set()
            else f"was not ready within {READY_WITHIN_S:g} s"
        )
        if self._successor is new:
            self._successor = None
            new.kill("not ready in time")
        raise RenewalError(f"the new one {why}; the old one {'died too' if old.over.is_set() else 'stays'}")

    async def _renew_after(self, old: Life, role: Role) -> None:
        self.role = role
        if not old.over.is_set():
            self._leaving = old
            await old.end(role.grace_s)
        self._hurry.set()
        await self._until(lambda: self._life is not old and self.ready)
        if not self.ready:
            raise RenewalError(
                f"the new one was not ready within {READY_WITHIN_S:g} s; it is started further"
            )

    async def _until(self, fact: Callable[[], bool]) -> None:
        """Wait for it while a new process may take to become ready."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN_S):
                while not fact():
                    self._news.clear()
                    await self._news.wait()

    def say(self, number: signal.Signals) -> None:
        """Pass on how much is to be logged, also to processes that follow."""
        self._said = number
        for life in self._lives:
            life.say(number)

    def _begin(self, role: Role) -> Life:
        life = Life(role, self, node=self._node, log_level=self._log_level, on_call=self._on_call)
        if self._said is not None:
            life.say(self._said)
        task = self._group.create_task(life.run())
        self._lives[life] = task
        task.add_done_callback(lambda _: self._ended(life))
        return life

    def _ended(self, life: Life) -> None:
        del self._lives[life]
        self._turn.set()
        self._news.set()

    def _promote(self) -> Life | None:
        """The current process died while its successor was coming up: that one is it now."""
        life, self._successor = self._successor, None
        if life is None or life.over.is_set():
            return None
        self.role = life.role
        if life.up:
            self._observer.on_born(self)
        return life

    async def _pause(self, life: Life, previous_ms: float) -> float:
        """Wait before the next start, unless one is under way; how long it would have been."""
        lived_ms = clock.now_ms() - life.born_ms
        backoff_ms = next_backoff_ms(previous_ms, lived_ms)
        log.warning(
            "child exited",
            extra={
                "child": self.role.name,
                "pid": life.pid,
                "status": life.status,
                "lived_ms": round(lived_ms),
                "again_in_ms": backoff_ms,
            },
        )
        self._hurry.clear()
        if self._successor is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_ms / 1000.0):
                    await self._hurry.wait()
        return backoff_ms
