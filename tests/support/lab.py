"""One lab for the tests that need it: reused, started or switched, and the machine left as found.

`lab` is the planet with real nodes, `network` the same planet where a small stand-in plays
popctl's part (tests of routes and leases need no models), `three` and `narrow` other planets,
`no_lab` an empty machine. Only one lab can exist, so tests are ordered by what they need. A lab that
ran before the tests is started again after them.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab import keeper as planets
from netlab import planetfile, start
from netlab.lab import Lab
from tests.support import narrow as little

REPO = Path(__file__).resolve().parents[2]
THREE = Path(__file__).with_name("three.yaml")
STANDIN = (sys.executable, "-m", "tests.support.standin")


def say(text: str) -> None:
    """What `up` tells goes to the test's captured stderr."""
    print(text, file=sys.stderr)


class Keeper:
    """Knows the planets of these tests by name; netlab/keeper.py keeps them."""

    def __init__(self, empty_models: Path, narrow_models: Path) -> None:
        self._keeper = planets.Keeper(say, replaces=True)
        self._standins = {"models": empty_models, "program": STANDIN}
        self.narrow_models = narrow_models
        self._wishes = {
            "network": start.Wish(**self._standins),
            "narrow": start.Wish(planet=little.PLANET, models=narrow_models),
            "three": start.Wish(planet=THREE),
            "no-redis-region": start.Wish(planet=planetfile.find("no-redis-region")),
            "lab": start.Wish(),
        }

    def ensure(self, kind: str) -> Lab:
        """The running lab of that kind: `lab`, `network`, ..., or a planet that ships, with stand-ins."""
        wish = self._wishes.get(kind) or start.Wish(planet=planetfile.find(kind), **self._standins)
        if not (wish.models / "catalog.json").is_file():
            pytest.skip("the lab needs models: run `make models`")
        return self._keeper.ensure(wish)

    def clear(self) -> None:
        """No lab at all."""
        self._keeper.clear()

    def close(self) -> None:
        """As it was before the tests."""
        self._keeper.close()


@pytest.fixture(scope="session")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    try:
        start.require(start.Wish())
    except start.MissingError as missing:
        pytest.skip(str(missing))
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
    return keeper.ensure("lab")


@pytest.fixture
def network(keeper: Keeper) -> Lab:
    """The planet with stand-ins for nodes."""
    return keeper.ensure("network")


@pytest.fixture
def three(keeper: Keeper) -> Lab:
    """Three worker nodes of one region, each at a POP of its own, that never send a request away."""
    return keeper.ensure("three")


@pytest.fixture
def narrow(keeper: Keeper) -> Lab:
    """The planet with little of everything, and models of its own (tests/support/narrow.py)."""
    return keeper.ensure("narrow")


@pytest.fixture
def no_lab(keeper: Keeper) -> None:
    """A machine without a lab; what the test starts is swept after it by the next who needs one."""
    keeper.clear()


#: Tests of an empty machine first, then those of the network, then of three planets: four switches.
ORDER = ("no_lab", "network", "three", "narrow", "lab")


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
