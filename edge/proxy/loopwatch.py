"""Names what blocks the event loop, while it does.

A thread asks the loop for a sign four times a second. One that does not come within `BLOCKED_S` makes it
look where the loop's thread stands: the innermost function of this package is to blame, or whatever is
innermost where none of it is. Each block is told once, at once, since a process that hangs for long is
killed by its parent. A block of 350 ms is always seen, one of 100 ms by luck.

Nobody is blamed for a process that was stopped (SIGSTOP, a machine that sleeps): this thread was stopped
with it, and is late itself. A call that does not let go of the interpreter's lock makes it late too, but
has used the processor meanwhile. One such call alone, over before anybody could look, is named by how much:
on a machine that others keep busy most of those are missed (6 of 20 were named at a load of 4 per core).
"""

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from edge import clock

log = logging.getLogger(__name__)

EVERY_S: Final = 0.25
BLOCKED_S: Final = 0.1
#: A wait that ends so late says that this thread could not run.
LATE_S: Final = 0.05
#: A loop's thread that worked for this part of such a time was not stopped.
WORKED: Final = 0.1
#: One that did for this part let nobody else run.
HOGGED: Final = 0.5
#: No function of ours: the loop's own code, or a processor that others kept.
NOBODY: Final = "loop"
MAX_FRAMES: Final = 12
#: Whatever calls these is the loop's frame, and no part of what it runs.
_RUNNERS: Final = ("asyncio.runners", "asyncio.base_events")
_OURS: Final = "edge."


@contextlib.contextmanager
def watching(loop: asyncio.AbstractEventLoop, on_blocked: Callable[[str], None]) -> Iterator[None]:
    """While inside, blocks of `loop`, which runs in this thread, are logged and told to `on_blocked`.

    That is called in another thread, with `module:function`.
    """
    watch = _Watch(loop, threading.get_ident(), on_blocked)
    thread = threading.Thread(target=watch.run, name="loop-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.end()
        thread.join(1.0)


def stack_of(frame: FrameType | None) -> list[tuple[str, str, int]]:
    """(module, function, line) of what the loop runs, the innermost first."""
    found: list[tuple[str, str, int]] = []
    while frame is not None:
        module = str(frame.f_globals.get("__name__", "?"))
        if module in _RUNNERS:
            break
        found.append((module, frame.f_code.co_qualname, frame.f_lineno))
        frame = frame.f_back
    return found


def where_of(stack: list[tuple[str, str, int]]) -> str:
    """Who is to blame, as `module:function`."""
    ours = (frame for frame in stack if frame[0].startswith(_OURS))
    found = next(ours, stack[0] if stack else None)
    return f"{found[0]}:{found[1]}" if found is not None else NOBODY


class _Watch:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, thread: int, on_blocked: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._thread = thread
        self._on_blocked = on_blocked
        self._turned = threading.Event()
        self._ended = threading.Event()

    def end(self) -> None:
        """Blame nobody any more."""
        self._ended.set()
        self._turned.set()

    def run(self) -> None:
        """Until `end`, or until the loop is closed."""
        with contextlib.suppress(RuntimeError):
            while not self._ended.is_set():
                self._look()

    def _look(self) -> None:
        late_s, worked_s = self._wait(self._ended, EVERY_S)
        if self._ended.is_set() or stopped(late_s, worked_s):
            # Of a process that was stopped, what follows is the catching up.
            return
        blamed = late_s >= BLOCKED_S and worked_s >= HOGGED * late_s
        if blamed:
            self._blame()
        self._turned.clear()
        self._loop.call_soon_threadsafe(self._turned.set)
        late_s, worked_s = self._wait(self._turned, BLOCKED_S)
        if not (blamed or self._turned.is_set() or stopped(late_s, worked_s)):
            self._blame()
        self._turned.wait()

    def _wait(self, event: threading.Event, at_most_s: float) -> tuple[float, float]:
        """How late the end of it came, and for how long the loop's thread worked meanwhile."""
        began_s, used_s = clock.now_s(), clock.cpu_s(self._thread)
        event.wait(at_most_s)
        late_s = clock.now_s() - began_s - at_most_s
        return late_s, clock.cpu_s(self._thread) - used_s

    def _blame(self) -> None:
        stack = stack_of(sys._current_frames().get(self._thread))
        where = where_of(stack)
        shown = [f"{module}:{function}:{line}" for module, function, line in stack[:MAX_FRAMES]]
        log.warning("the event loop is blocked", extra={"where": where, "stack": shown})
        self._on_blocked(where)


def stopped(late_s: float, worked_s: float) -> bool:
    """Nobody ran."""
    return late_s >= LATE_S and worked_s < WORKED * late_s
