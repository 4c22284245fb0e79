"""What a doctor makes of what it saw: verdicts, and the fix for each as a command. Pure.

`doctor` looks and tries; every function here takes what was seen and returns a Check. It refuses
to know how anything is looked at.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

OK, WARN, MISSING = "ok", "warn", "missing"
MIN_BIRD: Final = (2, 0)
#: BIRD 3 is a new design; nothing here was tried with it.
TRIED_BIRD_BELOW: Final = (3, 0)
#: The planet after `up`, without a model on a device, is 530 MiB.
NEED_MEMORY_BYTES: Final = 768 << 20
WANT_MEMORY_BYTES: Final = 2 << 30
WANT_FILES: Final = 4096
MAX_STEP_MS: Final = 5.0
_MIB: Final = 1 << 20


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. `fix` is a command, or empty where nothing is to do."""

    name: str
    verdict: str
    seen: str
    fix: str = ""


def root(uid: int) -> Check:
    """Namespaces and raw sockets take root."""
    if uid == 0:
        return Check("root", OK, "this runs as root")
    return Check("root", MISSING, f"this runs as uid {uid}; the lab makes namespaces", "sudo poplab doctor")


def program(name: str, path: str | None, package: str, use: str, *, needed: bool = True) -> Check:
    """A program that the lab starts."""
    if path:
        return Check(name, OK, path)
    return Check(name, MISSING if needed else WARN, f"not found; {use}", f"apt-get install {package}")


def bird(told: str | None) -> Check:
    """`bird --version`, or None where there is no such program."""
    fix = "apt-get install bird2"
    if told is None:
        return Check("bird", MISSING, "not found; every router runs it", fix)
    found = re.search(r"version (\d+)\.(\d+)", told)
    if found is None:
        return Check("bird", WARN, f"its version can't be read from {told.strip()[:60]!r}", fix)
    version = (int(found[1]), int(found[2]))
    seen = told.strip().splitlines()[0]
    if version < MIN_BIRD:
        return Check("bird", MISSING, f"{seen}, which is older than 2.0", fix)
    if version >= TRIED_BIRD_BELOW:
        return Check("bird", WARN, f"{seen}, which was never tried with this lab", fix)
    return Check("bird", OK, seen)


def redis(why_not: str) -> Check:
    """`why_not` is empty where it is fit for use."""
    if not why_not:
        return Check("redis", OK, "redis-server is there, and new enough")
    return Check("redis", MISSING, why_not, "apt-get install redis-server")


def tried(name: str, error: str, what: str, fix: str, *, needed: bool = True) -> Check:
    """Something that was done to the kernel; `error` is empty where it worked."""
    if not error:
        return Check(name, OK, what)
    return Check(name, MISSING if needed else WARN, f"{what}: {error}", fix)


def netem(error: str) -> Check:
    """The kernel's own delays: nice to know, since the lab brings its own WAN."""
    seen = "the kernel can delay packets" if not error else f"not in this kernel ({error})"
    return Check("netem", OK, f"{seen}; the lab needs none, its WAN is a program")


def routes(overlaps: Sequence[tuple[object, object]], host_link: str) -> Check:
    """`overlaps` are (ours, the machine's); `host_link` as apply.host_link says."""
    change = "write other addresses under `anycast:` or `host: link:` in a copy of planet.yaml"
    if host_link == "foreign":
        return Check("routes", MISSING, "an interface ep-host is not the lab's", "ip link delete ep-host")
    if overlaps:
        ours, theirs = overlaps[0]
        return Check(
            "routes", MISSING, f"this machine routes {theirs}, which overlaps the lab's {ours}", change
        )
    return Check("routes", OK, "no route of this machine overlaps the anycast addresses or the host's link")


def lab(
    planet: str | None, *, up: bool, alive: int, dead: Collection[str], namespaces: int, orphans: int
) -> Check:
    """`planet` is None without a state file; `orphans` are tagged processes that no state file names."""
    fix = "poplab down"
    if planet is None:
        if namespaces or orphans:
            seen = f"{namespaces} namespaces and {orphans} processes of a lab that nobody remembers"
            return Check("lab", WARN, seen, fix)
        return Check("lab", OK, "none runs, and none left anything")
    if not alive:
        return Check("lab", WARN, f"{planet!r} is remembered, and none of its programs lives", fix)
    if not up:
        return Check("lab", WARN, f"{planet!r} is being started, or was cut off while it was", fix)
    if dead:
        return Check("lab", WARN, f"{planet!r} runs without {', '.join(sorted(dead))}", "poplab heal")
    return Check("lab", OK, f"{planet!r} runs, {alive} programs")


def models(path: str, *, there: bool) -> Check:
    """The published models that the origin serves."""
    if there:
        return Check("models", OK, path)
    return Check("models", MISSING, f"{path} holds no catalog.json", "make models")


def packages(missing: Sequence[str] | None) -> Check:
    """Of the packages that edgepop asks for, those not installed; None where it is not installed itself."""
    fix = "netlab/setup.sh venv runtime"
    if missing is None:
        return Check(
            "packages", WARN, "edgepop itself is not installed here, so nobody knows what it needs", fix
        )
    if missing:
        return Check("packages", MISSING, f"not installed: {', '.join(missing)}", fix)
    return Check("packages", OK, "everything that edgepop asks for is installed")


def memory(available_bytes: int) -> Check:
    """What the kernel says is available."""
    seen = f"{available_bytes // _MIB} MiB available"
    fix = "end what needs memory, or `poplab up -t one-pop`"
    if available_bytes < NEED_MEMORY_BYTES:
        return Check("memory", MISSING, f"{seen}; the planet takes {NEED_MEMORY_BYTES // _MIB}", fix)
    if available_bytes < WANT_MEMORY_BYTES:
        return Check(
            "memory", WARN, f"{seen}; with models on devices {WANT_MEMORY_BYTES // _MIB} are good", fix
        )
    return Check("memory", OK, seen)


def disk(where: str, free_bytes: int, models_bytes: int, nodes: int) -> Check:
    """Every node keeps the weights that it serves below `where`."""
    need = models_bytes * nodes
    seen = f"{free_bytes // _MIB} MiB free in {where}"
    if free_bytes >= need:
        return Check("disk", OK, seen)
    told = f"{seen}; {nodes} nodes with all models take {need // _MIB}"
    fix = f"mount -o remount,size={need // _MIB + 256}M {where}, or disk_bytes in a copy of planet.yaml"
    return Check("disk", MISSING if free_bytes < models_bytes else WARN, told, fix)


def files(soft: int, hard: int) -> Check:
    """How many descriptors a process may have; a node's children get what the hard limit allows."""
    seen = f"{soft} open files per process, {hard} at most"
    if hard < WANT_FILES:
        return Check("files", WARN, f"{seen}; a proxy has one per connection", f"ulimit -Hn {WANT_FILES}")
    return Check("files", OK, seen)


def clock(step_ms: float) -> Check:
    """How far the wall clock moved against the monotonic one while the doctor looked."""
    if abs(step_ms) <= MAX_STEP_MS:
        return Check("clock", OK, f"steady: {abs(step_ms):.2f} ms between the two clocks in a look")
    return Check(
        "clock",
        WARN,
        f"somebody set it by {step_ms:+.0f} ms just now: the WAN ages frames by it, so delays are wrong",
        "let one time service run, and let it slew: chronyd, or timedatectl set-ntp true",
    )


def exit_code(found: Sequence[Check], missing: int) -> int:
    """0, or `missing` when something that is needed is not there."""
    return missing if any(check.verdict == MISSING for check in found) else 0


def text(found: Sequence[Check]) -> str:
    """A line for each, its fix below it."""
    width = max(len(check.name) for check in found)
    lines = []
    for check in found:
        lines.append(f"{check.verdict:<7}  {check.name:<{width}}  {check.seen}")
        if check.fix:
            lines.append(f"{'':<7}  {'':<{width}}  fix: {check.fix}")
    return "\n".join(lines)


def as_json(found: Sequence[Check]) -> dict[str, Any]:
    """For --json."""
    return {"schema_version": 1, "checks": [msgspec.structs.asdict(check) for check in found]}
