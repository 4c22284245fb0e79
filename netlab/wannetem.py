"""The WAN by the kernel's netem: sets it up, then answers the same control lines as netlab.wan.

`python -m netlab.wannetem --config FILE`, the same file. UNTESTED with netem itself: no kernel that has
it was at hand (netemplan.py says what did run). Counters are netem's own, its drops are not told
apart, and nothing is ever late: whether the kernel kept the time, nobody counts. It refuses to know
what a netem line says.
"""

import argparse
import json
import logging
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from netlab import netemplan
from netlab.wanconditions import Conditions, ConfigError
from netlab.wancontrol import Control, answer
from netlab.wanfabric import Fabric, WanConfig, build, read_config
from netlab.wanfate import Why

MAX_CONFIG_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 30.0
_NEXT: Final = "load it (modprobe sch_netem), or use --wan-engine afpacket, which needs no module"

log = logging.getLogger("netlab.wan")


class NetemError(Exception):
    """The kernel or its tools can't do it; the text has their words and the next step."""


def missing() -> str:
    """Why this machine has no netem, in one sentence; empty when it has. Found out by making one."""
    for tool in ("tc", "ip", "unshare"):
        if shutil.which(tool) is None:
            return f"netem needs {tool}: apt-get install iproute2 util-linux"
    try:
        _run(["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"], "")
    except NetemError as error:
        return f"this kernel has no netem ({error}): {_NEXT}"
    return ""


class Netem:
    """The kernel's side of a fabric."""

    def __init__(self, config: WanConfig, fabric: Fabric) -> None:
        """Make bridges and qdiscs. Raises NetemError."""
        self._config, self._fabric = config, fabric
        _run(["ip", "-batch", "-"], "\n".join(netemplan.bridges(config)))
        _run(["tc", "-batch", "-"], "\n".join(netemplan.qdiscs(config, fabric)))
        self._applied = self._wishes()

    def respond(self, line: bytes) -> dict[str, Any]:
        """Answer a control line, and make the kernel follow what it changed."""
        try:
            self._count()
            said = answer(line, self._fabric, lambda: {"engine": "netem"})
            return self._follow() or said
        except NetemError as error:
            return {"error": str(error)}

    def _wishes(self) -> dict[tuple[str, str], tuple[Conditions, bool]]:
        return {key: (pair.wish, pair.cut) for key, pair in self._fabric.pairs.items()}

    def _follow(self) -> dict[str, Any] | None:
        for key, (wish, cut) in self._wishes().items():
            before = self._applied[key]
            if (wish, cut) == before:
                continue
            pair = self._fabric.pairs[key]
            try:
                if why := netemplan.refused(wish):
                    raise NetemError(why)
                _run(["tc", "-batch", "-"], netemplan.change(self._config, pair))
            except NetemError:
                pair.become(before[0])
                pair.cut = before[1]
                raise
            self._applied[key] = (wish, cut)
        return None

    def _count(self) -> None:
        told = json.loads(_run(["tc", "-s", "-j", "qdisc", "show"], "") or "[]")
        for pair, packets, size, drops in netemplan.counters(self._config, self._fabric, told):
            pair.frames = pair.packets = packets
            pair.bytes, pair.dropped_by[Why.QUEUE] = size, drops


def _run(command: Sequence[str], lines: str) -> str:
    try:
        done = subprocess.run(
            command, input=lines + "\n", capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetemError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise NetemError(" ".join(done.stderr.split())[:300] or f"{command[0]} exited with {done.returncode}")
    return done.stdout


def main(arguments: list[str]) -> int:
    """Set up, print `ready`, answer until SIGTERM or SIGINT; 1 after one line that says what was wrong."""
    parser = argparse.ArgumentParser(prog="netlab.wannetem", description="delay frames by netem")
    parser.add_argument("--config", required=True, type=Path, help="JSON file with control, lan and wires")
    path: Path = parser.parse_args(arguments).config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s wan %(levelname)s %(message)s")
    try:
        with path.open("rb") as file:
            config = read_config(file.read(MAX_CONFIG_BYTES))
        fabric = build(config)
        if why := missing():
            raise NetemError(why)
        kernel = Netem(config, fabric)
    except (OSError, ConfigError, NetemError) as error:
        log.error("%s: %s", path, error)  # noqa: TRY400 -- a wrong config is a sentence, not a traceback
        return 1
    epoll = select.epoll()
    wake, waker = socket.socketpair()
    for end in (wake, waker):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    epoll.register(wake, select.EPOLLIN)
    control = Control(Path(config.control), epoll, kernel.respond)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        while True:
            for descriptor, _ in epoll.poll():
                if descriptor == wake.fileno():
                    return 0
                control.handle(descriptor)
    finally:
        control.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
