"""One child process: start it, hear its heartbeats, start it again when it is gone.

What the child does is its own affair; whether the node attracts traffic meanwhile is not
decided here. The exit is heard through a pidfd, so neither a thread nor SIGCHLD is needed.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Final, Protocol

from edge import clock
from edge.parent.boot import Role, envelope
from edge.parent.child import EXIT_UNFIT
from edge.wire import calls
from edge.wire.exchange import Incoming
from edge.wire.link import Link

log = logging.getLogger(__name__)

BACKOFF_FIRST_MS: Final = 50.0
BACKOFF_MAX_MS: Final = 5_000.0
#: A child that lived this long is well again: its next exit is answered at once.
HEALTHY_MS: Final = 10_000.0
#: Before its first heartbeat a child may import, on a busy machine, for this long.
FIRST_BEAT_MS: Final = 60_000.0
#: A child speaks five times a second; one that floods its parent is killed.
MAX_EVENTS_PER_WATCH: Final = 500
MAX_CALL_BODY_BYTES: Final = 64 * 1024


#: A process that hangs in the kernel does not even die of SIGKILL; its parent goes on.
KILL_WAIT_S: Final = 1.0
EXIT_FAILED: Final = 1


class UnfitError(Exception):
    """A child can't run at all here: it said why, on stderr."""


class Observer(Protocol):
    """Who wants to know what becomes of a child."""

    def on_born(self, child: "Child") -> None:
        """It was started."""

    def on_beat(self, child: "Child") -> None:
        """It spoke; `child.ready` says what."""

    def on_exit(self, child: "Child") -> None:
        """It is gone."""


def next_backoff_ms(previous_ms: float, lived_ms: float) -> float:
    """How long to wait before the next start; `previous_ms` is 0 before the first exit."""
    if lived_ms >= HEALTHY_MS or previous_ms <= 0:
        return BACKOFF_FIRST_MS
    return min(previous_ms * 2, BACKOFF_MAX_MS)


class Child:
    """One role of one node; `keep` runs until `stop` was called and the process is gone."""

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
        self.pid = 0
        self.up = False
        self.ready = False
        self.exits = 0
        self._node = node
        self._log_level = log_level
        self._observer = observer
        self._on_call = on_call
        self._stopping = asyncio.Event()
        self._was_ready = False
        self._born_ms = 0.0
        self._beat_ms: float | None = None
        self._events = 0
        self._process: subprocess.Popen[bytes] | None = None

    async def keep(self) -> None:
        """Start it again and again, with backoff. Raises UnfitError when that can't help."""
        backoff_ms = 0.0
        while not self._stopping.is_set():
            self._born_ms = clock.now_ms()
            try:
                status = await self._live()
            except OSError as error:
                # No memory, no process, no descriptor: the next try may find them.
                log.warning("no start", extra={"child": self.role.name, "problem": str(error)})
                status = EXIT_FAILED
            lived_ms = clock.now_ms() - self._born_ms
            if self._stopping.is_set():
                return
            if status == EXIT_UNFIT and not self._was_ready:
                raise UnfitError(f"{self.role.name} can't run here; its line above says why")
            backoff_ms = next_backoff_ms(backoff_ms, lived_ms)
            log.warning(
                "child exited",
                extra={
                    "child": self.role.name,
                    "pid": self.pid,
                    "status": status,
                    "lived_ms": round(lived_ms),
                    "again_in_ms": backoff_ms,
                },
            )
            try:
                async with asyncio.timeout(backoff_ms / 1000.0):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    def stop(self) -> None:
        """Ask it to end; it is not started again."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def kill(self, why: str) -> None:
        """End it now."""
        if self.up:
            log.warning("child killed", extra={"child": self.role.name, "pid": self.pid, "why": why})
            self._signal(signal.SIGKILL)

    def watch(self, now_ms: float) -> None:
        """Kill it when it has been silent for too long, or speaks far too much. Call it regularly."""
        events, self._events = self._events, 0
        if not self.up:
            return
        if events > MAX_EVENTS_PER_WATCH:
            self.kill(f"{events} events at once")
        elif self._beat_ms is None:
            if now_ms - self._born_ms > FIRST_BEAT_MS:
                self.kill("no first heartbeat")
        elif now_ms - self._beat_ms > self.role.silent_ms:
            self.kill(f"silent for {round(now_ms - self._beat_ms)} ms")

    def state(self) -> calls.ChildState:
        """As the operator sees it."""
        return calls.ChildState(
            role=self.role.name, pid=self.pid, up=self.up, exits=self.exits, ready=self.ready
        )

    async def _live(self) -> int:
        """One life, from start to exit; its status, negative for a signal."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        link = Link(
            on_call=self._on_call, on_event=self._hear, max_body_bytes=MAX_CALL_BODY_BYTES, max_calls=64
        )
        try:
            await loop.create_connection(lambda: link, sock=ours)
            process = self._spawn(theirs)
        except BaseException:
            link.close()
            raise
        finally:
            theirs.close()
        gone = asyncio.Event()
        pidfd = os.pidfd_open(process.pid)
        loop.add_reader(pidfd, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            link.close()
            if process.poll() is None:
                process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(KILL_WAIT_S)
            self._process, self.up, self.ready = None, False, False
            self.exits += 1
            self._observer.on_exit(self)
        return EXIT_FAILED if process.returncode is None else process.returncode

    def _spawn(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        boot = os.memfd_create("boot")
        try:
            with os.fdopen(os.dup(boot), "wb") as file:
                file.write(envelope(self.role, self._log_level, theirs.fileno()))
            name = f"{self._node}/{self.role.name}"
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "edge.parent.child",
                    self.role.role,
                    "--boot-fd",
                    str(boot),
                    "--of",
                    name,
                ],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                cwd="/",
                env=self.role.environment,
                pass_fds=(boot, theirs.fileno(), *self.role.fds),
                process_group=0,
            )
        finally:
            os.close(boot)
        self._process, self.pid, self.up, self.ready = process, process.pid, True, False
        self._born_ms, self._beat_ms = clock.now_ms(), None
        log.info("child started", extra={"child": self.role.name, "pid": self.pid})
        self._observer.on_born(self)
        return process

    def _hear(self, head: calls.Head) -> None:
        self._events += 1
        if isinstance(head, calls.Heartbeat):
            self._beat_ms = clock.now_ms()
            self.ready = head.ready
            self._was_ready = self._was_ready or head.ready
            self._observer.on_beat(self)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
