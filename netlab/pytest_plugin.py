"""A planet for anybody's tests: pytest finds this by edgepop's entry point.

    def test_a_user_of_berlin_survives_frankfurt(well_planet):
        with well_planet.fail("fra-a", "kill"):
            well_planet.city("ber").wait_until_served_by("ams", within_ms=2500)

`planet` is the running lab (netlab/lab.py: all its verbs), started once for all tests that ask for
it; `well_planet` is the same, whole before the test and healed after it. pytest loads this file in
every run on a machine that has edgepop: it imports nothing but pytest until a test wants a planet.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from netlab.keeper import Keeper, Planet

INI: Final = "edgepop_planet"
#: A planet that somebody else started and left broken is not waited for any longer.
WELL_WITHIN_S: Final = 30.0
ONE_AT_A_TIME: Final = (
    "a machine has room for one planet: with pytest-xdist, write --dist loadgroup, "
    "and all tests that use it run in one of its processes"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """--planet, --planet-models, --planet-keep, and the ini option edgepop_planet."""
    group = parser.getgroup("edgepop", "edgepop: a planet in network namespaces")
    group.addoption(
        "--planet",
        metavar="NAME|FILE",
        help="which planet the fixtures planet and well_planet start: a name of `poplab topologies`, or a "
        f"file (default: the ini option {INI}, or else poplab's own)",
    )
    group.addoption("--planet-models", metavar="DIR", help="published models that the planet serves")
    group.addoption("--planet-keep", action="store_true", help="leave the planet running after the tests")
    parser.addini(INI, "which planet to start where --planet is not given")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With pytest-xdist's loadgroup, whoever uses the planet is in one group, unless it has one."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if "planet" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group("edgepop-planet"))


@pytest.fixture(scope="session")
def planet(request: pytest.FixtureRequest) -> "Iterator[Planet]":
    """The running planet. One that ran before the tests is used, and left as it is.

    Skips with a sentence where the machine lacks a right or a program; fails where another planet
    runs, or where the one that runs is not well.
    """
    config = request.config
    here = getattr(config, "workerinput", {"workercount": 1})
    if here["workercount"] > 1 and config.getoption("dist", "no") != "loadgroup":
        pytest.fail(ONE_AT_A_TIME, pytrace=False)
    from netlab.keeper import Keeper  # nobody who has no planet pays for these

    keeper = Keeper(_say)
    lab = _up(keeper, config)
    try:
        _require_well(lab)
        yield lab
    finally:
        if not config.getoption("--planet-keep"):
            keeper.close()


def _up(keeper: "Keeper", config: pytest.Config) -> "Planet":
    from pathlib import Path

    from netlab import planetfile, start
    from netlab.apply import ApplyError
    from netlab.clock import DeadlineMissed
    from netlab.keeper import Planet
    from netlab.sections import TopologyError
    from netlab.state import BusyError
    from netlab.supervise import ProgramFailedError

    name = config.getoption("--planet") or config.getini(INI)
    models = config.getoption("--planet-models")
    try:
        wish = start.Wish(
            planet=planetfile.find(name) if name else planetfile.PLANET,
            models=Path(models) if models else start.MODELS,
        )
        start.require(wish)
        return Planet(keeper.ensure(wish).state)
    except start.MissingError as missing:
        pytest.skip(str(missing))
    except (start.RefusedError, TopologyError, BusyError) as refused:
        pytest.fail(str(refused), pytrace=False)
    except (ApplyError, ProgramFailedError, DeadlineMissed) as failed:
        pytest.fail(f"the planet did not come up: {failed}", pytrace=False)


def _require_well(lab: "Planet") -> None:
    from netlab.clock import DeadlineMissed

    try:
        lab.wait_until_well(WELL_WITHIN_S)
    except DeadlineMissed as missed:
        pytest.fail(f"{missed}; `poplab heal` mends what runs, `poplab down` takes it away", pytrace=False)


@pytest.fixture
def well_planet(planet: "Planet") -> "Iterator[Planet]":
    """The planet whole: what earlier tests broke is healed before, what this one breaks after it."""
    planet.heal()
    yield planet
    planet.heal()


def _say(text: str) -> None:
    """What the planet's start tells is part of the first test's captured output."""
    sys.stderr.write(f"{text}\n")
