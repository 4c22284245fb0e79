"""Bring a planet up, whole or not at all.

The network first, then every program at once, then wait for the facts: each node is ready, each
BGP session stands, each city's route leads to its nearest POP. Whatever goes wrong, and Ctrl-C,
ends in the same sweep as `poplab down`. It refuses to know how a running lab is used (lab.py).
"""

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

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
    wanprogram,
)
from netlab.lab import Lab
from netlab.node import NodeFiles, node_yaml
from netlab.supervise import Process
from netlab.topology import Topology

MODELS: Final = Path(__file__).parent.parent / "models" / "store"
Say = Callable[[str], None]


class MissingError(Exception):
    """Something the lab needs is not there: a right, a tool, the models."""


class RefusedError(Exception):
    """The lab would collide with what the machine has; nothing was changed."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` is asked for. `bare` is the network alone; `program` runs in each node.

    `any_nodes`: one that runs is as welcome with other models and programs.
    """

    planet: Path = planetfile.PLANET
    models: Path = MODELS
    bare: bool = False
    any_nodes: bool = False
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
    if lab.topology != topology:
        same = lab.state.topology_file == str(wish.planet)
        differs = "its file has changed since" if same else f"you ask for {topology.name!r} ({wish.planet})"
    else:
        differs = differing(lab.state, wish)
    if differs:
        there = f"the planet {lab.topology.name!r} ({lab.state.topology_file})"
        raise RefusedError(f"{there} runs, and {differs}; `poplab down` first, then this again")


def differing(there: state.State, wish: Wish) -> str:
    """What a lab of the same planet lacks of what is asked for, in one sentence; empty where nothing.

    Whoever asks for the network alone is content with nodes.
    """
    if there.wan_engine != wish.wan_engine:
        return f"its WAN is carried by {there.wan_engine}, not by {wish.wan_engine}"
    if wish.bare:
        return ""
    if there.bare:
        return "it has no nodes (--bare)"
    if wish.any_nodes:
        return ""
    if there.models != str(wish.models.resolve()):
        return f"its origin serves {there.models}, not {wish.models.resolve()}"
    if interpreted(there.program) != interpreted(wish.program):
        return f"its nodes run `{' '.join(there.program)}`, not `{' '.join(wish.program)}`"
    return ""


def interpreted(program: tuple[str, ...]) -> tuple[str, ...]:
    """For comparing: a virtual environment has several names for its one interpreter."""
    first = Path(program[0]) if program else Path()
    return (str(first.parent), str(first.resolve()), *program[1:])


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
        wan_engine=wish.wan_engine,
    )
    state.write(current)
    apply.carry_out(plan.up(topology))
    at(f"network: {len(topology.pops)} POPs, {len(topology.nodes)} nodes, {len(topology.cities)} cities")
    env = supervise.environment(str(state.ROOT))
    fabric = wanprogram.start(topology, wish.wan_engine, env)
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
