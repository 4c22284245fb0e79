"""The only place in `edge` that reads a clock.

Everything else is handed a number. Deadlines are monotonic inside a process and
relative on every wire, so that no two machines' clocks are ever compared.
"""

import time


def now_s() -> float:
    """Monotonic seconds; only differences mean anything."""
    return time.monotonic()  # noqa: TID251 -- this is the one reader


def now_ms() -> float:
    """Monotonic milliseconds."""
    return time.monotonic() * 1000.0  # noqa: TID251 -- this is the one reader


def cpu_s(thread: int) -> float:
    """Seconds of processor that a living thread of this process has used; `thread` is its `ident`."""
    return time.clock_gettime(time.pthread_getcpuclockid(thread))


def wall_s() -> float:
    """Seconds since 1970, for log records only: never for a decision."""
    return time.time()  # noqa: TID251 -- this is the one reader
