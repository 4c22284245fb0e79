"""Look at this machine, and try what the lab does: what checks.py then judges.

What the kernel can is found out by doing it, in a namespace that is gone again a moment later; a
running lab is not touched. It refuses to know what is good enough (checks.py).
"""

import importlib.metadata
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from netlab import (
    apply,
    checks,
    clock,
    names,
    netns,
    plan,
    planetfile,
    regions,
    start,
    state,
    supervise,
    sweep,
)
from netlab.checks import Check
from netlab.lab import Lab, NotRunningError, dead
from netlab.steps import Namespace, Step, Up, Veth
from netlab.topology import Topology
from netlab.wanport import Port

TIMEOUT_S: Final = 10.0
_MACS: Final = ("02:ed:9e:dd:00:01", "02:ed:9e:dd:00:02")


def diagnose() -> list[Check]:
    """Every check, in the order in which to fix what they find."""
    skew_s = clock.wall_s() - clock.now_s()
    found = [checks.root(os.geteuid()), *_programs(), _packages(), _models()]
    if os.geteuid() == 0:
        found += [*_kernel(), _routes()]
    found += [_lab(), _memory(), _disk(), checks.files(*resource.getrlimit(resource.RLIMIT_NOFILE))]
    found.append(checks.clock((clock.wall_s() - clock.now_s() - skew_s) * 1000))
    return found


def _run(*command: str) -> tuple[int, str]:
    """Exit code and everything that it said. Raises OSError."""
    done = subprocess.run(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout


def _programs() -> Iterator[Check]:
    bird = shutil.which("bird")
    yield checks.bird(_run(bird, "--version")[1] if bird else None)
    yield checks.redis(regions.missing())
    for name, package, use in (
        ("ip", "iproute2", "`poplab exec` and people look around with it"),
        ("curl", "curl", "`poplab curl` is it"),
    ):
        yield checks.program(name, shutil.which(name), package, use, needed=False)


def _packages() -> Check:
    try:
        wanted = importlib.metadata.requires("edgepop") or []
    except importlib.metadata.PackageNotFoundError:
        return checks.packages(None)
    missing = []
    for line in wanted:
        name = re.split(r"[ \[<>=!~;(]", line, maxsplit=1)[0]
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if "extra ==" not in line:
                missing.append(name)
    return checks.packages(missing)


def _models() -> Check:
    return checks.models(str(start.MODELS), there=(start.MODELS / "catalog.json").is_file())


def _kernel() -> Iterator[Check]:
    """A namespace of our own, with a cable in it; what fails makes what needs it fail too."""
    space = names.doctor(os.getpid())
    made = _error(lambda: apply.carry_out([Namespace(space)]))
    try:
        yield checks.tried(
            "namespaces", made, "make one and name it", "a kernel with CONFIG_NET_NS, and mounts allowed"
        )
        if made:
            return
        yield from _in_namespace(space)
    finally:
        netns.drop(space)


def _in_namespace(space: str) -> Iterator[Check]:
    def run(*steps: Step) -> str:
        return _error(lambda: apply.carry_out(steps))

    def inside(work: Callable[[], object]) -> str:
        return _error(lambda: netns.inside(space, work))

    has_ipv6 = Path("/proc/sys/net/ipv6").is_dir()
    no_ipv6 = "" if has_ipv6 else "/proc/sys/net/ipv6 does not exist"
    yield checks.tried("ipv6", no_ipv6, "the kernel speaks it", "boot without ipv6.disable=1")
    veth = run(Veth(space, "d0", _MACS[0], space, "d1", _MACS[1]), Up(space, "d0"), Up(space, "d1"))
    yield checks.tried("veth", veth, "lay a cable", "modprobe veth")
    if not veth:
        raw = inside(lambda: Port("d0").close())
        yield checks.tried(
            "af_packet", raw, "read whole frames with offload headers from it", "modprobe af_packet"
        )
        yield checks.netem(_error(lambda: apply.delay(space, "d0", 1000)))
    if (nft := shutil.which("nft")) is None:
        yield checks.program("nftables", nft, "nftables", "only tests need it", needed=False)
        return
    told = inside(lambda: _must(nft, "add table inet doctor"))
    yield checks.tried("nftables", told, "make a table", "modprobe nf_tables", needed=False)


def _must(*command: str) -> None:
    code, told = _run(*command)
    if code != 0:
        raise OSError(told.strip() or f"exit code {code}")


def _error(work: Callable[[], object]) -> str:
    """Nothing, or why it did not work in one line."""
    try:
        work()
    except (apply.ApplyError, OSError, LookupError, subprocess.TimeoutExpired) as error:
        return str(error).splitlines()[0]
    return ""


def _planet() -> Topology:
    try:
        return Lab.running().topology
    except (NotRunningError, planetfile.TopologyError):
        return planetfile.load(planetfile.PLANET)


def _routes() -> Check:
    return checks.routes(plan.overlaps(_planet(), apply.host_routes()), apply.host_link())


def _lab() -> Check:
    remembered = state.read()
    processes = remembered.processes if remembered else ()
    ended = dead(remembered) if remembered else []
    spaces: list[str] = []
    orphans = 0
    if os.geteuid() == 0:
        spaces = sweep.remnants()
        orphans = len(supervise.find({netns.inode(space) for space in spaces}, str(state.ROOT)))
    return checks.lab(
        Path(remembered.topology_file).stem if remembered else None,
        up=remembered is not None and remembered.phase == "up",
        alive=len(processes) - len(ended),
        dead=ended,
        namespaces=len(spaces),
        orphans=orphans,
    )


def _memory() -> Check:
    text = Path("/proc/meminfo").read_text()
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return checks.memory(int(found[1]) << 10 if found else 0)


def _disk() -> Check:
    where = state.ROOT.parent
    blobs = start.MODELS / "blobs"
    size = sum(file.stat().st_size for file in blobs.iterdir()) if blobs.is_dir() else 0
    return checks.disk(str(where), shutil.disk_usage(where).free, size, len(_planet().nodes))
