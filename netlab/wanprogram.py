"""The WAN's fabric as a program of the lab: what it is told, start it, start it again.

It refuses to know how frames are carried (wan.py, wannetem.py) and what a link is asked (wanhandle.py).
"""

import json
from pathlib import Path
from typing import Any, Final

from netlab import birds, names, state, supervise
from netlab.supervise import Process
from netlab.topology import Topology

NAME: Final = "wan"
#: What carries the WAN's frames -> the program.
ENGINES: Final = {"afpacket": "netlab.wan", "netem": "netlab.wannetem"}


def start(topology: Topology, engine: str, env: dict[str, str]) -> Process:
    """Start the fabric in its namespace, where every cable of the WAN ends."""
    told = state.ROOT / "wan.json"
    told.write_text(json.dumps(config(topology), indent=1))
    command = [supervise.python(), "-m", ENGINES[engine], "--config", str(told)]
    process = supervise.start(NAME, names.WAN, command, state.log_of(NAME), env)
    supervise.prefer(process, birds.NICENESS)  # a late switch falsifies measurements, a late router too
    return process


def restart(topology: Topology, within_s: float = 10.0) -> None:
    """Start it again, with every link as on the planet; nothing where it lives.

    Raises ProgramFailedError, RuntimeError where its engine can't come twice, KeyError without a lab.
    """
    with state.changing("start the WAN of") as change:
        remembered, old = state.read(), state.process(NAME)
        if remembered is None or (old is not None and supervise.alive(old)):
            return
        if remembered.wan_engine != "afpacket":
            raise RuntimeError(
                f"the program of the WAN is dead, and {remembered.wan_engine} is set up once: "
                f"poplab down, then poplab up --wan-engine {remembered.wan_engine}"
            )
        log = Path(state.log_of(NAME))
        if log.exists():
            log.replace(log.with_suffix(".before.log"))  # readiness is a line in the log
        process = change(start(topology, remembered.wan_engine, supervise.environment(str(state.ROOT))))
    supervise.wait_until_ready(process, None, within_s)


def config(topology: Topology) -> dict[str, Any]:
    """What netlab.wan is told: who is on the WAN, who is on which wire, and how far apart."""
    ports = {pop.name: names.wan_port(pop.name) for pop in topology.pops}
    return {
        "control": str(state.wan_control()),
        "lan": {
            "ports": list(ports.values()),
            "macs": {ports[pop.name]: names.wan_mac(pop.index) for pop in topology.pops},
            "one_way_ms": {
                port: {other: topology.one_way_ms(name, far) for far, other in ports.items() if far != name}
                for name, port in ports.items()
            },
        },
        "wires": [
            {
                "a": names.wire_city(city.name),
                "b": names.wire_router(city.name),
                "one_way_ms": city.rtt_ms / 2,
            }
            for city in topology.cities
        ],
    }
