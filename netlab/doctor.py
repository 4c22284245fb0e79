"""Look at this machine, and try what the lab does: what checks.py then judges.

What the kernel can is found out by doing it (doctorkernel.py); a running lab is not touched. It
refuses to know what is good enough (checks.py).
"""

import importlib.metadata
import os
import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from netlab import (
    apply,
    checks,
    clock,
    doctorkernel,
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
from netlab.topology import Topology


def diagnose() -> list[Check]:
    """Every check, in the order in which to fix what they find."""
    skew_s = clock.wall_s() - clock.now_s()
    found = [checks.root(os.geteuid()), *_programs(), _packages(), _models()]
    if os.geteuid() == 0:
        found += [*doctorkernel.look(_planet()), _routes()]
    found += [_lab(), _memory(), _disk(), checks.files(*resource.getrlimit(resource.RLIMIT_NOFILE))]
    found.append(checks.clock((clock.wall_s() - clock.now_s() - skew_s) * 1000))
    return found


def _programs() -> Iterator[Check]:
    bird = shutil.which("bird")
    yield checks.bird(doctorkernel.run(bird, "--version")[1] if bird else None)
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
