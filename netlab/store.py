"""The lab's object store seen from outside: start it, kill it, make it lie, ask what it gave.

netlab/origin.py is the program; here is what scripts and tests do to it. It refuses to know what
the objects are.
"""

import os
import signal
from pathlib import Path
from typing import Any

import msgspec

from netlab import names, probe, state, supervise
from netlab.clock import wait_until
from netlab.supervise import Process
from netlab.topology import Topology

NAME = "origin"


def start(topology: Topology, models: Path, env: dict[str, str]) -> Process:
    """Start the origin in its namespace; faults and counters are on its control socket."""
    listen = f"{topology.origin4}:{topology.origin.port}"
    command = [supervise.python(), "-m", "netlab.origin", "--root", str(models.resolve())]
    command += ["--listen", listen, "--control", str(state.origin_control())]
    return supervise.start(NAME, names.ORIGIN, command, state.log_of(NAME), env)


class OriginHandle:
    """The running origin."""

    def __init__(self, topology: Topology, process: Process) -> None:
        self.topology = topology
        self.process = process

    def kill(self) -> None:
        """kill -9: whoever connects is refused from now on."""
        self.signal(signal.SIGKILL)
        wait_until(lambda: not supervise.alive(self.process), "the origin is dead", within_s=5)

    def restart(self, within_s: float = 20.0) -> "OriginHandle":
        """Start it again after it was killed. Raises ProgramFailedError, or KeyError without a lab."""
        with state.changing("restart the origin of") as change:
            remembered = state.read()
            models = Path(remembered.models if remembered is not None else "")
            log = Path(self.process.log)
            log.replace(log.with_suffix(".before.log"))  # readiness is a line in the log
            process = change(start(self.topology, models, supervise.environment(str(state.ROOT))))
        supervise.wait_until_ready(process, None, within_s)
        return OriginHandle(self.topology, process)

    def fail(self, kind: str, path_prefix: str, *, count: int = 1_000_000, **more: Any) -> None:
        """The next `count` requests below `path_prefix` fail in that way (netlab/originfault.py)."""
        rule = {"kind": kind, "path_prefix": path_prefix, "count": count, **more}
        self._ask("POST", "/_fault", msgspec.json.encode(rule))

    def heal(self, kind: str = "") -> None:
        """No faults of that kind any more; without one, none at all."""
        self._ask("DELETE", f"/_fault?kind={kind}" if kind else "/_fault", None)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        if supervise.alive(self.process):
            os.kill(self.process.pid, number)

    def stats(self) -> dict[str, Any]:
        """Requests, bytes and statuses per client, and the faults in force."""
        return dict(self._ask("GET", "/_stats", None).json)

    def _ask(self, method: str, path: str, body: bytes | None) -> probe.Answer:
        answer = probe.ask_unix(str(state.origin_control()), method, path, body=body)
        if answer.status != 200:
            raise RuntimeError(f"the origin's {method} {path}: {answer.status} {answer.text}")
        return answer
