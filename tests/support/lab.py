"""One lab for the tests that need it: reused, started or switched, and the machine left as found.

`lab` is the planet with real nodes, `network` the same planet where a small stand-in plays
popctl's part (tests of routes and leases need no models), `two_workers` and `narrow` other planets,
`no_lab` an empty machine. Only one lab can exist, so tests are ordered by what they need. A lab that
ran before the tests is started again after them.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab import planetfile, regions, start, state
from netlab.lab import Lab
from tests.support import narrow as little

REPO = Path(__file__).resolve().parents[2]
STANDIN = (sys.executable, "-m", "tests.support.standin")


def missing() -> str:
    """Why this machine can't run a lab, in one sentence; empty when it can."""
    if os.geteuid() != 0:
        return "the lab needs root: run the tests with sudo"
    if shutil.which("bird") is None:
        return "the lab needs BIRD: apt-get install bird2"
    return regions.missing()


def say(text: str) -> None:
    """What `up` tells goes to the test's captured stderr."""
    print(text, file=sys.stderr)


class Keeper:
    """Knows which lab stands now, and puts back what stood before the tests."""

    def __init__(self, empty_models: Path, narrow_models: Path) -> None:
        self._empty_models = empty_models
        self.narrow_models = narrow_models
        self.kind = ""
        found = state.read()
        self._before = found if found is not None and found.phase == "up" else None
        if self._before is not None:
            usual = not self._before.bare and self._before.topology_file == str(planetfile.PLANET)
            self.kind = "lab" if usual else "another"
        self._kind_before = self.kind

    def ensure(self, kind: str) -> Lab:
        """The running lab of that kind: `lab`, `network`, `two-workers` or `narrow`."""
        if self.kind == kind:
            lab = Lab.running()
            if not lab.dead():
                return lab
        self.clear()
        wishes = {
            "network": start.Wish(models=self._empty_models, program=STANDIN),
            "narrow": start.Wish(planet=little.PLANET, models=self.narrow_models),
            "two-workers": start.Wish(planet=planetfile.find("two-workers")),
            "no-redis-region": start.Wish(planet=planetfile.find("no-redis-region")),
            "lab": start.Wish(),
        }
        if kind not in wishes:  # another that ships, with stand-ins
            wishes[kind] = start.Wish(
                planet=planetfile.find(kind), models=self._empty_models, program=STANDIN
            )
        lab, _ = start.up(wishes[kind], say)
        self.kind = kind
        return lab

    def clear(self) -> None:
        """No lab at all."""
        start.down()
        self.kind = ""

    def close(self) -> None:
        """As it was before the tests."""
        if self._before is None:
            self.clear()
        elif self.kind != self._kind_before:
            self.clear()
            start.up(start.Wish(planet=Path(self._before.topology_file), bare=self._before.bare), say)


@pytest.fixture(scope="session")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    why_not = missing()
    if why_not:
        pytest.skip(why_not)
    models = tmp_path_factory.mktemp("models")
    (models / "catalog.json").write_text("{}")
    kept = Keeper(models, little.make(tmp_path_factory.mktemp("narrow") / "store"))
    try:
        yield kept
    finally:
        kept.close()


@pytest.fixture
def lab(keeper: Keeper) -> Lab:
    """The planet with real nodes."""
    if not (start.MODELS / "catalog.json").is_file():
        pytest.skip("the lab needs models: run `make models`")
    return keeper.ensure("lab")


@pytest.fixture
def network(keeper: Keeper) -> Lab:
    """The planet with stand-ins for nodes."""
    return keeper.ensure("network")


@pytest.fixture
def two_workers(keeper: Keeper) -> Lab:
    """Two worker nodes of one region, each at a POP of its own, that never send a request away."""
    if not (start.MODELS / "catalog.json").is_file():
        pytest.skip("the lab needs models: run `make models`")
    return keeper.ensure("two-workers")


@pytest.fixture
def narrow(keeper: Keeper) -> Lab:
    """The planet with little of everything, and models of its own (tests/support/narrow.py)."""
    return keeper.ensure("narrow")


@pytest.fixture
def no_lab(keeper: Keeper) -> None:
    """A machine without a lab; what the test starts is swept after it by the next who needs one."""
    keeper.clear()


#: Tests of an empty machine first, then those of the network, then of three planets: four switches.
ORDER = ("no_lab", "network", "two_workers", "narrow", "lab")


def by_need(items: list[pytest.Item]) -> None:
    """Sort the lab's tests by the fixture they need; the others keep their places."""

    def need(item: pytest.Item) -> int:
        names = getattr(item, "fixturenames", ())
        return next((rank for rank, name in enumerate(ORDER) if name in names), -1)

    items.sort(key=need)


def poplab(
    *arguments: str, timeout_s: float = 60.0, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "netlab.cli", *arguments],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
