"""A BIRD seen from outside: start it on the configuration that lies there, kill it, freeze it.

Routers and ingress nodes have one each. It refuses to know what the configuration says (bird.py)
and what the daemon thinks (birdctl.py).
"""

import os
import signal
from collections.abc import Mapping
from typing import Final

from netlab import birdctl, names, state, supervise
from netlab.clock import wait_until
from netlab.supervise import Process

NICENESS: Final = -10


def process_name(place: str) -> str:
    """What the BIRD at `place` (`r-iad`, `iad-a`) is called among the lab's programs and logs."""
    return f"{place}.bird"


def start(place: str, env: Mapping[str, str]) -> Process:
    """Start the BIRD of `place` on its bird.conf, which must be there."""
    # A router shares no processor with the machines that it serves. Worst of 32 withdrawals beside two
    # busy processes, interleaved: 58 ms without this, 48 with it. From the first instruction on: set a moment
    # later it misses the thread that BIRD has started for BFD by then (one BIRD in eight, seen).
    command = ["nice", "-n", str(NICENESS), "bird", "-f"]
    command += ["-c", str(state.bird_conf(place)), "-s", str(state.bird_control(place))]
    space = f"{names.PREFIX}{place}"
    process = supervise.start(process_name(place), space, command, state.log_of(process_name(place)), env)
    supervise.prefer(process, NICENESS)
    return process


class BirdHandle:
    """One BIRD. `process` is the one that was started last, alive or not."""

    def __init__(self, place: str, process: Process) -> None:
        self.place = place
        self.process = process

    def kill(self) -> None:
        """kill -9: its connections are reset, and its kernel keeps the routes that it set."""
        self.signal(signal.SIGKILL)
        wait_until(lambda: not supervise.alive(self.process), f"{self.process.name} is dead", within_s=5)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        if supervise.alive(self.process):
            os.kill(self.process.pid, number)

    def start(self, within_s: float = 10.0) -> None:
        """Start it again; nothing where it lives. Raises KeyError without a lab, DeadlineMissed."""
        with state.changing("start a BIRD of") as change:
            # Somebody else may have started it since this handle was made.
            self.process = state.process(self.process.name) or self.process
            if not supervise.alive(self.process):
                self.process = change(start(self.place, supervise.environment(str(state.ROOT))))
        wait_until(self._answers, f"{self.process.name} answers", within_s=within_s)

    def _answers(self) -> bool:
        try:
            return bool(birdctl.ask(state.bird_control(self.place), "show status"))
        except birdctl.BirdError:
            return False
