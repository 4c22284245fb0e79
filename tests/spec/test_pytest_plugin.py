"""The pytest plugin: what it offers, what it says where it can't, and that it is no burden to others."""

import os
import subprocess
import sys

import pytest

from netlab import clock, keeper, netns, start
from netlab.lab import Lab

pytest_plugins = ["pytester"]

ONE_TEST = "def test_it(planet): assert planet"
#: Each would cost a tenth of a second or more, and asyncio complains of settings that are not there.
WITHOUT = [word for name in ("asyncio", "hypothesispytest", "anyio") for word in ("-p", f"no:{name}")]


@pytest.fixture
def told(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs a file of tests in this process, as a person with edgepop would, on a machine without a lab."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(netns, "missing", lambda: "")
    monkeypatch.setattr(keeper.state, "read", lambda: None)

    def run(text: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(text)
        return pytester.runpytest_inprocess(*WITHOUT, "-rsfE", *arguments)

    return run


def test_it_is_found_by_its_entry_point(pytester: pytest.Pytester) -> None:
    listed = pytester.runpytest_inprocess("--help", *WITHOUT)
    listed.stdout.fnmatch_lines(["edgepop: *", "*--planet=NAME|FILE*", "*--planet-keep*"])
    listed.stdout.fnmatch_lines(["*edgepop_planet*"])


def test_whoever_wants_no_planet_imports_nothing() -> None:
    code = "import sys; import netlab.pytest_plugin; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    bare = subprocess.run(
        [sys.executable, "-c", code.replace("netlab.pytest_plugin", "pytest")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(loaded.stdout.split()) - set(bare.stdout.split()) == {"netlab"}


def test_a_run_without_planets_is_as_ever(told) -> None:
    told("def test_it(): pass").assert_outcomes(passed=1)


MISSING = [
    ("no root", (os, "geteuid", lambda: 1000), "*takes root: run it with sudo"),
    ("no BIRD", (start.shutil, "which", lambda _: None), "*BIRD is not installed: apt-get install bird2"),
    ("no right", (netns, "missing", lambda: "no network namespace"), "*no network namespace*"),
]


@pytest.mark.parametrize(("sentence", "lack", "says"), MISSING, ids=[row[0] for row in MISSING])
def test_what_is_missing_is_said_in_one_sentence(told, monkeypatch, sentence, lack, says) -> None:
    monkeypatch.setattr(*lack)
    result = told(ONE_TEST + "\ndef test_again(well_planet): pass")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines([f"SKIPPED*{says}"])


class Remembered:
    """Stands for the lab: what is asked of it is written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, ran_before: bool = False) -> None:
        self.did: list[str] = []
        self.wish = start.Wish()
        self.running = ran_before
        #: Somebody else's `up` was at work, and ours waited for it.
        self.others = False
        monkeypatch.setattr(keeper.state, "read", lambda: self.state() if self.running else None)
        monkeypatch.setattr(start, "up", self.up)
        monkeypatch.setattr(start, "down", lambda: self.note("down", running=False))
        monkeypatch.setattr(Lab, "wait_until_well", lambda lab, within_s: self.did.append("well?"))
        monkeypatch.setattr(Lab, "heal", lambda lab: self.did.append("heal"))
        monkeypatch.setattr(Lab, "dead", lambda lab: [])

    def state(self) -> keeper.State:
        text = self.wish.planet.read_text(encoding="utf-8")
        return keeper.State(
            phase="up",
            topology_file=str(self.wish.planet),
            topology_text=text,
            host_city="nyc",
            bare=False,
            program=self.wish.program,
            models=str(self.wish.models.resolve()),
        )

    def note(self, deed: str, *, running: bool) -> None:
        self.did.append(deed)
        self.running = running

    def up(self, wish: start.Wish, say: start.Say) -> tuple[Lab, bool]:
        self.wish = wish
        self.note(f"up {wish.planet.stem}", running=True)
        say("it comes")
        return Lab(self.state()), not self.others


STORIES = [
    ("up and down again", [], ["up planet", "well?", "down"]),
    ("kept when asked", ["--planet-keep"], ["up planet", "well?"]),
    ("another by name", ["--planet", "two-workers"], ["up two-workers", "well?", "down"]),
    ("another by the ini file", ["-o", "edgepop_planet=ecmp"], ["up ecmp", "well?", "down"]),
]


@pytest.mark.parametrize(("sentence", "arguments", "did"), STORIES, ids=[row[0] for row in STORIES])
def test_the_planet_comes_once_and_goes(told, monkeypatch, sentence, arguments, did) -> None:
    lab = Remembered(monkeypatch)
    told("def test_1(planet): pass\ndef test_2(planet): pass", *arguments).assert_outcomes(passed=2)
    assert lab.did == did


def test_one_that_runs_is_used_and_left(told, monkeypatch) -> None:
    lab = Remembered(monkeypatch, ran_before=True)
    told(ONE_TEST).assert_outcomes(passed=1)
    assert lab.did == ["well?"]


def test_one_that_somebody_else_was_starting_is_left(told, monkeypatch) -> None:
    lab = Remembered(monkeypatch)
    lab.others = True
    told(ONE_TEST).assert_outcomes(passed=1)
    assert lab.did == ["up planet", "well?"]


def test_well_before_and_after(told, monkeypatch) -> None:
    lab = Remembered(monkeypatch, ran_before=True)
    told("def test_it(well_planet): assert False, 'whatever becomes of it'").assert_outcomes(failed=1)
    assert lab.did == ["well?", "heal", "heal"]


def test_one_that_is_not_well_is_no_ground_to_test_on(told, monkeypatch) -> None:
    lab = Remembered(monkeypatch)

    def never(_: Lab, within_s: float) -> None:
        raise clock.DeadlineMissed("the planet is not well after 30 s: fra-a is dead")

    monkeypatch.setattr(Lab, "wait_until_well", never)
    result = told(ONE_TEST)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fra-a is dead; `poplab heal` mends what runs*"])
    assert lab.did == ["up planet", "down"]


REFUSED = [
    ("no such planet", ["--planet", "two-worker"], "*two-workers*"),
    ("no such file", ["--planet", "my.yaml"], "*my.yaml: can't be read*"),
]


@pytest.mark.parametrize(("sentence", "arguments", "says"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_can_not_be_is_refused(told, sentence, arguments, says) -> None:
    result = told(ONE_TEST, *arguments)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([says])


def test_side_by_side_they_would_share_one_planet(told, pytester) -> None:
    pytester.makeconftest("def pytest_configure(config): config.workerinput = {'workercount': 2}")
    result = told(ONE_TEST)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*write --dist loadgroup*"])


def test_with_xdist_whoever_uses_the_planet_is_in_one_group(told, pytester, monkeypatch) -> None:
    lab = Remembered(monkeypatch)
    pytester.makeconftest(
        "def pytest_collection_finish(session):\n"
        "    for item in session.items: print(item.name, [*item.iter_markers('xdist_group')])"
    )
    tests = "def test_1(well_planet): pass\ndef test_2(): pass"
    result = told(tests, "-s", "--strict-markers")
    result.stdout.fnmatch_lines(["test_1*('edgepop-planet',)*", "test_2 []"])
    assert lab.did[-1] == "down"
