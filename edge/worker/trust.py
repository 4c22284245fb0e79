"""Is it the request that fails, or the device?

A GPU that has fallen off its bus fails every run from then on, at once, and a worker that goes on
answers everybody wrong faster than anybody answers right. So after some failures in a row the
model's own example, which has run on this device before, runs once more: if that fails too, the
process ends, and its parent starts one that has to find the device. It knows no requests and no
runtime.
"""

from collections.abc import Callable
from typing import Final

#: Failures in a row before the example is asked; a request that is bad in itself costs one run in so many.
DOUBT_AFTER: Final = 3


class Trust:
    """One device's. Called by whichever thread runs; a count that two threads blur does no harm."""

    def __init__(self, lost: Callable[[str], None]) -> None:
        """`lost` is called with the reason to exit."""
        self._lost = lost
        self._failures = 0

    def succeeded(self) -> None:
        """A run of any model has succeeded."""
        self._failures = 0

    def failed(self, what: str, why: str, example: Callable[[], str]) -> None:
        """A run of `what` failed. `example` runs what has succeeded here before: "" or why it failed."""
        self._failures += 1
        if self._failures < DOUBT_AFTER:
            return
        self._failures = 0
        if problem := example():
            self._lost(
                f"{DOUBT_AFTER} runs in a row failed, the last of {what} ({why}), and so does its example, "
                f"which ran before ({problem}): the device is lost; this worker exits"
            )
