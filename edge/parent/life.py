"""One process of a child, from its start to its exit.

It is started once, heard, and told to end; what its end means and whether another one
follows is decided in keeper.py. The exit is heard through a pidfd, so neither a thread nor
SIGCHLD is needed.
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
from edge.policy.others import Others
from edge.wire import calls
from edge.wire.exchange import Incoming
from edge.wire.link import Link

log = logging.getLogger(__name__)

#: Before its first heartbeat a child may import, on a busy machine, for this long.
FIRST_BEAT_MS: Final = 60_000.0
#: A child speaks five times a second; one that floods its parent is killed.
MAX_EVENTS_PER_WATCH: Final = 500
MAX_CALL_BODY_BYTES: Final = 64 * 1024
#: A process that hangs in the kernel does not even die of SIGKILL; its parent goes on.
KILL_WAIT_S: Final = 1.0
EXIT_FAILED: Final = 1


class Owner(Protocol):
    """Who is told, synchronously, what becomes of a process."""

    def born(self, life: "Life") -> None:
        """It was started."""

    def spoke(self, life: "Life") -> None:
        """A heartbeat came; `life.ready` says what."""

    def gone(self, life: "Life") -> None:
        """It is gone; `life.status` says how."""


class Life:
    """One process; `run` returns once it is gone.

    `settled` is set when it was ready for the first time or is gone, `over` when it is gone. `others` is
    what a proxy knows of other nodes that announce.
    """

    def __init__(
        self,
        role: Role,
        owner: Owner,
        *,
        node: str,
        log_level: str,
        on_call: Callable[[Incoming], None] | None,
    ) -> None:
        self.role = role
        self.pid = 0
        self.up = False
        self.ready = False
        self.others = Others.UNKNOWN
        self.status = EXIT_FAILED
        self.born_ms = clock.now_ms()
        self.settled = asyncio.Event()
        self.over = asyncio.Event()
        self._owner = owner
        self._node = node
        self._log_level = log_level
        self._on_call = on_call
        self._beat_ms: float | None = None
        self._said: signal.Signals | None = None
        self._events = 0
        self._process: subprocess.Popen[bytes] | None = None

    async def run(self) -> None:
        """From start to exit. A process that can't even be started is one that failed."""
        try:
            await self._run()
        except OSError as error:
            # No memory, no process, no descriptor: the next try may find them.
            log.warning("no start", extra={"child": self.role.name, "problem": str(error)})
        finally:
            self.settled.set()
            self.over.set()

    def stop(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self, why: str) -> None:
        """End it now."""
        if self.up:
            log.warning("child killed", extra={"child": self.role.name, "pid": self.pid, "why": why})
            self._signal(signal.SIGKILL)

    async def end(self, grace_s: float) -> None:
        """Ask it to end, kill it when it did not within `grace_s`, and wait until it is gone."""
        self.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.over.wait()
        self.kill("did not stop in time")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_WAIT_S):
                await self.over.wait()

    def say(self, number: signal.Signals) -> None:
        """Let it log more or less, once it has spoken: before, it might still die of such a signal."""
        self._said = number
        if self._beat_ms is not None:
            self._signal(number)

    def watch(self, now_ms: float) -> None:
        """Kill it when it has been silent for too long, or speaks far too much. Call it regularly."""
        events, self._events = self._events, 0
        if not self.up:
            return
        if events > MAX_EVENTS_PER_WATCH:
            self.kill(f"{events} events at once")
        elif self._beat_ms is None:
            if now_ms - self.born_ms > FIRST_BEAT_MS:
                self.kill("no first heartbeat")
        elif now_ms - self._beat_ms > self.role.silent_ms:
            self.kill(f"silent for {round(now_ms - self._beat_ms)} ms")

    async def _run(self) -> None:
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
        exited = asyncio.Event()
        pidfd = os.pidfd_open(process.pid)
        loop.add_reader(pidfd, exited.set)
        try:
            await exited.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            link.close()
            if process.poll() is None:
                process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(KILL_WAIT_S)
            if process.returncode is not None:
                self.status = process.returncode
            self._process, self.up, self.ready = None, False, False
            self._owner.gone(self)

    def _spawn(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        boot = os.memfd_create("boot")
        try:
            with os.fdopen(os.dup(boot), "wb") as file:
                file.write(envelope(self.role, self._log_level, theirs.fileno()))
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
                    f"{self._node}/{self.role.name}",
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
        self._process, self.pid, self.up, self.born_ms = process, process.pid, True, clock.now_ms()
        log.info("child started", extra={"child": self.role.name, "pid": self.pid})
        self._owner.born(self)
        return process

    def _hear(self, head: calls.Head, _: bytes) -> None:
        self._events += 1
        if isinstance(head, calls.Heartbeat):
            if self._beat_ms is None and self._said is not None:
                self._signal(self._said)
            self._beat_ms = clock.now_ms()
            self.ready, self.others = head.ready, head.others
            if head.ready:
                self.settled.set()
            self._owner.spoke(self)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
