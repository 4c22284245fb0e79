"""Bring a planet up, whole or not at all.

The network first, then every program at once, then wait for the facts: each node is ready, each
BGP session stands, each city's route leads to its nearest POP. Whatever goes wrong, and Ctrl-C,
ends in the same sweep as `poplab down`. It refuses to know how a running lab is used (lab.py).
"""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from netlab import (
    apply,
    bird,
    birds,
    clock,
    names,
    netns,
    plan,
    planetfile,
    regions,
    state,
    store,
    supervise,
    sweep,
    wannetem,
)
from netlab.lab import Lab
from netlab.node import NodeFiles, node_yaml
from netlab.supervise import Process
from netlab.topology import Topology

MODELS: Final = Path(__file__).parent.parent / "models" / "store"
#: What carries the WAN's frames -> the program.
WAN_ENGINES: Final = {"afpacket": "netlab.wan", "netem": "netlab.wannetem"}
Say = Callable[[str], None]


class MissingError(Exception):
    """Something the lab needs is not there: a right, a tool, the models."""


class RefusedError(Exception):
    """The lab would collide with what the machine has; nothing was changed."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` is asked for. `bare` is the network alone; `program` runs in each node."""

    planet: Path = planetfile.PLANET
    models: Path = MODELS
    bare: bool = False
    wan_engine: str = "afpacket"
    #: Arguments before `-c node.yaml`.
    program: tuple[str, ...] = (supervise.python(), "-m", "edge.cli", "serve")
    ready_within_s: float = 90.0
    converge_within_s: float = 30.0


def up(wish: Wish, say: Say) -> tuple[Lab, bool]:
    """The running lab, and whether this call started it.

    Raises TopologyError, MissingError, RefusedError, ApplyError, ProgramFailedError, DeadlineMissed.
    """
    require(wish)
    topology = planetfile.load(wish.planet)
    with state.locked():
        found = state.read()
        if found is not None and found.phase == "up" and (lab := Lab(found)).any_alive():
            _refuse_another(lab, topology, wish)
            return lab, False
        _require_models(wish)
        if found is not None or sweep.leftovers():
            say(f"removing what an earlier lab left: {sweep.remnants_text(sweep.sweep(0.0))}")
            state.ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
        _refuse_collisions(topology)
        umask = os.umask(0o022)  # children under other uids read what lies here, whatever the caller's umask
        try:
            return _start(wish, topology, say), True
        except BaseException as error:
            say(f"failed ({type(error).__name__}), taking everything down again")
            sweep.sweep(0.0)
            raise
        finally:
            os.umask(umask)


def _refuse_another(lab: Lab, topology: Topology, wish: Wish) -> None:
    """Only one lab can be up: what runs must be what is asked for."""
    there = f"the planet {lab.topology.name!r} ({lab.state.topology_file})"
    if lab.topology != topology:
        same = lab.state.topology_file == str(wish.planet)
        wanted = "its file has changed since" if same else f"you ask for {topology.name!r} ({wish.planet})"
        raise RefusedError(f"{there} runs, and {wanted}; `poplab down` first, then this again")
    if lab.state.bare and not wish.bare:
        raise RefusedError(f"{there} runs without nodes (--bare); `poplab down` first, then this again")


def require(wish: Wish) -> None:
    """Nothing, where this machine can have such a lab. Raises MissingError that names the next step."""
    if os.geteuid() != 0:
        raise MissingError("the lab makes network namespaces, which takes root: run it with sudo")
    if why_not := netns.missing():
        raise MissingError(why_not)
    if shutil.which("bird") is None:
        raise MissingError("BIRD is not installed: apt-get install bird2")
    if not wish.bare and (why_not := regions.missing()):
        raise MissingError(why_not)
    if wish.wan_engine == "netem" and (why_not := wannetem.missing()):
        raise MissingError(why_not)


def _require_models(wish: Wish) -> None:
    if not wish.bare and not (wish.models / "catalog.json").is_file():
        raise MissingError(f"{wish.models} holds no catalog.json: make the models first with `make models`")


def _refuse_collisions(topology: Topology) -> None:
    if apply.host_link() == "foreign":
        raise RefusedError(f"an interface {names.HOST_LINK} is not the lab's; rename or remove it")
    for ours, theirs in plan.overlaps(topology, apply.host_routes()):
        raise RefusedError(
            f"this machine already has a route for {theirs}, which overlaps the lab's {ours}; "
            f"write other addresses under `anycast:` or `host: link:` in a copy of the planet's file"
        )


def _start(wish: Wish, topology: Topology, say: Say) -> Lab:
    started_s = clock.now_s()

    def at(text: str) -> None:
        say(f"{clock.now_s() - started_s:5.1f} s  {text}")

    # Out of the lock's directory comes the lab's: whoever looks now sees that it is being made.
    for part in ("logs", "nodes", "bird"):
        (state.ROOT / part).mkdir(mode=0o755, parents=True, exist_ok=True)
    current = state.State(
        phase="starting",
        topology_file=str(wish.planet),
        topology_text=wish.planet.read_text(encoding="utf-8"),
        host_city=topology.host.city,
        bare=wish.bare,
        program=wish.program,
        models="" if wish.bare else str(wish.models.resolve()),
    )
    state.write(current)
    apply.carry_out(plan.up(topology))
    at(f"network: {len(topology.pops)} POPs, {len(topology.nodes)} nodes, {len(topology.cities)} cities")
    env = supervise.environment(str(state.ROOT))
    fabric = _start_fabric(topology, wish.wan_engine, env)
    daemons = _start_birds(topology, env, bare=wish.bare)
    origin: list[Process] = []
    indexes: list[Process] = []
    nodes: list[Process] = []
    if not wish.bare:
        origin = [store.start(topology, wish.models, env)]
        _prepare_nodes(topology)
        indexes = [regions.start(region, env) for region in topology.indexed]
        nodes = _start_nodes(topology, wish.program, env)
    current = msgspec.structs.replace(current, processes=(fabric, *daemons, *origin, *indexes, *nodes))
    state.write(current)
    lab = Lab(current)
    supervise.wait_until_ready(fabric, None, wish.ready_within_s)
    at("WAN and routers started")
    for process in origin:
        supervise.wait_until_ready(process, None, wish.ready_within_s)
    for region in topology.indexed if indexes else ():
        lab.region(region.name).redis.wait_until_answers(wish.ready_within_s)
    for process in nodes:
        supervise.wait_until_ready(process, _ready_file(process.name), wish.ready_within_s)
    if nodes:
        at(f"{len(nodes)} nodes ready")
    lab.wait_until_converged(within_s=wish.converge_within_s)
    at("BGP converged")
    apply.carry_out(plan.attach(topology, current.host_city))
    lab.wait_until_host_routed(within_s=wish.converge_within_s)
    at(f"this machine is a user in {current.host_city}")
    current = msgspec.structs.replace(current, phase="up")
    state.write(current)
    return Lab(current)


def _start_fabric(topology: Topology, engine: str, env: dict[str, str]) -> Process:
    config = state.ROOT / "wan.json"
    config.write_text(json.dumps(fabric_config(topology), indent=1))
    command = [supervise.python(), "-m", WAN_ENGINES[engine], "--config", str(config)]
    process = supervise.start("wan", names.WAN, command, state.log_of("wan"), env)
    supervise.prefer(process, birds.NICENESS)  # a late switch falsifies measurements, a late router too
    return process


def fabric_config(topology: Topology) -> dict[str, Any]:
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


def _start_birds(topology: Topology, env: dict[str, str], *, bare: bool) -> list[Process]:
    texts = {f"r-{pop.name}": bird.router_conf(topology, pop) for pop in topology.pops}
    if not bare:
        texts |= {node.name: bird.node_conf(topology, node) for node in topology.nodes if node.ingress}
    return [_bird(place, text, env) for place, text in texts.items()]


def _bird(place: str, conf: str, env: dict[str, str]) -> Process:
    """Start a BIRD. `place` is its namespace without our prefix."""
    state.bird_conf(place).write_text(conf)
    return birds.start(place, env)


def _prepare_nodes(topology: Topology) -> None:
    """Each node's home with its certificate, its secrets and node.yaml; each region's redis.conf."""
    from netlab import ca  # X.509 costs a quarter of a second, which `down` need not pay

    authority = ca.write_ca(state.ROOT / "ca")
    (state.ROOT / "ca").chmod(0o700)
    homes = {node.name: NodeFiles(state.node_home(node.name), authority.path) for node in topology.nodes}
    for node in topology.nodes:
        files = homes[node.name]
        files.home.mkdir(mode=0o755)
        ca.issue(authority, node.name, [str(node.v4), str(node.v6)], files.home)
        regions.write_secret(files.token, secrets.token_urlsafe(24))
        files.config.write_text(node_yaml(topology, node, files))
    for region in topology.indexed:
        regions.prepare(topology, region, [homes[node.name] for node in topology.nodes_of(region.name)])


def _start_nodes(topology: Topology, program: Sequence[str], env: dict[str, str]) -> list[Process]:
    def start(node: str) -> Process:
        command = [*program, "-c", str(state.node_home(node) / "node.yaml")]
        return supervise.start(node, names.node(node), command, state.log_of(node), env)

    return [start(node.name) for node in topology.nodes]


def _ready_file(node: str) -> Path:
    return state.node_home(node) / "run" / "ready"


def down() -> sweep.Swept:
    """Take the lab away, whatever is left of it."""
    if os.geteuid() != 0:
        raise MissingError("the lab belongs to root: run it with sudo")
    with state.locked():
        return sweep.sweep()
