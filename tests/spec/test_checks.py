"""What a doctor makes of what it saw."""

import json

import pytest

from netlab import checks
from netlab.checks import MISSING, OK, WARN, Check

GIB = 1 << 30


def lab(planet: str | None = "planet", **seen: object) -> Check:
    usual: dict[str, object] = {"up": True, "alive": 9, "dead": [], "namespaces": 12, "orphans": 0}
    return checks.lab(planet, **(usual | seen))  # type: ignore[arg-type]


# Sentence, the check, its verdict, a part of what is said, a part of the fix.
CASES: list[tuple[str, Check, str, str, str]] = [
    ("root may everything", checks.root(0), OK, "runs as root", ""),
    ("nobody may nothing", checks.root(1000), MISSING, "uid 1000", "sudo poplab doctor"),
    ("BIRD of the distribution", checks.bird("BIRD version 2.0.12\n"), OK, "2.0.12", ""),
    ("no BIRD", checks.bird(None), MISSING, "not found", "apt-get install bird2"),
    ("an old BIRD", checks.bird("BIRD version 1.6.8"), MISSING, "older than 2.0", "apt-get install bird2"),
    ("a BIRD nobody tried", checks.bird("BIRD version 3.1.0"), WARN, "never tried", "bird2"),
    ("a BIRD that does not say", checks.bird("Segmentation fault"), WARN, "can't be read", "bird2"),
    ("Redis", checks.redis(""), OK, "there", ""),
    ("no Redis", checks.redis("Redis is not installed"), MISSING, "not installed", "redis-server"),
    ("a program", checks.program("curl", "/usr/bin/curl", "curl", ""), OK, "/usr/bin/curl", ""),
    (
        "a program that is needed",
        checks.program("x", None, "x2", "for y"),
        MISSING,
        "for y",
        "apt-get install x2",
    ),
    ("one that is not", checks.program("x", None, "x2", "for y", needed=False), WARN, "for y", "x2"),
    ("what worked", checks.tried("veth", "", "lay a cable", "modprobe veth"), OK, "lay a cable", ""),
    (
        "what did not",
        checks.tried("veth", "no", "lay a cable", "modprobe veth"),
        MISSING,
        "cable: no",
        "modprobe",
    ),
    ("and was only nice", checks.tried("nft", "no", "a table", "modprobe x", needed=False), WARN, "no", "x"),
    ("netem", checks.netem(""), OK, "can delay", ""),
    ("no netem", checks.netem("ENOENT"), OK, "not in this kernel (ENOENT); the lab needs none", ""),
    ("no overlap", checks.routes([], ""), OK, "no route", ""),
    ("our own link is no collision", checks.routes([], "ours"), OK, "no route", ""),
    (
        "an overlap",
        checks.routes([("198.51.100.1/32", "198.51.0.0/16")], ""),
        MISSING,
        "198.51.0.0/16",
        "anycast:",
    ),
    ("a namesake", checks.routes([], "foreign"), MISSING, "ep-host", "ip link delete ep-host"),
    ("no lab", lab(None, alive=0, namespaces=0), OK, "none runs", ""),
    ("a lab", lab(), OK, "'planet' runs, 9 programs", ""),
    ("a lab with a dead program", lab(dead=["wan"]), WARN, "without wan", "poplab heal"),
    ("a lab that is being made", lab(up=False), WARN, "being started", "poplab down"),
    ("a lab whose programs are all dead", lab(alive=0), WARN, "none of its programs lives", "poplab down"),
    (
        "a lab that nobody remembers",
        lab(None, alive=0, orphans=3),
        WARN,
        "12 namespaces and 3",
        "poplab down",
    ),
    ("models", checks.models("/m", there=True), OK, "/m", ""),
    ("no models", checks.models("/m", there=False), MISSING, "no catalog.json", "make models"),
    ("packages", checks.packages([]), OK, "installed", ""),
    ("a package too few", checks.packages(["blake3"]), MISSING, "blake3", "setup.sh venv runtime"),
    ("a bare checkout", checks.packages(None), WARN, "itself is not installed", "setup.sh"),
    ("enough memory", checks.memory(8 * GIB), OK, "8192 MiB", ""),
    ("little memory", checks.memory(GIB), WARN, "1024 MiB", "one-pop"),
    ("no memory", checks.memory(GIB // 2), MISSING, "512 MiB", "one-pop"),
    ("room for all", checks.disk("/run", 5 * GIB, GIB, 5), OK, "5120 MiB free", ""),
    ("room for some", checks.disk("/run", 4 * GIB, GIB, 5), WARN, "take 5120", "remount,size=5376M /run"),
    ("room for none", checks.disk("/run", GIB // 2, GIB, 5), MISSING, "512 MiB free", "remount"),
    ("files", checks.files(1024, 20_000), OK, "20000 at most", ""),
    ("few files", checks.files(1024, 1024), WARN, "one per connection", "ulimit -Hn 4096"),
    ("a steady clock", checks.clock(0.2), OK, "steady", ""),
    ("a clock set back", checks.clock(-700.0), WARN, "by -700 ms", "chronyd"),
]


@pytest.mark.parametrize(
    ("check", "verdict", "seen", "fix"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_verdict(check: Check, verdict: str, seen: str, fix: str) -> None:
    assert check.verdict == verdict
    assert seen in check.seen
    assert fix in check.fix
    assert bool(check.fix) == (verdict != OK), "what is not well has a fix, what is well has none"


def test_only_what_is_missing_fails() -> None:
    assert checks.exit_code([checks.files(1, 1), checks.root(0)], 3) == 0
    assert checks.exit_code([checks.root(0), checks.root(7)], 3) == 3


def test_the_text_has_the_fix_below_its_line() -> None:
    assert checks.text([checks.root(0), checks.models("/m", there=False)]) == (
        "ok       root    this runs as root\n"
        "missing  models  /m holds no catalog.json\n"
        "                 fix: make models"
    )


def test_json_has_every_field() -> None:
    found = json.loads(json.dumps(checks.as_json([checks.root(0)])))
    assert found == {
        "schema_version": 1,
        "checks": [{"name": "root", "verdict": "ok", "seen": "this runs as root", "fix": ""}],
    }
