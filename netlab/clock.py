"""The only place in `netlab` that reads a clock or lets time pass.

Everything else is handed a number, or waits through `wait_until`: for a fact, with a
deadline, and with the last thing seen in the failure's text. It knows nothing of labs.
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class DeadlineMissed(Exception):  # noqa: N818 -- it is named after what happened, as a sentence
    """A fact that was waited for did not come true in time; the text holds what was seen last."""


def now_s() -> float:
    """Monotonic seconds; only differences mean anything."""
    return time.monotonic()  # noqa: TID251 -- this is the one reader


def now_ms() -> float:
    """Monotonic milliseconds."""
    return time.monotonic() * 1000.0  # noqa: TID251 -- this is the one reader


def wall_s() -> float:
    """Seconds since 1970, for the state file and for people: never for a decision."""
    return time.time()  # noqa: TID251 -- this is the one reader


#: What turns monotonic seconds into those since 1970.
_BEGAN_S = time.time() - time.monotonic()  # noqa: TID251 -- this is the one reader


def calm_wall_s() -> float:
    """Seconds since 1970 as this process's beginning saw them: a step of the clock moves nothing."""
    return _BEGAN_S + now_s()


def wait_until(
    fact: Callable[[], T],
    what: str,
    *,
    within_s: float,
    every_s: float = 0.02,
    check: Callable[[], None] | None = None,
) -> T:
    """Poll `fact` until it is truthy and return it.

    `check` runs between polls and may raise, so that a wait ends as soon as it is hopeless
    (the process waited for has died). Raises `DeadlineMissed` naming `what` and the last value.
    """
    started_s = now_s()
    while True:
        seen = fact()
        if seen:
            return seen
        if check is not None:
            check()
        if now_s() - started_s > within_s:
            raise DeadlineMissed(f"waited {within_s:.1f} s until {what}; last seen: {seen!r}")
        time.sleep(every_s)  # noqa: TID251 -- the one place that polls


def pause_s(seconds: float) -> None:
    """Let time pass where nothing can be waited for: following a file."""
    time.sleep(seconds)  # noqa: TID251 -- see above
