"""Ports that a test may give away before somebody listens on them.

They lie below those that the kernel gives to whoever connects, of which any may be taken meanwhile,
and processes that run tests side by side each have numbers of their own.
"""

import itertools
import os
import socket
from typing import Final

FIRST: Final = 12_000
LAST: Final = 31_999
#: So many processes, each with as many numbers.
PROCESSES: Final = 20

_EACH: Final = (LAST + 1 - FIRST) // PROCESSES
_worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
_first = FIRST + (int(_worker) if _worker.isdigit() else os.getpid()) % PROCESSES * _EACH
#: Not all from the first one on: two runs of tests may have workers of the same name.
_numbers = itertools.cycle(_first + (os.getpid() + step) % _EACH for step in range(_EACH))


def free_port() -> int:
    """A port that is free now, and of which nobody else is told soon."""
    for port in itertools.islice(_numbers, _EACH):
        if _is_free(port):
            return port
    raise OSError("no port is free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
