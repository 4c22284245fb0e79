"""A link that comes and goes, once a second, while the `with` block runs."""

import contextlib
import threading
from collections.abc import Iterator

from netlab.lab import Lab

HALF_PERIOD_S = 0.5


@contextlib.contextmanager
def flapping(lab: Lab, one: str, other: str) -> Iterator[list[bool]]:
    """What happened so far: True for each time that it was cut, False for each that it was mended."""
    over, deeds = threading.Event(), list[bool]()
    wan = lab.wan

    def flap() -> None:
        while not over.wait(HALF_PERIOD_S):
            (wan.uncut if deeds and deeds[-1] else wan.cut)(one, other)
            deeds.append(not (deeds and deeds[-1]))

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield deeds
    finally:
        over.set()
        thread.join()
        wan.uncut(one, other)
